// The CPU family's forward pass: online softmax (Milakov and Gimelshein 2018, https://arxiv.org/abs/1805.02867) over
// tiles of keys (Dao 2023, https://arxiv.org/abs/2307.08691), with the variant's hooks on SIMD vectors.
#pragma once

namespace DIMORPH_CASE {

using dm::FloatV;
using dm::IntV;
using dm::MaskV;
using dm::TileClass;

struct Params : dimorph::attention::BaseParams<DType, DType, DType> {
  ADDITIONAL_PARAMS_DECL
};
using Variant = ATTENTION_VARIANT<Params>;
using Traits = dm::Traits<Variant>;

// The logits of a task's blocks are kept in units of log2, so that weights are exp2 of a difference. Without a logits
// transform the factor log2(e) * sm_scale goes into the queries and costs nothing.
constexpr float kLowest = -3.402823466e38f;  // where a maximum starts: finite, so that -inf minus it is -inf, not NaN

// Queries that are computed together: rows [q0, q0 + rows) of one head.
struct Block {
  int head, q0, rows;
  TileClass tile_class;
  float* q;       // [HEAD_DIM_QK][kBlock]
  float* out;     // [HEAD_DIM_VO][kBlock], not normalised
  float* max;     // [kBlock], log2 units
  float* sum;     // [kBlock]
};

struct Scratch {
  alignas(64) float q[kBlocksPerTask][HEAD_DIM_QK * kBlock];
  float out[kBlocksPerTask][HEAD_DIM_VO * kBlock];
  float max[kBlocksPerTask][kBlock];
  float sum[kBlocksPerTask][kBlock];
  float weights[kKeys * kBlock];
  float keys[kKeys * HEAD_DIM_QK];
  float values[kKeys * HEAD_DIM_VO];
};

// One sequence of the batch and one head of its keys and values.
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
    const int64_t q_row = p.cu_seqlens_q ? p.cu_seqlens_q[batch] : 0, k_row = p.cu_seqlens_k ? p.cu_seqlens_k[batch] : 0;
    q = static_cast<const DType*>(p.q) + batch * p.q_strides.batch + q_row * p.q_strides.row;
    k = static_cast<const DType*>(p.k) + batch * p.k_strides.batch + k_row * p.k_strides.row + kv_head * p.k_strides.head;
    v = static_cast<const DType*>(p.v) + batch * p.v_strides.batch + k_row * p.v_strides.row + kv_head * p.v_strides.head;
    out = static_cast<DType*>(p.out) + batch * p.out_strides.batch + q_row * p.out_strides.row;
    lse = p.lse ? p.lse + batch * p.lse_strides.batch + q_row * p.lse_strides.row : nullptr;
  }
};

// The lanes' query indices. Lanes past the last row repeat it, so that hooks never see an index out of range.
DM_INLINE IntV query_indices(const Block& block, int j) {
  return dm::math::min(IntV::sequence(block.q0 + j * kLanes), IntV(block.q0 + block.rows - 1));
}

inline void load_queries(Sequence& seq, const Block& block) {
  const float scale = !Traits::use_softmax ? 1.f : seq.params.sm_scale * (Traits::has_logits_transform ? 1.f : dm::math::log2e);
  const DType* row = seq.q + block.q0 * seq.params.q_strides.row + block.head * seq.params.q_strides.head;
  for (int r = 0; r < kBlock; ++r) {
    for (int d = 0; d < HEAD_DIM_QK; ++d) {
      const float q = r < block.rows ? static_cast<float>(row[d]) : 0.f;
      block.q[d * kBlock + r] = dm::hooks::query_transform(seq.variant, seq.params, q) * scale;
    }
    if (r + 1 < block.rows) row += seq.params.q_strides.row;
  }
}

inline void start(Sequence& seq, const Block& block) {
  load_queries(seq, block);
  for (int i = 0; i < HEAD_DIM_VO * kBlock; ++i) block.out[i] = 0.f;
  for (int j = 0; j < kVectors; ++j) {
    dm::RowState<FloatV> row{-dm::math::infinity, 0.f};
    dm::hooks::row_init(seq.variant, seq.params, row, seq.batch, query_indices(block, j), block.head);
    dm::math::max(FloatV(kLowest), row.max * dm::math::log2e).store(block.max + j * kLanes);
    row.sum.store(block.sum + j * kLanes);
  }
}

// Copies rows into a contiguous tile: the products then run at constant strides (rows of several heads lie a power of
// two apart and would fall into one cache set), and this is the one place that converts from the storage type.
template <int kDim>
inline void load_tile(float* tile, const DType* rows, int64_t stride, int count) {
  for (int r = 0; r < count; ++r, rows += stride)
    for (int d = 0; d < kDim; ++d) tile[r * kDim + d] = static_cast<float>(rows[d]);
}

// weights[key][query] = q.k
inline void multiply_keys(Scratch& s, const Block& block, int keys) {
  for (int c = 0; c < keys; c += kRows) {
    RawFloat sums[kRows][kVectors] = {};
    multiply<HEAD_DIM_QK, 1>(sums, s.keys + c * HEAD_DIM_QK, block.q, HEAD_DIM_QK);
    DM_UNROLL
    for (int i = 0; i < kRows; ++i) {
      DM_UNROLL
      for (int j = 0; j < kVectors; ++j) reinterpret_cast<RawFloat*>(s.weights + (c + i) * kBlock)[j] = sums[i][j];
    }
  }
}

// out = out * rescale + weights.v
inline void multiply_values(Scratch& s, const Block& block, const RawFloat (&rescale)[kVectors], int keys) {
  for (int d = 0; d < HEAD_DIM_VO; d += kRows) {
    RawFloat sums[kRows][kVectors] = {};
    multiply<1, HEAD_DIM_VO>(sums, s.values + d, s.weights, keys);
    DM_UNROLL
    for (int i = 0; i < kRows; ++i) {
      DM_UNROLL
      for (int j = 0; j < kVectors; ++j) {
        RawFloat& out = reinterpret_cast<RawFloat*>(block.out + (d + i) * kBlock)[j];
        out = out * rescale[j] + sums[i][j];
      }
    }
  }
}

// Applies the variant's logits transform and mask to a tile, and raises the rows' maxima.
template <bool kMasked>
inline void transform_logits(Sequence& seq, Scratch& s, const Block& block, int k0, int keys, FloatV (&max)[kVectors]) {
  IntV qo_idx[kVectors];
  for (int j = 0; j < kVectors; ++j) qo_idx[j] = query_indices(block, j);
  for (int c = 0; c < keys; ++c) {
    float* logits = s.weights + c * kBlock;
    DM_UNROLL
    for (int j = 0; j < kVectors; ++j) {
      FloatV x = FloatV::load(logits + j * kLanes);
      x = dm::hooks::logits_transform(seq.variant, seq.params, x, seq.batch, qo_idx[j], k0 + c, block.head, seq.kv_head);
      if (Traits::has_logits_transform && Traits::use_softmax) x = x * dm::math::log2e;
      if constexpr (kMasked) {
        const MaskV mask = dm::hooks::logits_mask<MaskV>(seq.variant, seq.params, seq.batch, qo_idx[j], k0 + c, block.head, seq.kv_head);
        x = dm::math::select(mask, x, FloatV(Traits::use_softmax ? -dm::math::infinity : 0.f));
      }
      if (kMasked || Traits::has_logits_transform) x.store(logits + j * kLanes);
      if (Traits::use_softmax) max[j] = dm::math::max(max[j], x);
    }
  }
}

// Logits to weights; leaves in `rescale` what the output so far must be multiplied with.
inline void weigh(Sequence& seq, Scratch& s, const Block& block, int k0, int keys, RawFloat (&rescale)[kVectors]) {
  FloatV max[kVectors], sum[kVectors];
  for (int j = 0; j < kVectors; ++j) {
    max[j] = FloatV::load(block.max + j * kLanes);
    sum[j] = 0.f;
    rescale[j] = FloatV(1.f).raw;
  }
  if (Traits::has_logits_mask && block.tile_class == TileClass::kPartial)
    transform_logits<Traits::has_logits_mask>(seq, s, block, k0, keys, max);
  else
    transform_logits<false>(seq, s, block, k0, keys, max);
  if (!Traits::use_softmax) return;
  for (int c = 0; c < keys; ++c) {
    float* logits = s.weights + c * kBlock;
    DM_UNROLL
    for (int j = 0; j < kVectors; ++j) {
      const FloatV weight = dm::math::exp2_nonpositive(FloatV::load(logits + j * kLanes) - max[j]);
      weight.store(logits + j * kLanes);
      sum[j] += weight;
    }
  }
  for (int j = 0; j < kVectors; ++j) {
    const FloatV factor = dm::math::exp2_nonpositive(FloatV::load(block.max + j * kLanes) - max[j]);
    rescale[j] = factor.raw;
    (FloatV::load(block.sum + j * kLanes) * factor + sum[j]).store(block.sum + j * kLanes);
    max[j].store(block.max + j * kLanes);
  }
}

inline void finish(Sequence& seq, const Block& block) {
  const Params& p = seq.params;
  float* lse = seq.lse ? seq.lse + block.q0 * p.lse_strides.row + block.head * p.lse_strides.head : nullptr;
  for (int j = 0; j < kVectors; ++j) {
    const IntV qo_idx = query_indices(block, j);
    FloatV normalise = 1.f;
    if (Traits::use_softmax) {
      const FloatV max = FloatV::load(block.max + j * kLanes);
      dm::RowState<FloatV> row{max * dm::math::ln2, FloatV::load(block.sum + j * kLanes)};
      row.max = dm::math::select(max == kLowest, FloatV(-dm::math::infinity), row.max);
      FloatV factor = 1.f;
      if (Traits::has_row_finalize) {
        const FloatV before = row.max;
        dm::hooks::row_finalize(seq.variant, p, row, seq.batch, qo_idx, block.head);
        factor = dm::math::select(before == row.max, FloatV(1.f), dm::math::exp(before - row.max));
      }
      normalise = dm::math::select(row.sum == 0.f, FloatV(0.f), factor / row.sum);
      if (lse) {
        const FloatV value = row.max + dm::math::log(row.sum);
        for (int i = 0; i < kLanes && j * kLanes + i < block.rows; ++i) lse[(j * kLanes + i) * p.lse_strides.row] = value.raw[i];
      }
    }
    for (int d = 0; d < HEAD_DIM_VO; ++d) {
      float* out = block.out + d * kBlock + j * kLanes;
      const FloatV x = FloatV::load(out) * normalise;
      dm::hooks::output_transform(seq.variant, p, x, seq.batch, qo_idx, block.head, d).store(out);
    }
  }
  DType* out = seq.out + block.q0 * p.out_strides.row + block.head * p.out_strides.head;
  for (int r = 0; r < block.rows; ++r, out += p.out_strides.row)
    for (int d = 0; d < HEAD_DIM_VO; ++d) out[d] = static_cast<DType>(block.out[d * kBlock + r]);
}

// All keys for up to kBlocksPerTask blocks of queries, of the heads that share one head of keys.
inline void run_task(Sequence& seq, Scratch& s, Block* blocks, int count) {
  const Params& p = seq.params;
  for (int b = 0; b < count; ++b) start(seq, blocks[b]);
  for (int k0 = 0; k0 < seq.kv_len; k0 += kKeys) {
    const int keys = dm::math::min(kKeys, seq.kv_len - k0);
    bool needed = false;
    for (int b = 0; b < count; ++b) {
      Block& block = blocks[b];
      block.tile_class = dm::hooks::classify_tile(seq.variant, block.q0, block.q0 + block.rows, k0, k0 + keys);
      needed |= block.tile_class != TileClass::kSkip;
    }
    if (!needed) continue;
    load_tile<HEAD_DIM_QK>(s.keys, seq.k + k0 * p.k_strides.row, p.k_strides.row, keys);
    load_tile<HEAD_DIM_VO>(s.values, seq.v + k0 * p.v_strides.row, p.v_strides.row, keys);
    for (int b = 0; b < count; ++b) {
      if (blocks[b].tile_class == TileClass::kSkip) continue;
      RawFloat rescale[kVectors];
      multiply_keys(s, blocks[b], keys);
      weigh(seq, s, blocks[b], k0, keys, rescale);
      multiply_values(s, blocks[b], rescale, keys);
    }
  }
  for (int b = 0; b < count; ++b) finish(seq, blocks[b]);
}

inline void forward(const Params& params) {
  const int group = params.num_qo_heads / params.num_kv_heads;
  const int blocks_per_kv_head = group * ((params.max_qo_len + kBlock - 1) / kBlock);
  const int tasks_per_kv_head = (blocks_per_kv_head + kBlocksPerTask - 1) / kBlocksPerTask;
  const int kv_heads = params.batch_size * params.num_kv_heads;
  // The last queries first: under a causal mask they see the most keys, and short tasks last fill the gaps.
  dimorph::parallel_for(int64_t{tasks_per_kv_head} * kv_heads, [&](int64_t i) {
    const int first = (tasks_per_kv_head - 1 - static_cast<int>(i / kv_heads)) * kBlocksPerTask;
    const int kv_head = static_cast<int>(i % kv_heads);
    Sequence seq(params, kv_head / params.num_kv_heads, kv_head % params.num_kv_heads);
    Scratch& s = *static_cast<Scratch*>(dimorph::thread_scratch(sizeof(Scratch)));
    Block blocks[kBlocksPerTask];
    int count = 0;
    for (int b = first; b < first + kBlocksPerTask; ++b) {
      const int q0 = b / group * kBlock;
      if (q0 >= seq.qo_len) break;
      const int head = seq.kv_head * group + b % group;
      blocks[count] = Block{head, q0, dm::math::min(kBlock, seq.qo_len - q0), TileClass::kSkip, s.q[count], s.out[count], s.max[count], s.sum[count]};
      ++count;
    }
    if (count) run_task(seq, s, blocks, count);
  });
}

}  // namespace DIMORPH_CASE
