// What the CPU family computes on: one sequence of the batch, with the variant's view of it.
#pragma once
#include <dimorph/attention/math.h>
#include <dimorph/attention/variants.h>

#include "../problem.h"
#include "pairs.h"
#include "params.h"

namespace DIMORPH_CASE {

using dm::IntV;
using dm::MaskV;
using dm::TileClass;

// Logits are kept in units of log2, so that a weight is exp2 of a difference. Queries in float32 carry sm_scale, and
// without a logits transform log2(e) too: no logit is scaled one by one.
constexpr float kQueryUnit = Traits::has_logits_transform ? 1.f : dm::math::log2e;
constexpr float kLogitUnit = Traits::has_logits_transform ? dm::math::log2e : 1.f;
// Pairs of queries carry its sign only, which rounds nothing. Where no hook sees a logit or a maximum, blocks of them
// keep logits as they come from the product, and scale the differences: so the largest has weight 1, however large.
constexpr bool kUnscaled = kPaired && Traits::use_softmax && !Traits::has_logits_transform && !Traits::has_row_init;
// Where a maximum starts: finite, so that -inf minus it is -inf and not NaN.
constexpr float kLowest = -3.402823466e38f;

// One sequence and one head of its keys and values.
struct Sequence {
  const Params& params;
  Variant variant;
  int batch, kv_head, qo_len, kv_len;
  const DType *q, *k, *v;
  DType* out;
  float* lse;
  float logit_scale;  // what is left to multiply logits with, or their differences; never 0, so that -inf stays it

  Sequence(const Params& p, int batch_idx, int kv_head_idx)
      : params(p),
        variant(dm::hooks::make<Variant>(p, batch_idx)),
        batch(batch_idx),
        kv_head(kv_head_idx),
        qo_len(p.get_qo_len(batch_idx)),
        kv_len(p.get_kv_len(batch_idx)),
        logit_scale(kPaired && Traits::use_softmax ? scale_of(p) : 1.f) {
    const int q_row = p.cu_seqlens_q ? p.cu_seqlens_q[batch] : 0, k_row = p.cu_seqlens_k ? p.cu_seqlens_k[batch] : 0;
    q = static_cast<const DType*>(p.q) + offset(p.q_strides, q_row, 0);
    k = static_cast<const DType*>(p.k) + offset(p.k_strides, k_row, kv_head);
    v = static_cast<const DType*>(p.v) + offset(p.v_strides, k_row, kv_head);
    out = static_cast<DType*>(p.out) + offset(p.out_strides, q_row, 0);
    lse = p.lse ? p.lse + offset(p.lse_strides, q_row, 0) : nullptr;
  }

  // Turns to another head of keys and values.
  void select(int head) {
    k += (head - kv_head) * params.k_strides.head;
    v += (head - kv_head) * params.v_strides.head;
    kv_head = head;
  }

 private:
  static float scale_of(const Params& p) {
    const float scale = dm::math::abs(p.sm_scale) * kQueryUnit;
    return scale == 0.f ? 1.17549435e-38f : scale;
  }
  int64_t offset(const dimorph::attention::Strides& strides, int row, int head) const {
    return batch * strides.batch + row * strides.row + head * strides.head;
  }
};

// A row's maximum, in units of log2, and sum before its first key.
template <typename T, typename QIdx>
inline dm::RowState<T> initial_state(Sequence& seq, QIdx qo_idx, int head) {
  dm::RowState<T> row{-dm::math::infinity, 0.f};
  dm::hooks::row_init(seq.variant, seq.params, row, seq.batch, qo_idx, head);
  return {dm::math::max(T(kLowest), row.max * dm::math::log2e), row.sum};
}

// What the outputs of rows are multiplied with at last, and those rows' log-sum-exp; from their maxima, in units of
// log2, and their sums. T is a vector of rows or one.
template <typename T, typename QIdx>
inline T normalisation(Sequence& seq, T max, T sum, QIdx qo_idx, int head, T& lse) {
  lse = __builtin_nanf("");  // without softmax there is no such sum
  if (!Traits::use_softmax) return 1.f;
  dm::RowState<T> row{dm::math::select(max == kLowest, T(-dm::math::infinity), max * dm::math::ln2), sum};
  T factor = 1.f;
  if (Traits::has_row_finalize) {
    const T before = row.max;
    dm::hooks::row_finalize(seq.variant, seq.params, row, seq.batch, qo_idx, head);
    factor = dm::math::select(before == row.max, T(1.f), dm::math::exp(before - row.max));
  }
  lse = row.max + dm::math::log(row.sum);
  return dm::math::select(row.sum == 0.f, T(0.f), factor / row.sum);
}

}  // namespace DIMORPH_CASE
