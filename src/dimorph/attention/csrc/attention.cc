// The entry of attention: checks the arguments, describes them as a Problem, and calls the case for their values.
#include <dimorph/entry.h>

#include "attention_config.h"
#include "problem.h"

using dimorph::ConstTensor;
using dimorph::Extra;
using dimorph::Optional;
using dimorph::Str;
using dimorph::Tensor;
using dimorph::attention::Problem;
using dimorph::attention::Strides;

namespace {

constexpr int64_t kMaxLength = (int64_t{1} << 31) - 1024;  // indices are 32 bits wide, and tiles look ahead

// [batch, row, head] of a dense tensor or [row, head] of a ragged one, in elements.
Strides strides_of(const ConstTensor& tensor, bool ragged) {
  if (ragged) return {0, tensor.stride(0), tensor.stride(1)};
  return {tensor.stride(0), tensor.stride(1), tensor.stride(2)};
}

void check_layout(const ConstTensor& tensor, const char* name, int ndim) {
  DIMORPH_CHECK(tensor.ndim() == ndim, "attention: argument '%s': expected %s, got %d dimensions", name,
                ndim == 4 ? "[batch, seq, heads, head_dim]" : "[tokens, heads, head_dim], as cu_seqlens are given",
                tensor.ndim());
  DIMORPH_CHECK(tensor.device().device_type == kDLCPU, "attention: argument '%s': expected a CPU tensor", name);
  DIMORPH_CHECK(tensor.stride(-1) == 1 || tensor.size(-1) == 1,
                "attention: argument '%s': expected a contiguous last dimension, got stride %lld", name,
                static_cast<long long>(tensor.stride(-1)));
}

void check_dtype(const ConstTensor& tensor, const char* name, const ConstTensor& q) {
  DIMORPH_CHECK_TYPE(tensor.dtype() == q.dtype(), "attention: argument '%s': expected the dtype of 'q'", name);
}

void check_size(const ConstTensor& tensor, const char* name, int dim, int64_t expected, const char* meaning) {
  DIMORPH_CHECK(tensor.size(dim) == expected,
                "attention: argument '%s': expected size %lld in dimension %d (%s), got %lld", name,
                static_cast<long long>(expected), dim, meaning, static_cast<long long>(tensor.size(dim)));
}

// Returns the offsets after checking them; sets the longest length.
const int32_t* check_offsets(const ConstTensor& offsets, const char* name, int64_t tokens, int32_t* longest) {
  DIMORPH_CHECK_TYPE(offsets.dtype() == dimorph::data_type<int32_t>(), "attention: argument '%s': expected dtype int32",
                     name);
  DIMORPH_CHECK(
      offsets.ndim() == 1 && offsets.size(0) >= 1 && offsets.contiguous() && offsets.device().device_type == kDLCPU,
      "attention: argument '%s': expected a contiguous CPU tensor [batch + 1]", name);
  const int32_t* values = offsets.data<int32_t>();
  DIMORPH_CHECK(values[0] == 0, "attention: argument '%s': expected 0 first, got %d", name, values[0]);
  *longest = 0;
  for (int64_t i = 1; i < offsets.size(0); ++i) {
    const int32_t length = values[i] - values[i - 1];
    DIMORPH_CHECK(values[i] >= values[i - 1],
                  "attention: argument '%s': expected offsets that never fall, got %d after %d", name, values[i],
                  values[i - 1]);
    *longest = length > *longest ? length : *longest;
  }
  DIMORPH_CHECK(values[offsets.size(0) - 1] <= tokens,
                "attention: argument '%s': expected offsets up to %lld tokens, got %d", name,
                static_cast<long long>(tokens), values[offsets.size(0) - 1]);
  return values;
}

Problem describe(const ConstTensor& q, const ConstTensor& k, const ConstTensor& v, const Tensor& out,
                 const Optional<Tensor>& lse, const Optional<ConstTensor>& cu_seqlens_q,
                 const Optional<ConstTensor>& cu_seqlens_k, float sm_scale) {
  DIMORPH_CHECK(bool(cu_seqlens_q) == bool(cu_seqlens_k),
                "attention: arguments 'cu_seqlens_q' and 'cu_seqlens_k': expected both or neither");
  const bool ragged = bool(cu_seqlens_q);
  const int ndim = ragged ? 3 : 4, row = ragged ? 0 : 1, head = row + 1;
  check_layout(q, "q", ndim);
  check_layout(k, "k", ndim);
  check_layout(v, "v", ndim);
  check_layout(out, "out", ndim);
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
  DIMORPH_CHECK(q.size(row) <= kMaxLength && k.size(row) <= kMaxLength,
                "attention: arguments 'q' and 'k': expected at most %lld rows", static_cast<long long>(kMaxLength));

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
    problem.cu_seqlens_q = check_offsets(*cu_seqlens_q, "cu_seqlens_q", q.size(0), &problem.max_qo_len);
    problem.cu_seqlens_k = check_offsets(*cu_seqlens_k, "cu_seqlens_k", k.size(0), &problem.max_kv_len);
    check_size(*cu_seqlens_k, "cu_seqlens_k", 0, cu_seqlens_q->size(0), "the size of 'cu_seqlens_q'");
    problem.batch_size = static_cast<int32_t>(cu_seqlens_q->size(0) - 1);
  } else {
    problem.batch_size = static_cast<int32_t>(q.size(0));
    problem.max_qo_len = static_cast<int32_t>(q.size(1));
    problem.max_kv_len = static_cast<int32_t>(k.size(1));
  }
  if (lse) {
    DIMORPH_CHECK_TYPE(lse->dtype() == dimorph::data_type<float>(),
                       "attention: argument 'lse': expected dtype float32");
    DIMORPH_CHECK(lse->ndim() == ndim - 1 && lse->device().device_type == kDLCPU,
                  "attention: argument 'lse': expected a CPU tensor of the shape of 'q' without head_dim");
    for (int dim = 0; dim <= head; ++dim) check_size(*lse, "lse", dim, q.size(dim), "as in 'q'");
    problem.lse = lse->data<float>();
    problem.lse_strides = strides_of(*lse, ragged);
  }
  return problem;
}

}  // namespace

// out[b, i, h] = the sum over j of weight[b, h, i, j] * v[b, j, h / group]; `variant` names what the weights are and
// Extra carries its parameters. lse, if given, receives the natural log-sum-exp of the logits.
void attention(ConstTensor q, ConstTensor k, ConstTensor v, Tensor out, Optional<Tensor> lse,
               Optional<ConstTensor> cu_seqlens_q, Optional<ConstTensor> cu_seqlens_k, float sm_scale, Str variant,
               Extra extra) {
  const Problem problem = describe(q, k, v, out, lse, cu_seqlens_q, cu_seqlens_k, sm_scale);
  DISPATCH_dtype(
      q.dtype(), DType,
      DISPATCH_head_dims(q.size(-1), v.size(-1), HEAD_DIM_QK, HEAD_DIM_VO,
                         DISPATCH_variant(variant, ATTENTION_VARIANT, DIMORPH_CALL(attention)(problem, extra))));
}
DIMORPH_EXPORT(attention)
