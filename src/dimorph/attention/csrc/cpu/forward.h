// The CPU family's forward pass: online softmax (Milakov and Gimelshein 2018, https://arxiv.org/abs/1805.02867) over
// tiles of keys (Dao 2023, https://arxiv.org/abs/2307.08691), with the variant's hooks on SIMD vectors.
#pragma once
#include <dimorph/attention/math.h>
#include <dimorph/attention/simd.h>
#include <dimorph/attention/variants.h>
#include <dimorph/parallel.h>

#include "block.h"
#include "pairs.h"
#include "params.h"
#include "sequence.h"
#include "tiles.h"

namespace DIMORPH_CASE {

// logits[key][query] = k.q
inline void multiply_keys(Scratch& s, const Block& block) {
  constexpr int kCells = HEAD_DIM_QK / kPack;
  for (int c = block.first; c < block.last; c += kRows) {
    RawFloat sums[kRows][kVectors] = {};
    for (int part = 0; part < kQueryParts; ++part)
      multiply<kCells, 1>(sums, s.keys + c * kCells, block.q + part * kCells * kBlock, kCells);
    DM_UNROLL
    for (int i = 0; i < kRows; ++i) {
      DM_UNROLL
      for (int j = 0; j < kVectors; ++j) FloatV(sums[i][j]).store(s.weights + (c + i) * kBlock + j * kLanes);
    }
  }
}

// out = out * rescale + v.weights
inline void multiply_values(Scratch& s, const Block& block, const FloatV (&rescale)[kVectors]) {
  for (int d = 0; d < HEAD_DIM_VO; d += kRows) {
    RawFloat sums[kRows][kVectors] = {};
    float* out = block.out + d * kBlock;
    DM_UNROLL
    for (int i = 0; i < kRows * kVectors; ++i)
      __builtin_prefetch(out + i * kLanes, 1, 3);  // used only after the product
    const int first = block.first / kPack, last = (block.last + kPack - 1) / kPack;
    multiply<1, kRows>(sums, s.values + (d / kPack * TILE_KEYS + first * kRows), s.weights + first * kBlock,
                       last - first);
    DM_UNROLL
    for (int i = 0; i < kRows; ++i) {
      DM_UNROLL
      for (int j = 0; j < kVectors; ++j, out += kLanes)
        (FloatV::load(out) * rescale[j] + FloatV(sums[i][j])).store(out);
    }
  }
}

// Applies the variant's logits transform and mask to a tile, and raises the rows' maxima.
template <bool kMasked>
inline void transform_logits(Sequence& seq, Scratch& s, const Block& block, int k0, FloatV (&max)[kVectors]) {
  constexpr bool kScaled = kPaired && Traits::use_softmax && !kUnscaled;
  IntV qo_idx[kVectors];
  for (int j = 0; j < kVectors; ++j) qo_idx[j] = query_indices(block, j);
  for (int c = block.first; c < block.last; ++c) {
    float* logits = s.weights + c * kBlock;
    DM_UNROLL
    for (int j = 0; j < kVectors; ++j, logits += kLanes) {
      FloatV x = FloatV::load(logits);
      if (kScaled) x = x * seq.logit_scale;
      x = dm::hooks::logits_transform(seq.variant, seq.params, x, seq.batch, qo_idx[j], k0 + c, block.head,
                                      seq.kv_head);
      if (Traits::use_softmax) x = x * kLogitUnit;
      if (kMasked) {
        const MaskV mask = dm::hooks::logits_mask<MaskV>(seq.variant, seq.params, seq.batch, qo_idx[j], k0 + c,
                                                         block.head, seq.kv_head);
        x = dm::math::select(mask, x, FloatV(Traits::use_softmax ? -dm::math::infinity : 0.f));
      }
      if (kMasked || kScaled || Traits::has_logits_transform) x.store(logits);
      if (Traits::use_softmax) max[j] = dm::math::max(max[j], x);
    }
  }
}

// Leaves the weights of key c, and of key c + 1 where cells are pairs, where the products look for them.
DM_INLINE void store_weights(Scratch& s, int c, int j, FloatV weight, [[maybe_unused]] FloatV next) {
  float* cells = s.weights + c / kPack * kBlock + j * kLanes;
  if constexpr (kPaired)
    make_pairs(weight, next).store(cells);
  else
    weight.store(cells);
}

// Logits to weights; leaves in `rescale` what the output so far must be multiplied with.
inline void weigh(Sequence& seq, Scratch& s, const Block& block, int k0, FloatV (&rescale)[kVectors]) {
  FloatV max[kVectors], sum[kVectors];
  for (int j = 0; j < kVectors; ++j) {
    max[j] = FloatV::load(block.max + j * kLanes);
    sum[j] = 0.f;
    rescale[j] = 1.f;
  }
  if (block.masked)
    transform_logits<Traits::has_logits_mask>(seq, s, block, k0, max);
  else
    transform_logits<false>(seq, s, block, k0, max);
  if (!kPaired && !Traits::use_softmax) return;
  const auto exp2_of = [&](FloatV difference) {
    return dm::math::exp2_nonpositive(kUnscaled ? difference * seq.logit_scale : difference);
  };
  const auto weight_of = [&](const float* logits, int j) {
    const FloatV x = FloatV::load(logits);
    if (!Traits::use_softmax) return x;
    const FloatV weight = exp2_of(x - max[j]);
    sum[j] += weight;
    return weight;
  };
  int c = block.first;
  for (; c + kPack <= block.last; c += kPack) {
    const float* logits = s.weights + c * kBlock;
    DM_UNROLL
    for (int j = 0; j < kVectors; ++j, logits += kLanes) {
      const FloatV weight = weight_of(logits, j);
      store_weights(s, c, j, weight, kPaired ? weight_of(logits + kBlock, j) : weight);
    }
  }
  for (int j = 0; c < block.last && j < kVectors; ++j)
    store_weights(s, c, j, weight_of(s.weights + c * kBlock + j * kLanes, j), 0.f);
  if (!Traits::use_softmax) return;
  for (int j = 0; j < kVectors; ++j) {
    rescale[j] = exp2_of(FloatV::load(block.max + j * kLanes) - max[j]);
    (FloatV::load(block.sum + j * kLanes) * rescale[j] + sum[j]).store(block.sum + j * kLanes);
    max[j].store(block.max + j * kLanes);
  }
}

// Sets which of the tile's keys the block needs; false when none. Keys at either end that the variant rules out for the
// whole block are left out, by as many as the products take at a time.
inline bool classify(Sequence& seq, Block& block, int k0, int keys) {
  const auto ask = [&](int first, int last) {
    return dm::hooks::classify_tile(seq.variant, block.q0, block.q0 + block.rows, k0 + first, k0 + last);
  };
  const TileClass all = ask(0, keys);
  block.first = 0;
  block.last = all == TileClass::kSkip ? 0 : keys;
  block.masked = all == TileClass::kPartial;
  if (!block.masked) return block.last > 0;
  while (block.first < keys && ask(block.first, dm::math::min(block.first + kRows, keys)) == TileClass::kSkip)
    block.first += kRows;
  for (int start; block.last > block.first; block.last = start) {
    start = (block.last - 1) / kRows * kRows;
    if (ask(start, block.last) != TileClass::kSkip) break;
  }
  return block.last > block.first;
}

// 0 * NaN is NaN, so a value that is NaN or infinite would reach the rows whose weight for it is 0, masked ones above
// all. Such keys are taken out of the tile and added where they count.
inline bool all_finite(const Scratch& s, int keys) {
  MaskV found = false;
  for (int d = 0; d < HEAD_DIM_VO; d += kRows)
    for (int i = 0; i < (keys + kPack - 1) / kPack * kRows; i += kLanes) {
      const FloatV cells = FloatV::load(s.values + d / kPack * TILE_KEYS + i);
      found = found || !(dm::math::abs(cells) < dm::math::infinity);
      if (kPaired) found = found || !(dm::math::abs(low_half(cells)) < dm::math::infinity);
    }
  return !any(found);  // keys past the last of a short tile may count: that only costs time
}

__attribute__((cold, noinline)) inline void set_nonfinite_aside(Scratch& s, int keys) {
  using Element = CellElement<>::type;
  for (int c = 0; c < keys; ++c) {
    s.finite[c] = true;
    const auto value = [&](int d) -> Element& {
      float* cells = s.values + d / kRows * kRows * (TILE_KEYS / kPack) + c / kPack * kRows + d % kRows;
      return reinterpret_cast<Element*>(cells)[c % kPack];
    };
    for (int d = 0; d < HEAD_DIM_VO; ++d)
      s.finite[c] &= dm::math::abs(static_cast<float>(value(d))) < dm::math::infinity;
    for (int d = 0; d < HEAD_DIM_VO && !s.finite[c]; ++d) value(d) = Element(0.f);
  }
}

// `v` is the tile's first row in place.
__attribute__((cold, noinline)) inline void add_nonfinite(Sequence& seq, Scratch& s, const Block& block,
                                                          const DType* v) {
  for (int c = block.first; c < block.last; ++c) {
    if (s.finite[c]) continue;
    for (int d = 0; d < HEAD_DIM_VO; ++d)
      for (int j = 0; j < kVectors; ++j) {
        float* out = block.out + d * kBlock + j * kLanes;
        const FloatV cells = FloatV::load(s.weights + c / kPack * kBlock + j * kLanes), sum = FloatV::load(out);
        const FloatV weight = !kPaired ? cells : c % 2 ? high_half(cells) : low_half(cells);
        const FloatV value = static_cast<float>(v[c * seq.params.v_strides.row + d]);
        dm::math::select(weight == 0.f, sum, sum + weight * value).store(out);
      }
  }
}

// All keys for some blocks of queries, of the heads that share one head of keys and values.
inline void run_task(Sequence& seq, Scratch& s, Block* blocks, int count) {
  const int64_t k_stride = seq.params.k_strides.row, v_stride = seq.params.v_strides.row;
  const int share = TILE_KEYS / count + 1;
  int tiles = 0;
  for (int b = 0; b < count; ++b) start(seq, blocks[b]);
  for (int k0 = 0; k0 < seq.kv_len; k0 += TILE_KEYS) {
    const int keys = dm::math::min(TILE_KEYS, seq.kv_len - k0);
    bool needed = false;
    for (int b = 0; b < count; ++b) needed |= classify(seq, blocks[b], k0, keys);
    if (!needed) continue;
    const DType *k = seq.k + k0 * k_stride, *v = seq.v + k0 * v_stride;
    load_keys(s.keys, k, k_stride, keys);
    load_values(s.values, v, v_stride, keys);
    const bool finite = all_finite(s, keys);
    if (!finite) set_nonfinite_aside(s, keys);
    for (int b = 0; b < count; ++b) {
      const Block& block = blocks[b];
      // A share of the next tile with each block, so that the copy finds it in the second-level cache.
      const int ahead = TILE_KEYS + b * share, rows = dm::math::min(share, seq.kv_len - k0 - ahead);
      prefetch<HEAD_DIM_QK>(k + ahead * k_stride, k_stride, rows);
      prefetch<HEAD_DIM_VO>(v + ahead * v_stride, v_stride, rows);
      if (block.last <= block.first) continue;
      FloatV rescale[kVectors];
      multiply_keys(s, block);
      weigh(seq, s, block, k0, rescale);
      multiply_values(s, block, rescale);
      if (!finite) add_nonfinite(seq, s, block, v);
    }
    if (++tiles % kFold == 0)
      for (int b = 0; b < count; ++b) fold(blocks[b], seq.logit_scale, tiles == kFold, false);
  }
  for (int b = 0; b < count; ++b) {
    if (tiles >= kFold) fold(blocks[b], seq.logit_scale, false, true);
    finish(seq, blocks[b]);
  }
}

inline void forward(const Params& params) {
  const int group = params.num_qo_heads / params.num_kv_heads;
  const int kv_heads = params.batch_size * params.num_kv_heads;
  const int64_t blocks = int64_t{group} * ((params.max_qo_len + kBlock - 1) / kBlock);  // of one head of keys
  // Four tasks a thread let them finish together; beyond that, larger tasks copy less.
  const int64_t even = blocks * kv_heads / (4 * dimorph::num_threads());
  const int size = static_cast<int>(even < 1 ? 1 : even < kMaxBlocks ? even : kMaxBlocks);
  const int64_t tasks = (blocks + size - 1) / size;
  // The last queries first: under a causal mask they see the most keys, and short tasks last fill the gaps.
  dimorph::parallel_for(tasks * kv_heads, [&](int64_t i) {
    const int64_t first = (tasks - 1 - i / kv_heads) * size;
    const int kv_head = static_cast<int>(i % kv_heads);
    Sequence seq(params, kv_head / params.num_kv_heads, kv_head % params.num_kv_heads);
    Scratch& s = *static_cast<Scratch*>(dimorph::thread_scratch(sizeof(Scratch)));
    Block list[kMaxBlocks];
    int count = 0;
    for (int64_t b = first; b < first + size && b / group * kBlock < seq.qo_len; ++b, ++count) {
      const int q0 = static_cast<int>(b / group) * kBlock;
      list[count] = Block{seq.kv_head * group + static_cast<int>(b % group),
                          q0,
                          dm::math::min(kBlock, seq.qo_len - q0),
                          0,
                          0,
                          false,
                          s.q[count],
                          s.out[count],
                          s.max[count],
                          s.sum[count],
                          s.folded_out[count],
                          s.folded_max[count],
                          s.folded_sum[count]};
    }
    if (count) run_task(seq, s, list, count);
  });
}

}  // namespace DIMORPH_CASE
