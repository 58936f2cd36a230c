// The CPU family's forward pass for blocks of queries: online softmax (Milakov and Gimelshein 2018,
// https://arxiv.org/abs/1805.02867) over tiles of keys (Dao 2023, https://arxiv.org/abs/2307.08691), with the variant's
// hooks on SIMD vectors.
#pragma once
#include <dimorph/attention/math.h>
#include <dimorph/attention/simd.h>
#include <dimorph/attention/variants.h>
#include <dimorph/parallel.h>

#include "bf16_pairs.h"
#include "kinds.h"
#include "params.h"
#include "query_block.h"
#include "sequence.h"
#include "tiles.h"

namespace DIMORPH_CASE {

// logits[key][query] = sum over d of k[key][d] * q[d][query]
inline void multiply_qk(Scratch& s, const QueryBlock& block) {
  constexpr int kCells = kDimQK / kCellElements;
  for (int c = block.first; c < block.last; c += kRows) {
    RawFloat sums[kRows][kVectors] = {};
    for (int part = 0; part < kQueryParts; ++part)
      micro_kernel<kCells, 1>(sums, s.keys + c * kCells, block.q + part * kCells * kBlockQueries, kCells);
    DM_UNROLL
    for (int i = 0; i < kRows; ++i) {
      DM_UNROLL
      for (int j = 0; j < kVectors; ++j) FloatV(sums[i][j]).store(s.weights + (c + i) * kBlockQueries + j * kLanes);
    }
  }
}

// out = out * rescale + sum over keys of v[key] * weights[key]
inline void multiply_pv(Scratch& s, const QueryBlock& block, const FloatV (&rescale)[kVectors]) {
  for (int d = 0; d < HEAD_DIM_VO; d += kRows) {
    RawFloat sums[kRows][kVectors] = {};
    float* out = block.out + d * kBlockQueries;
    DM_UNROLL
    for (int i = 0; i < kRows * kVectors; ++i)
      __builtin_prefetch(out + i * kLanes, 1, 3);  // used only after the product
    const int first = block.first / kCellElements, last = (block.last + kCellElements - 1) / kCellElements;
    micro_kernel<1, kRows>(sums, s.values + (d / kCellElements * TILE_KEYS + first * kRows),
                           s.weights + first * kBlockQueries, last - first);
    DM_UNROLL
    for (int i = 0; i < kRows; ++i) {
      DM_UNROLL
      for (int j = 0; j < kVectors; ++j, out += kLanes)
        (FloatV::load(out) * rescale[j] + FloatV(sums[i][j])).store(out);
    }
  }
}

// Applies LogitsTransform and LogitsMask to a tile, and updates `max`, the row max.
template <bool kMasked>
inline void transform_logits(Sequence& seq, Scratch& s, const QueryBlock& block, int k0, FloatV (&max)[kVectors]) {
  constexpr bool kScaled = kPaired && (Traits::use_softmax || kFloat8) && !kUnscaled;
  IntV qo_idx[kVectors];
  for (int j = 0; j < kVectors; ++j) qo_idx[j] = query_indices(block, j);
  for (int c = block.first; c < block.last; ++c) {
    float* logits = s.weights + c * kBlockQueries;
    DM_UNROLL
    for (int j = 0; j < kVectors; ++j, logits += kLanes) {
      FloatV x = FloatV::load(logits);
      if (kScaled) x = x * seq.logit_scale;
      x = dm::hooks::logits_transform(seq.variant, seq.params, x, seq.batch, qo_idx[j], k0 + c, block.head,
                                      seq.kv_head);
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

// Stores the weights of key c, and of key c + 1 if cells are pairs, as cells for the product with the values.
DM_INLINE void store_weights(Scratch& s, int c, int j, FloatV weight, [[maybe_unused]] FloatV next) {
  float* cells = s.weights + c / kCellElements * kBlockQueries + j * kLanes;
  if constexpr (kPaired)
    make_pairs(weight, next).store(cells);
  else
    weight.store(cells);
}

// Turns the tile's logits into weights, and updates row max and row sum. Sets `rescale`, by which the output so far
// must be multiplied.
inline void online_softmax(Sequence& seq, Scratch& s, const QueryBlock& block, int k0, FloatV (&rescale)[kVectors]) {
  FloatV max[kVectors], sum[kVectors];
  for (int j = 0; j < kVectors; ++j) {
    max[j] = FloatV::load(block.row_max + j * kLanes);
    sum[j] = 0.f;
    rescale[j] = 1.f;
  }
  if (block.masked)
    transform_logits<Traits::has_logits_mask>(seq, s, block, k0, max);
  else
    transform_logits<false>(seq, s, block, k0, max);
  if (!kPaired && !Traits::use_softmax) return;
  const auto weigh = [&](const float* logits, int j) {
    const FloatV x = FloatV::load(logits);
    if (!Traits::use_softmax) return x;
    const FloatV weight = weight_of(scaled(x - max[j], seq.logit_scale));
    sum[j] += weight;
    return weight;
  };
  int c = block.first;
  for (; c + kCellElements <= block.last; c += kCellElements) {
    const float* logits = s.weights + c * kBlockQueries;
    DM_UNROLL
    for (int j = 0; j < kVectors; ++j, logits += kLanes) {
      const FloatV weight = weigh(logits, j);
      store_weights(s, c, j, weight, kPaired ? weigh(logits + kBlockQueries, j) : weight);
    }
  }
  for (int j = 0; c < block.last && j < kVectors; ++j)
    store_weights(s, c, j, weigh(s.weights + c * kBlockQueries + j * kLanes, j), 0.f);
  if (!Traits::use_softmax) return;
  for (int j = 0; j < kVectors; ++j) {
    rescale[j] = weight_of(scaled(FloatV::load(block.row_max + j * kLanes) - max[j], seq.logit_scale));
    (FloatV::load(block.row_sum + j * kLanes) * rescale[j] + sum[j]).store(block.row_sum + j * kLanes);
    max[j].store(block.row_max + j * kLanes);
  }
}

// Sets which keys of the tile the block needs; false if none. At both ends it leaves out keys that the variant excludes
// for the whole block, kRows at a time, as many as the micro-kernel takes.
inline bool classify(Sequence& seq, QueryBlock& block, int k0, int keys) {
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

// Whether all values of the tile are finite. The product of NaN or infinity with weight 0 is NaN and would reach rows
// for which the key does not count, masked ones above all. So keys with such values are taken out of the tile and added
// only to rows that give them a weight.
inline bool all_finite(const Scratch& s, int keys) {
  MaskV found = false;
  for (int d = 0; d < HEAD_DIM_VO; d += kRows)
    for (int i = 0; i < (keys + kCellElements - 1) / kCellElements * kRows; i += kLanes) {
      const FloatV cells = FloatV::load(s.values + d / kCellElements * TILE_KEYS + i);
      found = found || !(dm::math::abs(cells) < dm::math::infinity);
      if (kPaired) found = found || !(dm::math::abs(low_half(cells)) < dm::math::infinity);
    }
  // The last vector may reach past a short tile, to values that an earlier tile left. If those are not finite, this
  // answer only costs time.
  return !any(found);
}

// Zeroes all values of a key if one of them is not finite, and sets `finite` for every key.
__attribute__((cold, noinline)) inline void remove_nonfinite_keys(Scratch& s, int keys) {
  using Element = CellElement<>::type;
  for (int c = 0; c < keys; ++c) {
    s.finite[c] = true;
    const auto value = [&](int d) -> Element& {
      float* cells = s.values + d / kRows * kRows * (TILE_KEYS / kCellElements) + c / kCellElements * kRows + d % kRows;
      return reinterpret_cast<Element*>(cells)[c % kCellElements];
    };
    for (int d = 0; d < HEAD_DIM_VO; ++d)
      s.finite[c] &= dm::math::abs(static_cast<float>(value(d))) < dm::math::infinity;
    for (int d = 0; d < HEAD_DIM_VO && !s.finite[c]; ++d) value(d) = Element(0.f);
  }
}

// Adds the removed keys. `v`: the tile's rows in the tensor.
__attribute__((cold, noinline)) inline void add_removed_keys(Sequence& seq, Scratch& s, const QueryBlock& block,
                                                             const DTypeKV* v) {
  for (int c = block.first; c < block.last; ++c) {
    if (s.finite[c]) continue;
    for (int d = 0; d < HEAD_DIM_VO; ++d)
      for (int j = 0; j < kVectors; ++j) {
        float* out = block.out + d * kBlockQueries + j * kLanes;
        const FloatV cells = FloatV::load(s.weights + c / kCellElements * kBlockQueries + j * kLanes),
                     sum = FloatV::load(out);
        const FloatV weight = !kPaired ? cells : c % 2 ? high_half(cells) : low_half(cells);
        const FloatV value = as_float(row_at(v, s.value_places(seq.params), c)[d]);
        dm::math::select(weight == 0.f, sum, sum + weight * value).store(out);
      }
  }
}

// Computes `count` blocks of queries, whose heads share one KV head, over all keys.
inline void run_task(Sequence& seq, Scratch& s, QueryBlock* blocks, int count) {
  const Places k_places = s.key_places(seq.params), v_places = s.value_places(seq.params);
  const int share = TILE_KEYS / count + 1;
  for (int b = 0; b < count; ++b) init_block(seq, blocks[b]);
  for (int k0 = 0; k0 < seq.kv_len; k0 += TILE_KEYS) {
    for (int b = 0; b < count && k0 / TILE_KEYS % kFoldTiles == 0; ++b)
      if (blocks[b].recent) fold(blocks[b], seq.logit_scale, false);
    const int keys = dm::math::min(TILE_KEYS, seq.kv_len - k0);
    bool needed = false;
    for (int b = 0; b < count; ++b) needed |= classify(seq, blocks[b], k0, keys);
    if (!needed) continue;
    s.locate(seq, k0);
    const DTypeKV *k = rows_from(seq.k, k_places, k0), *v = rows_from(seq.v, v_places, k0);
    load_keys(s.keys, k, k_places, keys);
    load_values(s.values, v, v_places, keys);
    const bool finite = all_finite(s, keys);
    if (!finite) remove_nonfinite_keys(s, keys);
    for (int b = 0; b < count; ++b) {
      QueryBlock& block = blocks[b];
      // Each block prefetches a share of the next tile, so that the copy finds it in the L2 cache.
      const int ahead = TILE_KEYS + b * share;
      int rows = dm::math::min(share, seq.kv_len - k0 - ahead);
      if (PAGED) rows = dm::math::min(rows, 2 * TILE_KEYS - ahead);  // no other places are known
      prefetch<HEAD_DIM_QK>(rows_from(k, k_places, ahead), places_from(k_places, ahead), rows);
      prefetch<HEAD_DIM_VO>(rows_from(v, v_places, ahead), places_from(v_places, ahead), rows);
      if (block.last <= block.first) continue;
      block.recent = true;
      FloatV rescale[kVectors];
      multiply_qk(s, block);
      online_softmax(seq, s, block, k0, rescale);
      multiply_pv(s, block, rescale);
      if (!finite) add_removed_keys(seq, s, block, v);
    }
  }
  for (int b = 0; b < count; ++b) {
    if (blocks[b].folded) fold(blocks[b], seq.logit_scale, true);
    finish_block(seq, blocks[b]);
  }
}

inline void forward(const Params& params) {
  const int group = params.num_qo_heads / params.num_kv_heads;
  const int kv_heads = params.batch_size * params.num_kv_heads;
  const int64_t blocks = int64_t{group} * ((params.max_qo_len + kBlockQueries - 1) / kBlockQueries);  // of one KV head
  // With four tasks a thread, the threads finish at about the same time. Larger tasks than that copy less.
  const int64_t even = blocks * kv_heads / (4 * dimorph::num_threads());
  const int size = static_cast<int>(even < 1 ? 1 : even < kMaxBlocks ? even : kMaxBlocks);
  const int64_t tasks = (blocks + size - 1) / size;
  // The last queries come first: under a causal mask they have the most keys, and short tasks at the end fill gaps.
  dimorph::parallel_for(tasks * kv_heads, [&](int64_t i) {
    const int64_t first = (tasks - 1 - i / kv_heads) * size;
    const int kv_head = static_cast<int>(i % kv_heads);
    Sequence seq(params, kv_head / params.num_kv_heads, kv_head % params.num_kv_heads);
    if (!dimorph::attention::computes(params, seq.qo_len)) return;
    auto* scratch = static_cast<Scratch*>(dimorph::thread_scratch(sizeof(Scratch)));
    if (!scratch) return;
    Scratch& s = *scratch;
    QueryBlock list[kMaxBlocks];
    int count = 0;
    for (int64_t b = first; b < first + size && b / group * kBlockQueries < seq.qo_len; ++b, ++count) {
      const int q0 = static_cast<int>(b / group) * kBlockQueries;
      list[count] = QueryBlock{seq.kv_head * group + static_cast<int>(b % group),
                               q0,
                               dm::math::min(kBlockQueries, seq.qo_len - q0),
                               0,
                               0,
                               false,
                               false,
                               false,
                               s.q[count],
                               s.out[count],
                               s.row_max[count],
                               s.row_sum[count],
                               s.folded_out[count],
                               s.folded_row_max[count],
                               s.folded_row_sum[count]};
    }
    if (count) run_task(seq, s, list, count);
  });
}

}  // namespace DIMORPH_CASE
