// One sequence of the batch and one of its KV heads, with the variant's view of the sequence; and what rows have in
// common at their begin and their end.
#pragma once
#include <dimorph/attention/math.h>
#include <dimorph/attention/variants.h>

#include "../problem.h"
#include "bf16_pairs.h"
#include "params.h"

namespace DIMORPH_CASE {

using dm::IntV;
using dm::MaskV;
using dm::TileClass;

// Queries in float32 are multiplied by sm_scale, and without LogitsTransform by log2(e) too, so that a weight is exp2
// of a difference. What LogitsTransform returns may be as large as floats are, such as a bias that stands for a mask,
// and times log2(e) infinite: these logits stay in natural units, and their differences to the row max are multiplied.
constexpr bool kNatural = Traits::has_logits_transform;
constexpr float kQueryUnit = kNatural ? 1.f : dm::math::log2e;
// Queries in pairs of bfloat16 are multiplied by the sign of sm_scale only, which rounds nothing. If no hook sees a
// logit or a row max, blocks of queries keep the logits as the product gives them and scale the differences to the row
// max. Then the largest logit has weight 1, however large it is.
constexpr bool kUnscaled = kPaired && Traits::use_softmax && !Traits::has_logits_transform && !Traits::has_row_init;
// Where a row max starts: finite, so that -inf minus it is -inf and not NaN.
constexpr float kLowest = -3.402823466e38f;

// The weight of a logit that lies so far below the row max. T: float, or a vector of rows.
template <typename T>
DM_INLINE T weight_of(T difference) {
  return dm::math::exp2_nonpositive(kNatural ? difference * dm::math::log2e : difference);
}

// The pages of a sequence. One whose keys follow each other is a single page, number 0.
template <bool kPaged = PAGED>
struct SequencePages {
  DM_INLINE SequencePages(const Params&, int) {}
};
template <>
struct SequencePages<true> {
  const int32_t* pages;
  int page_size;

  SequencePages(const Params& p, int batch) : pages(p.table.pages), page_size(p.table.page_size) {
    static constexpr int32_t kOnlyPage = 0;
    if (!pages)
      pages = &kOnlyPage, page_size = dm::math::max(1, p.get_kv_len(batch));
    else
      pages += p.table.starts ? p.table.starts[batch] : batch * p.table.stride;
  }
};

struct Sequence : SequencePages<> {
  const Params& params;
  Variant variant;
  int batch, kv_head, qo_len, kv_len;
  const DType* q;        // the sequence's first row
  const DTypeKV *k, *v;  // its first rows; of keys in pages, those of page 0
  DType* out;
  float* lse;
  float logit_scale;  // factor left for the logits, or for their differences; never 0, so that -inf stays -inf

  Sequence(const Params& p, int batch_idx, int kv_head_idx)
      : SequencePages<>(p, batch_idx),
        params(p),
        variant(dm::hooks::make<Variant>(p, batch_idx)),
        batch(batch_idx),
        kv_head(kv_head_idx),
        qo_len(p.get_qo_len(batch_idx)),
        kv_len(p.get_kv_len(batch_idx)),
        logit_scale(kPaired ? scale_of(p, kv_head_idx) : 1.f) {
    const int q_row = p.cu_seqlens_q ? p.cu_seqlens_q[batch] : 0, k_row = p.cu_seqlens_k ? p.cu_seqlens_k[batch] : 0;
    q = static_cast<const DType*>(p.q) + offset(p.q_strides, q_row, 0);
    k = static_cast<const DTypeKV*>(p.k) + offset_of_keys(p.k_strides, k_row);
    v = static_cast<const DTypeKV*>(p.v) + offset_of_keys(p.v_strides, k_row);
    out = static_cast<DType*>(p.out) + offset(p.out_strides, q_row, 0);
    lse = p.lse ? p.lse + offset(p.lse_strides, q_row, 0) : nullptr;
  }

  // Moves on to another KV head.
  void select(int head) {
    k += (head - kv_head) * params.k_strides.head;
    v += (head - kv_head) * params.v_strides.head;
    kv_head = head;
  }

  // The factors of keys and of values in storage, which the logits and the output are multiplied by.
  float key_scale() const { return kFloat8 ? params.k_scale.of(kv_head) : 1.f; }
  float value_scale() const { return kFloat8 ? params.v_scale.of(kv_head) : 1.f; }

 private:
  static float scale_of(const Params& p, int kv_head) {
    float scale = Traits::use_softmax ? dm::math::abs(p.sm_scale) * kQueryUnit : 1.f;
    if (kFloat8) scale *= p.k_scale.of(kv_head);
    return scale == 0.f ? 1.17549435e-38f : scale;
  }
  int64_t offset(const dimorph::attention::Strides& strides, int row, int head) const {
    return batch * strides.batch + row * strides.row + head * strides.head;
  }
  int64_t offset_of_keys(const dimorph::attention::Strides& strides, int row) const {
    if (PAGED && params.table.pages) return kv_head * strides.head;
    return offset(strides, row, kv_head);
  }
};

// The state of a row before its first key, as RowInit sets it; the row max in the unit of the logits.
// T: float, or a vector of rows.
template <typename T, typename QIdx>
inline dm::RowState<T> initial_state(Sequence& seq, QIdx qo_idx, int head) {
  dm::RowState<T> row{-dm::math::infinity, 0.f};
  dm::hooks::row_init(seq.variant, seq.params, row, seq.batch, qo_idx, head);
  return {dm::math::max(T(kLowest), kNatural ? row.max : row.max * dm::math::log2e), row.sum};
}

// Factor that normalises the output of rows, after RowFinalize, with that of stored values; sets their log-sum-exp.
// `max`: in the unit of the logits. T: float, or a vector of rows.
template <typename T, typename QIdx>
inline T normaliser(Sequence& seq, T max, T sum, QIdx qo_idx, int head, T& lse) {
  lse = __builtin_nanf("");  // without softmax there is no log-sum-exp
  if (!Traits::use_softmax) return seq.value_scale();
  const auto no_key = max == T(kLowest) && sum == T(0.f);
  dm::RowState<T> row{dm::math::select(no_key, T(-dm::math::infinity), kNatural ? max : max * dm::math::ln2), sum};
  T factor = seq.value_scale();
  if (Traits::has_row_finalize) {
    const T before = row.max;
    dm::hooks::row_finalize(seq.variant, seq.params, row, seq.batch, qo_idx, head);
    factor = factor * dm::math::select(before == row.max, T(1.f), dm::math::exp(before - row.max));
  }
  lse = row.max + dm::math::log(row.sum);
  return dm::math::select(row.sum == 0.f, T(0.f), factor / row.sum);
}

}  // namespace DIMORPH_CASE
