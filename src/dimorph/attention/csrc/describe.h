// Checks the arguments of attention and describes them as a Problem. Every family's entry begins with it.
#pragma once
#include <dimorph/entry.h>

#include "overlap.h"
#include "problem.h"

namespace dimorph {
namespace attention {

// Sequences, heads and rows of a sequence over all heads, which the kernels count with 32 bits.
constexpr int64_t kMostSize = 1 << 30;

inline void check_device(const ConstTensor& tensor, const char* name, Device device) {
  const Device given = tensor.device();
  if (given.device_type == device.device_type && given.device_id == device.device_id) return;
  dimorph::detail::ValueText want, got;
  dimorph::detail::print_value(device, want);
  dimorph::detail::print_value(given, got);
  DIMORPH_RAISE(value, "attention: argument '%s': expected a tensor on %s, where 'q' is, got one on %s", name, want,
                got);
}

// The strides of batch, row and head; a ragged tensor has no batch dimension.
inline Strides strides_of(const ConstTensor& tensor, bool ragged) {
  if (ragged) return {0, tensor.stride(0), tensor.stride(1)};
  return {tensor.stride(0), tensor.stride(1), tensor.stride(2)};
}

// The rows of q and k, [batch, seq, heads, head_dim] or ragged.
inline Tokens tokens_of(const ConstTensor& q, const ConstTensor& k) {
  if (q.ndim() == 3) return {q.size(0), k.size(0)};
  return {q.size(0) * q.size(1), k.size(0) * k.size(1)};
}

inline void check_layout(const ConstTensor& tensor, const char* name, int ndim, Device device) {
  DIMORPH_CHECK(tensor.ndim() == ndim, "attention: argument '%s': expected %s, got %d dimension%s", name,
                ndim == 4 ? "[batch, seq, heads, head_dim]" : "[tokens, heads, head_dim], as cu_seqlens are given",
                tensor.ndim(), tensor.ndim() == 1 ? "" : "s");
  check_device(tensor, name, device);
  // An empty array may have any strides: libraries differ.
  DIMORPH_CHECK(tensor.stride(-1) == 1 || tensor.size(-1) == 1 || tensor.numel() == 0,
                "attention: argument '%s': expected a contiguous last dimension, got stride %lld", name,
                static_cast<long long>(tensor.stride(-1)));
}

inline void check_dtype(const ConstTensor& tensor, const char* name, DataType expected, const char* meaning = "dtype") {
  if (tensor.dtype() == expected) return;
  dimorph::detail::ValueText want, got;
  dimorph::detail::print_value(expected, want);
  dimorph::detail::print_value(tensor.dtype(), got);
  DIMORPH_RAISE(type, "attention: argument '%s': expected %s %s, got %s", name, meaning, want, got);
}

inline void check_size(const ConstTensor& tensor, const char* name, int dim, int64_t expected, const char* meaning) {
  DIMORPH_CHECK(tensor.size(dim) == expected,
                "attention: argument '%s': expected size %lld in dimension %d (%s), got %lld", name,
                static_cast<long long>(expected), dim, meaning, static_cast<long long>(tensor.size(dim)));
}

inline void check_most(const ConstTensor& tensor, const char* name, int dim, int64_t most, const char* meaning) {
  DIMORPH_CHECK(tensor.size(dim) <= most,
                "attention: argument '%s': expected size %lld or less in dimension %d (%s), got %lld", name,
                static_cast<long long>(most), dim, meaning, static_cast<long long>(tensor.size(dim)));
}

// Refuses a tensor to write to in which two elements may share memory: from the smallest stride to the largest, each
// must lead past all elements of the dimensions before it.
inline void check_no_overlap(const Tensor& out, const char* name) {
  if (out.contiguous()) return;
  int64_t strides[4], sizes[4], reach = 0;
  int count = 0;
  for (int dim = 0; dim < out.ndim(); ++dim) {
    if (out.size(dim) == 1) continue;
    const int64_t stride = out.stride(dim) < 0 ? -out.stride(dim) : out.stride(dim);
    int at = count++;
    for (; at > 0 && strides[at - 1] > stride; --at) strides[at] = strides[at - 1], sizes[at] = sizes[at - 1];
    strides[at] = stride, sizes[at] = out.size(dim);
  }
  for (int i = 0; i < count; ++i) {
    int64_t length = 0;
    DIMORPH_CHECK(strides[i] > reach && !__builtin_mul_overflow(strides[i], sizes[i] - 1, &length) &&
                      !__builtin_add_overflow(reach, length, &reach),
                  "attention: argument '%s': expected elements that share no memory, got stride %lld for size %lld",
                  name, static_cast<long long>(strides[i]), static_cast<long long>(sizes[i]));
  }
}

// Checks dtype, device and shape. Offsets in the memory of a GPU are not read: the caller guarantees them.
inline const int32_t* check_offsets(const ConstTensor& offsets, const char* name, Device device) {
  check_dtype(offsets, name, dimorph::data_type<int32_t>());
  check_device(offsets, name, device);
  DIMORPH_CHECK(offsets.ndim() == 1, "attention: argument '%s': expected a tensor [batch + 1], got %d dimensions", name,
                offsets.ndim());
  DIMORPH_CHECK(offsets.contiguous(), "attention: argument '%s': expected a contiguous tensor, got stride %lld", name,
                static_cast<long long>(offsets.stride(0)));
  DIMORPH_CHECK(offsets.size(0) >= 1 && offsets.size(0) <= kMostSize,
                "attention: argument '%s': expected 1 to %lld offsets, got %lld", name,
                static_cast<long long>(kMostSize), static_cast<long long>(offsets.size(0)));
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
                "attention: argument '%s': expected offsets, as '%s' is given: both or neither",
                cu_seqlens_q ? "cu_seqlens_k" : "cu_seqlens_q", cu_seqlens_q ? "cu_seqlens_q" : "cu_seqlens_k");
  const bool ragged = bool(cu_seqlens_q);
  const int ndim = ragged ? 3 : 4, row = ragged ? 0 : 1, head = row + 1;
  const Device device = q.device();
  check_layout(q, "q", ndim, device);
  check_layout(k, "k", ndim, device);
  check_layout(v, "v", ndim, device);
  check_layout(out, "out", ndim, device);
  check_dtype(k, "k", q.dtype(), "the dtype of 'q',");
  check_dtype(v, "v", q.dtype(), "the dtype of 'q',");
  check_dtype(out, "out", q.dtype(), "the dtype of 'q',");
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
  if (!ragged) check_most(q, "q", 0, kMostSize, "the batch");
  check_most(q, "q", row, dm::kMaxLength, "rows");
  check_most(k, "k", row, dm::kMaxLength, "rows");
  check_most(q, "q", head, kMostSize, "heads");
  DIMORPH_CHECK(sm_scale == sm_scale, "attention: argument 'scale': expected a number, got NaN");
  // Queries times the scale must be finite.
  DIMORPH_CHECK(sm_scale >= -1e30f && sm_scale <= 1e30f,
                "attention: argument 'scale': expected a number from -1e30 to 1e30, got %g",
                static_cast<double>(sm_scale));
  const Named arrays[] = {{"q", q}, {"k", k}, {"v", v}, {"out", out}};
  const Named& result = arrays[3];
  for (int i = 0; i < 3; ++i) check_apart(result, arrays[i]);

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
    for (const Named& offsets : {Named{"cu_seqlens_q", *cu_seqlens_q}, Named{"cu_seqlens_k", *cu_seqlens_k}}) {
      check_apart(result, offsets);
      if (lse) check_apart({"lse", *lse}, offsets);
    }
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
  // Rows over all heads are counted with 32 bits too.
  const int64_t rows = int64_t{problem.max_qo_len} * problem.num_qo_heads;
  DIMORPH_CHECK(
      rows <= kMostSize && int64_t{problem.batch_size} * problem.num_kv_heads <= kMostSize,
      "attention: argument 'q': expected at most %lld rows of a sequence over all heads, and as many heads of "
      "'k' over the batch, got %lld and %lld",
      static_cast<long long>(kMostSize), static_cast<long long>(rows),
      static_cast<long long>(int64_t{problem.batch_size} * problem.num_kv_heads));
  check_no_overlap(out, "out");
  if (lse) {
    check_dtype(*lse, "lse", dimorph::data_type<float>());
    check_device(*lse, "lse", device);
    DIMORPH_CHECK(lse->ndim() == ndim - 1,
                  "attention: argument 'lse': expected the shape of 'q' without head_dim, got %d dimension%s",
                  lse->ndim(), lse->ndim() == 1 ? "" : "s");
    for (int dim = 0; dim <= head; ++dim) check_size(*lse, "lse", dim, q.size(dim), "as in 'q'");
    check_no_overlap(*lse, "lse");
    for (const Named& other : arrays) check_apart({"lse", *lse}, other);
    problem.lse = lse->data<float>();
    problem.lse_strides = strides_of(*lse, ragged);
  }
  return problem;
}

}  // namespace attention
}  // namespace dimorph
