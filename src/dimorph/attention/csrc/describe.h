// Checks the arguments of attention and describes them as a Problem. Every family's entry begins with it.
#pragma once
#include <dimorph/entry.h>

#include "problem.h"

namespace dimorph {
namespace attention {

inline void check_device(const ConstTensor& tensor, const char* name, Device device) {
  DIMORPH_CHECK(tensor.device().device_type == device.device_type && tensor.device().device_id == device.device_id,
                "attention: argument '%s': expected a tensor %s, where 'q' is", name,
                device.device_type == kDLCPU ? "on the CPU" : "on the GPU");
}

// The strides of batch, row and head; a ragged tensor has no batch dimension.
inline Strides strides_of(const ConstTensor& tensor, bool ragged) {
  if (ragged) return {0, tensor.stride(0), tensor.stride(1)};
  return {tensor.stride(0), tensor.stride(1), tensor.stride(2)};
}

inline void check_layout(const ConstTensor& tensor, const char* name, int ndim, Device device) {
  DIMORPH_CHECK(tensor.ndim() == ndim, "attention: argument '%s': expected %s, got %d dimensions", name,
                ndim == 4 ? "[batch, seq, heads, head_dim]" : "[tokens, heads, head_dim], as cu_seqlens are given",
                tensor.ndim());
  check_device(tensor, name, device);
  // An empty array may have any strides: libraries differ.
  DIMORPH_CHECK(tensor.stride(-1) == 1 || tensor.size(-1) == 1 || tensor.numel() == 0,
                "attention: argument '%s': expected a contiguous last dimension, got stride %lld", name,
                static_cast<long long>(tensor.stride(-1)));
}

inline void check_dtype(const ConstTensor& tensor, const char* name, const ConstTensor& q) {
  DIMORPH_CHECK_TYPE(tensor.dtype() == q.dtype(), "attention: argument '%s': expected the dtype of 'q'", name);
}

inline void check_size(const ConstTensor& tensor, const char* name, int dim, int64_t expected, const char* meaning) {
  DIMORPH_CHECK(tensor.size(dim) == expected,
                "attention: argument '%s': expected size %lld in dimension %d (%s), got %lld", name,
                static_cast<long long>(expected), dim, meaning, static_cast<long long>(tensor.size(dim)));
}

// `out` must not be an input, because inputs are still read after the first outputs are written. Tensors that overlap
// in other ways are not found.
inline void check_apart(const Tensor& out, const ConstTensor& tensor, const char* name) {
  DIMORPH_CHECK(out.data() != tensor.data() || out.numel() == 0,
                "attention: argument 'out': expected memory of its own, got that of '%s'", name);
}

// Checks dtype, device and shape. Offsets in the memory of a GPU are not read: the caller guarantees them.
inline const int32_t* check_offsets(const ConstTensor& offsets, const char* name, Device device) {
  DIMORPH_CHECK_TYPE(offsets.dtype() == dimorph::data_type<int32_t>(), "attention: argument '%s': expected dtype int32",
                     name);
  check_device(offsets, name, device);
  DIMORPH_CHECK(offsets.ndim() == 1 && offsets.size(0) >= 1 && offsets.contiguous(),
                "attention: argument '%s': expected a contiguous tensor [batch + 1]", name);
  return offsets.data<int32_t>();
}

// Checks every offset. Returns the longest length.
inline int32_t longest_of(const int32_t* offsets, const char* name, int32_t batch, int64_t tokens) {
  DIMORPH_CHECK(offsets[0] == 0, "attention: argument '%s': expected 0 first, got %d", name, offsets[0]);
  int32_t longest = 0;
  for (int32_t i = 1; i <= batch; ++i) {
    DIMORPH_CHECK(offsets[i] >= offsets[i - 1],
                  "attention: argument '%s': expected offsets that never fall, got %d after %d", name, offsets[i],
                  offsets[i - 1]);
    const int32_t length = offsets[i] - offsets[i - 1];
    longest = length > longest ? length : longest;
  }
  DIMORPH_CHECK(offsets[batch] <= tokens, "attention: argument '%s': expected offsets up to %lld tokens, got %d", name,
                static_cast<long long>(tokens), offsets[batch]);
  return longest;
}

// The longest length for a GPU, as given; without one, the number of tokens.
inline int32_t longest_given(const Optional<int64_t>& given, const char* name, int64_t tokens) {
  if (!given) return static_cast<int32_t>(tokens);
  DIMORPH_CHECK(*given >= 0, "attention: argument '%s': expected the length of a sequence, got %lld", name,
                static_cast<long long>(*given));
  return static_cast<int32_t>(*given < tokens ? *given : tokens);
}

// On a GPU the lengths of ragged sequences are not read: the longest are max_seqlen_q and max_seqlen_k or, without
// them, as many as there are tokens.
inline Problem describe(const ConstTensor& q, const ConstTensor& k, const ConstTensor& v, const Tensor& out,
                        const Optional<Tensor>& lse, const Optional<ConstTensor>& cu_seqlens_q,
                        const Optional<ConstTensor>& cu_seqlens_k, float sm_scale,
                        const Optional<int64_t>& max_seqlen_q, const Optional<int64_t>& max_seqlen_k) {
  DIMORPH_CHECK(bool(cu_seqlens_q) == bool(cu_seqlens_k),
                "attention: arguments 'cu_seqlens_q' and 'cu_seqlens_k': expected both or neither");
  const bool ragged = bool(cu_seqlens_q);
  const int ndim = ragged ? 3 : 4, row = ragged ? 0 : 1, head = row + 1;
  const Device device = q.device();
  check_layout(q, "q", ndim, device);
  check_layout(k, "k", ndim, device);
  check_layout(v, "v", ndim, device);
  check_layout(out, "out", ndim, device);
  check_dtype(k, "k", q);
  check_dtype(v, "v", q);
  check_dtype(out, "out", q);
  if (!ragged) {
    check_size(k, "k", 0, q.size(0), "the batch of 'q'");
    check_size(v, "v", 0, q.size(0), "the batch of 'q'");
    check_size(out, "out", 0, q.size(0), "the batch of 'q'");
  }
  check_size(k, "k", ndim - 1, q.size(ndim - 1), "the head dim of 'q'");
  check_size(v, "v", row, k.size(row), "the rows of 'k'");
  check_size(v, "v", head, k.size(head), "the heads of 'k'");
  check_size(out, "out", row, q.size(row), "the rows of 'q'");
  check_size(out, "out", head, q.size(head), "the heads of 'q'");
  check_size(out, "out", ndim - 1, v.size(ndim - 1), "the head dim of 'v'");
  DIMORPH_CHECK(k.size(head) > 0 && q.size(head) % k.size(head) == 0,
                "attention: argument 'q': expected a number of heads that is a multiple of the %lld of 'k', got %lld",
                static_cast<long long>(k.size(head)), static_cast<long long>(q.size(head)));
  DIMORPH_CHECK(q.size(row) <= dm::kMaxLength && k.size(row) <= dm::kMaxLength,
                "attention: arguments 'q' and 'k': expected at most %d rows", dm::kMaxLength);
  DIMORPH_CHECK(sm_scale == sm_scale, "attention: argument 'scale': expected a number, got NaN");
  check_apart(out, q, "q");
  check_apart(out, k, "k");
  check_apart(out, v, "v");

  Problem problem{};
  problem.q = q.data();
  problem.k = k.data();
  problem.v = v.data();
  problem.out = out.data();
  problem.q_strides = strides_of(q, ragged);
  problem.k_strides = strides_of(k, ragged);
  problem.v_strides = strides_of(v, ragged);
  problem.out_strides = strides_of(out, ragged);
  problem.num_qo_heads = static_cast<int32_t>(q.size(head));
  problem.num_kv_heads = static_cast<int32_t>(k.size(head));
  problem.sm_scale = sm_scale;
  if (ragged) {
    problem.cu_seqlens_q = check_offsets(*cu_seqlens_q, "cu_seqlens_q", device);
    problem.cu_seqlens_k = check_offsets(*cu_seqlens_k, "cu_seqlens_k", device);
    check_size(*cu_seqlens_k, "cu_seqlens_k", 0, cu_seqlens_q->size(0), "the size of 'cu_seqlens_q'");
    problem.batch_size = static_cast<int32_t>(cu_seqlens_q->size(0) - 1);
    if (device.device_type == kDLCPU) {
      problem.max_qo_len = longest_of(problem.cu_seqlens_q, "cu_seqlens_q", problem.batch_size, q.size(0));
      problem.max_kv_len = longest_of(problem.cu_seqlens_k, "cu_seqlens_k", problem.batch_size, k.size(0));
    } else {
      problem.max_qo_len = longest_given(max_seqlen_q, "max_seqlen_q", q.size(0));
      problem.max_kv_len = longest_given(max_seqlen_k, "max_seqlen_k", k.size(0));
    }
  } else {
    problem.batch_size = static_cast<int32_t>(q.size(0));
    problem.max_qo_len = static_cast<int32_t>(q.size(1));
    problem.max_kv_len = static_cast<int32_t>(k.size(1));
  }
  if (lse) {
    DIMORPH_CHECK_TYPE(lse->dtype() == dimorph::data_type<float>(),
                       "attention: argument 'lse': expected dtype float32");
    check_device(*lse, "lse", device);
    DIMORPH_CHECK(lse->ndim() == ndim - 1, "attention: argument 'lse': expected the shape of 'q' without head_dim");
    for (int dim = 0; dim <= head; ++dim) check_size(*lse, "lse", dim, q.size(dim), "as in 'q'");
    problem.lse = lse->data<float>();
    problem.lse_strides = strides_of(*lse, ragged);
  }
  return problem;
}

}  // namespace attention
}  // namespace dimorph
