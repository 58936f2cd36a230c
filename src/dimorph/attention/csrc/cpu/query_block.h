// Blocks of queries that are computed together: their state, how it begins, and how results are stored.
#pragma once
#include <dimorph/attention/math.h>
#include <dimorph/attention/simd.h>
#include <dimorph/attention/variants.h>
#include <dimorph/dtype.h>

#include "bf16_pairs.h"
#include "key_rows.h"
#include "params.h"
#include "sequence.h"
#include "tiles.h"

namespace DIMORPH_CASE {

// Cells of each query. What QueryTransform returns is no bfloat16, so it is kept as the sum of two: the rounded value
// and the remainder.
constexpr int kQueryParts = kPaired && Traits::has_query_transform ? 2 : 1;
// The queries [q0, q0 + rows) of one head.
struct QueryBlock {
  int head, q0, rows;
  // The keys [first, last) that the block needs of the current tile, and whether they must be masked.
  int first, last;
  bool masked;
  // Whether there are sums since the last fold, and whether there are folded ones.
  bool recent, folded;
  float* q;        // cells [kQueryParts][kDimQK / kCellElements][kBlockQueries]
  float* out;      // [kDimVO][kBlockQueries], not normalised
  float* row_max;  // [kBlockQueries]
  float* row_sum;  // [kBlockQueries]
  // The same for tiles that were folded away.
  float* folded_out;
  float* folded_row_max;
  float* folded_row_sum;
};

// The working memory of a thread.
struct Scratch : TilePlaces<> {
  alignas(64) float q[kMaxBlocks][kQueryParts * kDimQK / kCellElements * kBlockQueries];
  float out[kMaxBlocks][kDimVO * kBlockQueries];
  float row_max[kMaxBlocks][kBlockQueries];
  float row_sum[kMaxBlocks][kBlockQueries];
  float folded_out[kMaxBlocks][kDimVO * kBlockQueries];
  float folded_row_max[kMaxBlocks][kBlockQueries];
  float folded_row_sum[kMaxBlocks][kBlockQueries];
  float weights[TILE_KEYS * kBlockQueries];  // logits [key][query], then weights in cells [key / kCellElements][query]
  float keys[TILE_KEYS * kDimQK / kCellElements];    // cells, [key][kDimQK / kCellElements]
  float values[TILE_KEYS * kDimVO / kCellElements];  // cells, [kDimVO / kRows][key / kCellElements][kRows]
  bool finite[TILE_KEYS];  // whether the values of each key are finite; set only if some are not
};

// A difference of logits, with the factor that kUnscaled leaves for it.
DM_INLINE FloatV scaled(FloatV difference, float logit_scale) {
  return kUnscaled ? difference * logit_scale : difference;
}

// Query indices of vector j of the block. Lanes past the last query repeat it, so that hooks never see an index out of
// range.
DM_INLINE IntV query_indices(const QueryBlock& block, int j) {
  return dm::math::min(IntV::sequence(block.q0 + j * kLanes), IntV(block.q0 + block.rows - 1));
}

// Loads one query, transformed and scaled, to a lane of the block.
inline void load_query(Sequence& seq, const QueryBlock& block, int lane, const DType* q) {
  const Params& p = seq.params;
  float scale = !Traits::use_softmax ? 1.f : !kPaired ? p.sm_scale * kQueryUnit : p.sm_scale < 0.f ? -1.f : 1.f;
  if (!kPaired) scale *= seq.key_scale();
  const auto element = [&](int i) {
    return dm::hooks::query_transform(seq.variant, p, static_cast<float>(q[i])) * scale;
  };
  for (int part = 0; kDimQK > HEAD_DIM_QK && part < kQueryParts; ++part)
    block.q[((part + 1) * kDimQK / kCellElements - 1) * kBlockQueries + lane] = 0.f;
  if constexpr (!kPaired) {
    constexpr int kWhole = HEAD_DIM_QK / 16 * 16;
    for (int d = 0; d < kWhole; d += 16) {
      DM_UNROLL
      for (int i = d; i < d + 16; ++i) block.q[i * kBlockQueries + lane] = element(i);
    }
    for (int i = kWhole; i < HEAD_DIM_QK; ++i) block.q[i * kBlockQueries + lane] = element(i);
  } else if constexpr (kQueryParts == 1) {
    const uint32_t flip = scale < 0.f ? 0x80008000u : 0u;
    for (int i = 0; i < HEAD_DIM_QK / 2; ++i) {
      uint32_t pair;
      __builtin_memcpy(&pair, q + 2 * i, sizeof pair);
      pair ^= flip;
      __builtin_memcpy(block.q + i * kBlockQueries + lane, &pair, sizeof pair);
    }
    if constexpr (HEAD_DIM_QK % 2) {
      uint16_t last;
      __builtin_memcpy(&last, q + HEAD_DIM_QK - 1, sizeof last);
      last = static_cast<uint16_t>(last ^ flip);
      __builtin_memcpy(block.q + HEAD_DIM_QK / 2 * kBlockQueries + lane, &last, sizeof last);
    }
  } else {
    for (int i = 0; i < HEAD_DIM_QK; ++i) {
      float x = element(i);
      for (int part = 0; part < kQueryParts; ++part) {
        const bfloat16 rounded{x};
        float* cells = block.q + (part * kDimQK / kCellElements + i / kCellElements) * kBlockQueries + lane;
        reinterpret_cast<bfloat16*>(cells)[i % kCellElements] = rounded;
        x -= static_cast<float>(rounded);
      }
    }
  }
}

__attribute__((cold)) inline void init_block(Sequence& seq, const QueryBlock& block) {
  const Params& p = seq.params;
  const DType* q = seq.q + block.q0 * p.q_strides.row + block.head * p.q_strides.head;
  for (int r = 0; r < kBlockQueries; ++r) {
    load_query(seq, block, r, q);
    if (r < block.rows - 1) q += p.q_strides.row;  // lanes past the last query repeat it
  }
  for (int i = 0; i < kDimVO * kBlockQueries; i += kLanes) FloatV(0.f).store(block.out + i);
  for (int j = 0; j < kVectors; ++j) {
    const auto row = initial_state<FloatV>(seq, query_indices(block, j), block.head);
    row.max.store(block.row_max + j * kLanes);
    row.sum.store(block.row_sum + j * kLanes);
  }
}

// Adds the block's output and state to the folded ones and clears them; the first time there is nothing to add to, and
// the `last` time the result returns to the block. Rounding errors grow with the root of the number of additions:
// without folding, sums over a hundred thousand keys lose a digit.
__attribute__((cold)) inline void fold(QueryBlock& block, float scale, bool last) {
  for (int j = 0; j < kVectors; ++j) {
    const FloatV max = FloatV::load(block.row_max + j * kLanes);
    const FloatV difference = FloatV::load(block.folded_row_max + j * kLanes) - max;
    const FloatV factor = Traits::use_softmax ? weight_of(scaled(difference, scale)) : FloatV(1.f);
    max.store(block.folded_row_max + j * kLanes);
    const auto move = [&](float* recent, float* folded) {
      FloatV x = FloatV::load(recent);
      if (block.folded) x += FloatV::load(folded) * factor;
      x.store(last ? recent : folded);
      if (!last) FloatV(0.f).store(recent);
    };
    move(block.row_sum + j * kLanes, block.folded_row_sum + j * kLanes);
    for (int i = j * kLanes; i < HEAD_DIM_VO * kBlockQueries; i += kBlockQueries)
      move(block.out + i, block.folded_out + i);
  }
  block.folded = true;
  block.recent = false;
}

// Stores the kCount elements from `i` on of row r.
template <int kCount>
DM_INLINE void store_cell(const QueryBlock& block, int r, DType* out, int i) {
  const float* cell = block.out + i / kCellElements * kBlockQueries + r;
  if constexpr (kPaired)
    __builtin_memcpy(out + i, cell, kCount * sizeof(DType));  // the lower half first
  else
    out[i] = static_cast<DType>(*cell);
}

__attribute__((cold)) inline void finish_block(Sequence& seq, const QueryBlock& block) {
  const Params& p = seq.params;
  for (int j = 0; j < kVectors; ++j) {
    const IntV qo_idx = query_indices(block, j);
    FloatV lse, max = FloatV::load(block.row_max + j * kLanes);
    if (kUnscaled) max = dm::math::select(max == kLowest, max, max * seq.logit_scale);
    const FloatV normalise = normaliser(seq, max, FloatV::load(block.row_sum + j * kLanes), qo_idx, block.head, lse);
    for (int i = 0; seq.lse && i < kLanes && j * kLanes + i < block.rows; ++i)
      seq.lse[(block.q0 + j * kLanes + i) * p.lse_strides.row + block.head * p.lse_strides.head] = dm::lane(lse, i);
    for (int d = 0; d < HEAD_DIM_VO; ++d) {
      float* out = block.out + d * kBlockQueries + j * kLanes;
      const FloatV x = FloatV::load(out) * normalise;
      dm::hooks::output_transform(seq.variant, p, x, seq.batch, qo_idx, block.head, d).store(out);
    }
  }
  DType* out = seq.out + block.q0 * p.out_strides.row + block.head * p.out_strides.head;
  if constexpr (kPaired) {
    for (int i = 0; i < kDimVO / 2 * kBlockQueries; i += kLanes) {
      const float* even = block.out + i / kBlockQueries * 2 * kBlockQueries + i % kBlockQueries;
      make_pairs(FloatV::load(even), FloatV::load(even + kBlockQueries)).store(block.out + i);
    }
  }
  constexpr int kWhole = HEAD_DIM_VO / 16 * 16;
  for (int r = 0; r < block.rows; ++r, out += p.out_strides.row) {
    for (int d = 0; d < kWhole; d += 16) {
      DM_UNROLL
      for (int i = d; i < d + 16; i += kCellElements) store_cell<kCellElements>(block, r, out, i);
    }
    for (int i = kWhole; i + kCellElements <= HEAD_DIM_VO; i += kCellElements)
      store_cell<kCellElements>(block, r, out, i);
    if constexpr (HEAD_DIM_VO % kCellElements) store_cell<1>(block, r, out, HEAD_DIM_VO - 1);
  }
}

}  // namespace DIMORPH_CASE
