// What the entries of all GPU families do with their arguments: check them, and describe them for the case.
#pragma once
#include <dimorph/entry.h>

#include "../describe.h"
#include "../overlap.h"
#include "../problem.h"
#include "launch.h"

namespace dimorph {
namespace attention {
namespace gpu {

// Describes what a tensor lacks that the family's memory accesses need, as a phrase for a message; null if it lacks
// nothing. `tiled`: the tensor is read in tiles of keys.
using LayoutError = const char* (*)(const void* data, const Strides& strides, bool tiled);

inline void check_alignment(const ConstTensor& tensor, Strides strides, const char* name, bool tiled,
                            LayoutError layout_error, const Layout& layout) {
  // The stride of a dimension of size 1 is never used.
  if (tensor.size(0) <= 1) strides.batch = 0;
  if (tensor.size(layout.row) <= 1) strides.row = 0;
  if (tensor.size(layout.head) <= 1) strides.head = 0;
  const char* missing = layout_error(tensor.data(), strides, tiled);
  DIMORPH_CHECK(!missing,
                "attention: argument '%s': expected %s, as copies of 16 bytes need, got address %p and strides "
                "of sequences, rows and heads of %lld, %lld and %lld elements",
                name, missing, tensor.data(), static_cast<long long>(strides.batch),
                static_cast<long long>(strides.row), static_cast<long long>(strides.head));
}

// The arguments of a case.
struct Call {
  Problem problem;
  Launch launch;
};

// Checks the arguments of a family's entry and describes them. `cache`: see `describe`.
inline Call describe_call(const ConstTensor& q, const ConstTensor& k, const ConstTensor& v, const Optional<Tensor>& out,
                          float scale, const Optional<Tensor>& lse, const Optional<Tensor>& workspace,
                          const Optional<ConstTensor>& cu_seqlens_q, const Optional<ConstTensor>& cu_seqlens_k,
                          const Optional<int64_t>& max_seqlen_q, const Optional<int64_t>& max_seqlen_k,
                          LayoutError layout_error, const Cache* cache = nullptr) {
  DIMORPH_CHECK(q.device().device_type == kDLCUDA, "attention: argument 'q': expected a tensor on a GPU");
  Call call{describe(q, k, v, out, lse, cu_seqlens_q, cu_seqlens_k, scale, max_seqlen_q, max_seqlen_k, cache),
            Launch{}};
  const Layout rows = cu_seqlens_q ? kRagged : kDense, keys = cache ? cache->layout() : rows;
  check_alignment(q, call.problem.q_strides, "q", false, layout_error, rows);
  check_alignment(k, call.problem.k_strides, "k", true, layout_error, keys);
  check_alignment(v, call.problem.v_strides, "v", true, layout_error, keys);
  if (out) check_alignment(*out, call.problem.out_strides, "out", false, layout_error, rows);
  call.launch.device = q.device();
  const Tokens tokens = tokens_of(call.problem, q, k, cache && cache->indices ? cache->indices->size(0) : 0);
  call.launch.tokens = tokens.queries;
  call.launch.key_tokens = tokens.keys;
  if (workspace) {
    check_device(*workspace, "workspace", q.device());
    check_dtype(*workspace, "workspace", data_type<float>());
    DIMORPH_CHECK(workspace->contiguous(),
                  "attention: argument 'workspace': expected a contiguous tensor, got one with "
                  "other strides");
    DIMORPH_CHECK(reinterpret_cast<uint64_t>(workspace->data()) % 8 == 0,
                  "attention: argument 'workspace': expected an address that is a multiple of 8, got %p",
                  workspace->data());
    const Named written{"workspace", *workspace};
    const auto check_other = [&](const char* name, const Optional<ConstTensor>& other) {
      if (other) check_apart(written, {name, *other});
    };
    check_other("q", q), check_other("k", k), check_other("v", v);
    if (out) check_apart(written, {"out", *out});
    if (lse) check_apart(written, {"lse", *lse});
    check_other("cu_seqlens_q", cu_seqlens_q), check_other(cache ? "cu_seqlens" : "cu_seqlens_k", cu_seqlens_k);
    if (cache) cache->for_each(check_other);
    call.launch.workspace = workspace->data<float>();
    call.launch.workspace_size = workspace->numel();
  }
  return call;
}

}  // namespace gpu
}  // namespace attention
}  // namespace dimorph
