// The operands of the CPU family: one sequence of the batch, and blocks of its queries on their way in and out.
#pragma once

namespace DIMORPH_CASE {

using dm::IntV;
using dm::MaskV;
using dm::TileClass;

struct Params : dimorph::attention::BaseParams<DType, DType, DType> {
  ADDITIONAL_PARAMS_DECL
};
using Variant = ATTENTION_VARIANT<Params>;
using Traits = dm::Traits<Variant>;

// Logits are kept in units of log2, so that a weight is exp2 of a difference. The queries carry sm_scale, and without a
// logits transform log2(e) too: no logit is scaled one by one.
constexpr float kQueryUnit = Traits::has_logits_transform ? 1.f : dm::math::log2e;
constexpr float kLogitUnit = Traits::has_logits_transform ? dm::math::log2e : 1.f;
// Where a maximum starts: finite, so that -inf minus it is -inf and not NaN.
constexpr float kLowest = -3.402823466e38f;

// Queries that are computed together: the rows [q0, q0 + rows) of one head.
struct Block {
  int head, q0, rows;
  // What is left of the tile at hand: its keys [first, last), to be masked or not.
  int first, last;
  bool masked;
  float* q;    // [HEAD_DIM_QK][kBlock]
  float* out;  // [HEAD_DIM_VO][kBlock], not normalised
  float* max;  // [kBlock]
  float* sum;  // [kBlock]
  // The same for the tiles folded away so far.
  float* folded_out;
  float* folded_max;
  float* folded_sum;
};

// What a thread needs for its task.
struct Scratch {
  alignas(64) float q[kMaxBlocks][HEAD_DIM_QK * kBlock];
  float out[kMaxBlocks][HEAD_DIM_VO * kBlock];
  float max[kMaxBlocks][kBlock];
  float sum[kMaxBlocks][kBlock];
  float folded_out[kMaxBlocks][HEAD_DIM_VO * kBlock];
  float folded_max[kMaxBlocks][kBlock];
  float folded_sum[kMaxBlocks][kBlock];
  float weights[kKeys * kBlock];      // first the logits; [key][query]
  float keys[kKeys * HEAD_DIM_QK];    // [key][HEAD_DIM_QK]
  float values[kKeys * HEAD_DIM_VO];  // [HEAD_DIM_VO / kRows][key][kRows]
  bool finite[kKeys];                 // of the rows of values, where not all are
};

// One sequence and one head of its keys and values.
struct Sequence {
  const Params& params;
  Variant variant;
  int batch, kv_head, qo_len, kv_len;
  const DType *q, *k, *v;
  DType* out;
  float* lse;

  Sequence(const Params& p, int batch_idx, int kv_head_idx)
      : params(p),
        variant(dm::hooks::make<Variant>(p, batch_idx)),
        batch(batch_idx),
        kv_head(kv_head_idx),
        qo_len(p.get_qo_len(batch_idx)),
        kv_len(p.get_kv_len(batch_idx)) {
    const int q_row = p.cu_seqlens_q ? p.cu_seqlens_q[batch] : 0, k_row = p.cu_seqlens_k ? p.cu_seqlens_k[batch] : 0;
    q = static_cast<const DType*>(p.q) + offset(p.q_strides, q_row, 0);
    k = static_cast<const DType*>(p.k) + offset(p.k_strides, k_row, kv_head);
    v = static_cast<const DType*>(p.v) + offset(p.v_strides, k_row, kv_head);
    out = static_cast<DType*>(p.out) + offset(p.out_strides, q_row, 0);
    lse = p.lse ? p.lse + offset(p.lse_strides, q_row, 0) : nullptr;
  }

 private:
  int64_t offset(const dimorph::attention::Strides& strides, int row, int head) const {
    return batch * strides.batch + row * strides.row + head * strides.head;
  }
};

// The lanes' query indices. Lanes past the last row repeat it, so that hooks never see an index out of range.
DM_INLINE IntV query_indices(const Block& block, int j) {
  return dm::math::min(IntV::sequence(block.q0 + j * kLanes), IntV(block.q0 + block.rows - 1));
}

__attribute__((cold)) inline void start(Sequence& seq, const Block& block) {
  const Params& p = seq.params;
  const float scale = Traits::use_softmax ? p.sm_scale * kQueryUnit : 1.f;
  const DType* q = seq.q + block.q0 * p.q_strides.row + block.head * p.q_strides.head;
  for (int r = 0; r < kBlock; ++r) {
    for (int d = 0; d < HEAD_DIM_QK; d += 16) {
      DM_UNROLL
      for (int i = d; i < d + 16; ++i)
        block.q[i * kBlock + r] = dm::hooks::query_transform(seq.variant, p, static_cast<float>(q[i])) * scale;
    }
    if (r < block.rows - 1) q += p.q_strides.row;  // lanes past the last row repeat it too
  }
  for (int i = 0; i < HEAD_DIM_VO * kBlock; i += kLanes) FloatV(0.f).store(block.out + i);
  for (int j = 0; j < kVectors; ++j) {
    dm::RowState<FloatV> row{-dm::math::infinity, 0.f};
    dm::hooks::row_init(seq.variant, p, row, seq.batch, query_indices(block, j), block.head);
    dm::math::max(FloatV(kLowest), row.max * dm::math::log2e).store(block.max + j * kLanes);
    row.sum.store(block.sum + j * kLanes);
  }
}

// Moves the block's sums to its folded ones, adding what is there unless this is the first time; the last time, the
// block gets them all back. Rounding errors grow with the root of the number of additions: without this, sums over a
// hundred thousand keys lose a digit.
__attribute__((cold)) inline void fold(const Block& block, bool first, bool last) {
  for (int j = 0; j < kVectors; ++j) {
    const FloatV max = FloatV::load(block.max + j * kLanes);
    const FloatV factor = !Traits::use_softmax
                              ? FloatV(1.f)
                              : dm::math::exp2_nonpositive(FloatV::load(block.folded_max + j * kLanes) - max);
    max.store(block.folded_max + j * kLanes);
    const auto move = [&](float* recent, float* folded) {
      FloatV x = FloatV::load(recent);
      if (!first) x += FloatV::load(folded) * factor;
      x.store(last ? recent : folded);
      if (!last) FloatV(0.f).store(recent);
    };
    move(block.sum + j * kLanes, block.folded_sum + j * kLanes);
    for (int i = j * kLanes; i < HEAD_DIM_VO * kBlock; i += kBlock) move(block.out + i, block.folded_out + i);
  }
}

// What the outputs of lanes j are multiplied with at last, and those rows' log-sum-exp.
__attribute__((cold)) inline FloatV normalisation(Sequence& seq, const Block& block, int j, FloatV& lse) {
  const FloatV max = FloatV::load(block.max + j * kLanes);
  dm::RowState<FloatV> row{dm::math::select(max == kLowest, FloatV(-dm::math::infinity), max * dm::math::ln2),
                           FloatV::load(block.sum + j * kLanes)};
  FloatV factor = 1.f;
  if (Traits::has_row_finalize) {
    const FloatV before = row.max;
    dm::hooks::row_finalize(seq.variant, seq.params, row, seq.batch, query_indices(block, j), block.head);
    factor = dm::math::select(before == row.max, FloatV(1.f), dm::math::exp(before - row.max));
  }
  lse = row.max + dm::math::log(row.sum);
  return dm::math::select(row.sum == 0.f, FloatV(0.f), factor / row.sum);
}

__attribute__((cold)) inline void finish(Sequence& seq, const Block& block) {
  const Params& p = seq.params;
  for (int j = 0; j < kVectors; ++j) {
    const IntV qo_idx = query_indices(block, j);
    FloatV normalise = 1.f, lse = __builtin_nanf("");  // without softmax there is no such sum
    if (Traits::use_softmax) normalise = normalisation(seq, block, j, lse);
    for (int i = 0; seq.lse && i < kLanes && j * kLanes + i < block.rows; ++i)
      seq.lse[(block.q0 + j * kLanes + i) * p.lse_strides.row + block.head * p.lse_strides.head] = dm::lane(lse, i);
    for (int d = 0; d < HEAD_DIM_VO; ++d) {
      float* out = block.out + d * kBlock + j * kLanes;
      const FloatV x = FloatV::load(out) * normalise;
      dm::hooks::output_transform(seq.variant, p, x, seq.batch, qo_idx, block.head, d).store(out);
    }
  }
  DType* out = seq.out + block.q0 * p.out_strides.row + block.head * p.out_strides.head;
  for (int r = 0; r < block.rows; ++r, out += p.out_strides.row)
    for (int d = 0; d < HEAD_DIM_VO; d += 16) {
      DM_UNROLL
      for (int i = d; i < d + 16; ++i) out[i] = static_cast<DType>(block.out[i * kBlock + r]);
    }
}

}  // namespace DIMORPH_CASE
