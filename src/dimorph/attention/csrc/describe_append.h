// Checks the arguments of append and describes the cache that it writes to. The entries of all devices begin with it.
#pragma once
#define DIMORPH_OPERATION "append"
#define DIMORPH_FIRST_ARGUMENT "cache.k"
#include <dimorph/entry.h>

#include "append.h"
#include "append_places.h"  // IWYU pragma: export
#include "cache.h"
#include "checks.h"
#include "length_checks.h"
#include "overlap.h"
#include "problem.h"

namespace dimorph {
namespace attention {

// Arguments (shapes: append in attention/appending.py). `cu_seqlens_new`: of the new rows, if they are ragged.
struct AppendArguments {
  const Tensor &k_cache, &v_cache;
  const ConstTensor &k, &v, &positions;
  const Optional<ConstTensor>&cu_seqlens_new, &cu_seqlens;
  const Cache& cache;

  Layout rows() const { return cu_seqlens_new ? kRagged : kDense; }
  const int32_t* starts() const { return cu_seqlens_new ? cu_seqlens_new->data<int32_t>() : nullptr; }
};

inline void check_new(const ConstTensor& tensor, const ConstTensor& into, const char* name, const Layout& layout,
                      const Layout& cache_layout, Device device) {
  check_layout(tensor, name, layout, device);
  if (kv_dtype(into.dtype()) == KvDtype::as_q) check_dtype(tensor, name, into.dtype(), "the dtype of the cache,");
  check_size(tensor, name, layout.head, into.size(cache_layout.head), "the heads of the cache");
  check_size(tensor, name, layout.ndim() - 1, into.size(-1), "the head dim of the cache");
}

// Describes the rooms of the sequences: of the result, batch_size, cu_seqlens_k, max_kv_len and table are set. Offsets
// and tables in the memory of a GPU are not read.
inline Problem describe_append(const AppendArguments& a) {
  const Device device = a.k_cache.device();
  const bool on_host = device.device_type == kDLCPU;
  const Layout into = a.cache.layout(), rows = a.rows();
  check_layout(a.k_cache, "cache.k", into, device);
  check_layout(a.v_cache, "cache.v", into, device);
  check_dtype(a.v_cache, "cache.v", a.k_cache.dtype(), "the dtype of 'cache.k',");
  for (int dim = 0; dim < into.ndim() - 1; ++dim)
    check_size(a.v_cache, "cache.v", dim, a.k_cache.size(dim), "as in 'cache.k'");
  check_new(a.k, a.k_cache, "k", rows, into, device);
  check_new(a.v, a.v_cache, "v", rows, into, device);
  check_dtype(a.v, "v", a.k.dtype(), "the dtype of 'k',");
  for (int dim = 0; dim < rows.head; ++dim) check_size(a.v, "v", dim, a.k.size(dim), "as in 'k'");
  const Named caches[] = {{"cache.k", a.k_cache}, {"cache.v", a.v_cache}};
  check_apart(caches[0], caches[1]);
  check_no_overlap(a.k_cache, "cache.k");
  check_no_overlap(a.v_cache, "cache.v");

  Problem problem{};
  const int64_t batch = rows.ragged
                            ? (check_offsets(*a.cu_seqlens_new, "cu_seqlens", device), a.cu_seqlens_new->size(0) - 1)
                            : a.k.size(0);
  problem.batch_size = static_cast<int32_t>(batch);
  if (a.cache.paged()) {
    describe_table(a.cache, a.k_cache, device, problem);
  } else if (into.ragged) {
    problem.cu_seqlens_k = check_offsets(*a.cu_seqlens, "cache.cu_seqlens", device);
    check_size(*a.cu_seqlens, "cache.cu_seqlens", 0, batch + 1, "the batch and 1");
    if (on_host) longest_of(problem.cu_seqlens_k, "cache.cu_seqlens", problem.batch_size, a.k_cache.size(0));
  } else {
    check_size(a.k_cache, "cache.k", 0, batch, "the batch");
    problem.max_kv_len = static_cast<int32_t>(a.k_cache.size(into.row));
  }
  if (on_host && rows.ragged) longest_of(a.starts(), "cu_seqlens", problem.batch_size, a.k.size(0));
  check_dtype(a.positions, "positions", data_type<int32_t>());
  check_device(a.positions, "positions", device);
  DIMORPH_CHECK(a.positions.ndim() == rows.row + 1 && a.positions.contiguous(),
                "append: argument 'positions': expected a contiguous tensor %s, got %d dimensions",
                rows.ragged ? "[tokens]" : "[batch, n]", a.positions.ndim());
  for (int dim = 0; dim <= rows.row; ++dim) check_size(a.positions, "positions", dim, a.k.size(dim), "as in 'k'");
  for (const Named& written : caches) {
    for (const Named& read : {Named{"k", a.k}, Named{"v", a.v}, Named{"positions", a.positions}})
      check_apart(written, read);
    if (a.cu_seqlens_new) check_apart(written, {"cu_seqlens", *a.cu_seqlens_new});
    if (a.cu_seqlens) check_apart(written, {"cache.cu_seqlens", *a.cu_seqlens});
    a.cache.for_each([&](const char* name, const Optional<ConstTensor>& tensor) {
      if (tensor) check_apart(written, {name, *tensor});
    });
  }
  return problem;
}

}  // namespace attention
}  // namespace dimorph
