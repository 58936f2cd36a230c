// Blocks of queries of the CPU family: their state, and their way in and out.
#pragma once
#include <dimorph/attention/math.h>
#include <dimorph/attention/simd.h>
#include <dimorph/attention/variants.h>
#include <dimorph/dtype.h>

#include "pairs.h"
#include "params.h"
#include "sequence.h"
#include "tiles.h"

namespace DIMORPH_CASE {

// A transformed query is no bfloat16: its pairs are two, a rounded one and what that lacks.
constexpr int kQueryParts = kPaired && Traits::has_query_transform ? 2 : 1;
// Queries that are computed together: the rows [q0, q0 + rows) of one head.
struct Block {
  int head, q0, rows;
  // What is left of the tile at hand: its keys [first, last), to be masked or not.
  int first, last;
  bool masked;
  float* q;    // cells [kQueryParts][HEAD_DIM_QK / kPack][kBlock]
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
  alignas(64) float q[kMaxBlocks][kQueryParts * HEAD_DIM_QK / kPack * kBlock];
  float out[kMaxBlocks][HEAD_DIM_VO * kBlock];
  float max[kMaxBlocks][kBlock];
  float sum[kMaxBlocks][kBlock];
  float folded_out[kMaxBlocks][HEAD_DIM_VO * kBlock];
  float folded_max[kMaxBlocks][kBlock];
  float folded_sum[kMaxBlocks][kBlock];
  float weights[TILE_KEYS * kBlock];              // first the logits, [key][query]; then cells, [key / kPack][query]
  float keys[TILE_KEYS * HEAD_DIM_QK / kPack];    // cells, [key][HEAD_DIM_QK / kPack]
  float values[TILE_KEYS * HEAD_DIM_VO / kPack];  // cells, [HEAD_DIM_VO / kRows][key / kPack][kRows]
  bool finite[TILE_KEYS];                         // of the rows of values, where not all are
};

// The lanes' query indices. Lanes past the last row repeat it, so that hooks never see an index out of range.
DM_INLINE IntV query_indices(const Block& block, int j) {
  return dm::math::min(IntV::sequence(block.q0 + j * kLanes), IntV(block.q0 + block.rows - 1));
}

// One query to its lane of the block.
inline void load_query(Sequence& seq, const Block& block, int lane, const DType* q) {
  const Params& p = seq.params;
  const float scale = !Traits::use_softmax ? 1.f : !kPaired ? p.sm_scale * kQueryUnit : p.sm_scale < 0.f ? -1.f : 1.f;
  const auto element = [&](int i) {
    return dm::hooks::query_transform(seq.variant, p, static_cast<float>(q[i])) * scale;
  };
  if constexpr (!kPaired) {
    for (int d = 0; d < HEAD_DIM_QK; d += 16) {
      DM_UNROLL
      for (int i = d; i < d + 16; ++i) block.q[i * kBlock + lane] = element(i);
    }
  } else if constexpr (kQueryParts == 1) {
    const uint32_t flip = scale < 0.f ? 0x80008000u : 0u;
    for (int i = 0; i < HEAD_DIM_QK / 2; ++i) {
      uint32_t pair;
      __builtin_memcpy(&pair, q + 2 * i, sizeof pair);
      pair ^= flip;
      __builtin_memcpy(block.q + i * kBlock + lane, &pair, sizeof pair);
    }
  } else {
    for (int i = 0; i < HEAD_DIM_QK; ++i) {
      float x = element(i);
      for (int part = 0; part < kQueryParts; ++part) {
        const bfloat16 rounded{x};
        float* cells = block.q + (part * HEAD_DIM_QK / kPack + i / kPack) * kBlock + lane;
        reinterpret_cast<bfloat16*>(cells)[i % kPack] = rounded;
        x -= static_cast<float>(rounded);
      }
    }
  }
}

__attribute__((cold)) inline void start(Sequence& seq, const Block& block) {
  const Params& p = seq.params;
  const DType* q = seq.q + block.q0 * p.q_strides.row + block.head * p.q_strides.head;
  for (int r = 0; r < kBlock; ++r) {
    load_query(seq, block, r, q);
    if (r < block.rows - 1) q += p.q_strides.row;  // lanes past the last row repeat it too
  }
  for (int i = 0; i < HEAD_DIM_VO * kBlock; i += kLanes) FloatV(0.f).store(block.out + i);
  for (int j = 0; j < kVectors; ++j) {
    const auto row = initial_state<FloatV>(seq, query_indices(block, j), block.head);
    row.max.store(block.max + j * kLanes);
    row.sum.store(block.sum + j * kLanes);
  }
}

// Moves the block's sums to its folded ones, adding what is there unless this is the first time; the last time, the
// block gets them all back. Rounding errors grow with the root of the number of additions: without this, sums over a
// hundred thousand keys lose a digit.
__attribute__((cold)) inline void fold(const Block& block, float scale, bool first, bool last) {
  for (int j = 0; j < kVectors; ++j) {
    const FloatV max = FloatV::load(block.max + j * kLanes);
    const FloatV difference = FloatV::load(block.folded_max + j * kLanes) - max;
    const FloatV factor =
        !Traits::use_softmax ? FloatV(1.f) : dm::math::exp2_nonpositive(kUnscaled ? difference * scale : difference);
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

__attribute__((cold)) inline void finish(Sequence& seq, const Block& block) {
  const Params& p = seq.params;
  for (int j = 0; j < kVectors; ++j) {
    const IntV qo_idx = query_indices(block, j);
    FloatV lse, max = FloatV::load(block.max + j * kLanes);
    if (kUnscaled) max = dm::math::select(max == kLowest, max, max * seq.logit_scale);
    const FloatV normalise = normalisation(seq, max, FloatV::load(block.sum + j * kLanes), qo_idx, block.head, lse);
    for (int i = 0; seq.lse && i < kLanes && j * kLanes + i < block.rows; ++i)
      seq.lse[(block.q0 + j * kLanes + i) * p.lse_strides.row + block.head * p.lse_strides.head] = dm::lane(lse, i);
    for (int d = 0; d < HEAD_DIM_VO; ++d) {
      float* out = block.out + d * kBlock + j * kLanes;
      const FloatV x = FloatV::load(out) * normalise;
      dm::hooks::output_transform(seq.variant, p, x, seq.batch, qo_idx, block.head, d).store(out);
    }
  }
  DType* out = seq.out + block.q0 * p.out_strides.row + block.head * p.out_strides.head;
  if constexpr (kPaired) {
    for (int i = 0; i < HEAD_DIM_VO / 2 * kBlock; i += kLanes) {
      const float* even = block.out + i / kBlock * 2 * kBlock + i % kBlock;
      make_pairs(FloatV::load(even), FloatV::load(even + kBlock)).store(block.out + i);
    }
  }
  for (int r = 0; r < block.rows; ++r, out += p.out_strides.row)
    for (int d = 0; d < HEAD_DIM_VO; d += 16) {
      DM_UNROLL
      for (int i = d; i < d + 16; i += kPack) {
        const float* cell = block.out + i / kPack * kBlock + r;
        if constexpr (kPaired)
          __builtin_memcpy(out + i, cell, sizeof *cell);
        else
          out[i] = static_cast<DType>(*cell);
      }
    }
}

}  // namespace DIMORPH_CASE
