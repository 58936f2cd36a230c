// The sm80 family's forward pass: online softmax (Milakov and Gimelshein 2018, https://arxiv.org/abs/1805.02867) over
// tiles of keys (Dao 2023, https://arxiv.org/abs/2307.08691), with the variant's hooks on every tile.
#pragma once
#include <dimorph/attention/math.h>
#include <dimorph/attention/variants.h>
#include <dimorph/ints.h>

#include "../gpu/block.h"
#include "../gpu/contract.h"
#include "../gpu/epilogue.h"
#include "../gpu/nonfinite.h"
#include "../gpu/ptx.h"
#include "../gpu/softmax.h"
#include "copy.h"
#include "multiply.h"
#include "ptx.h"

namespace DIMORPH_CASE {

// Changes the queries in shared memory as the variant asks and, for a negative scale, their sign: each thread those
// that it copied.
__device__ __forceinline__ void transform_queries(const Params& p, Variant& variant, unsigned char* queries) {
  const bool negate = Traits::use_softmax && !Traits::has_logits_transform && p.sm_scale < 0.f;
  if (!Traits::has_query_transform && !negate) return;
  const float sign = negate ? -1.f : 1.f;
#pragma unroll 1
  for (int i = threadIdx.x; i < kConfig.rows() * HEAD_DIM_QK; i += kConfig.threads()) {
    DType& q = *reinterpret_cast<DType*>(queries + i / HEAD_DIM_QK * kPitchQK + i % HEAD_DIM_QK * 2);
    q = static_cast<DType>(dm::hooks::query_transform(variant, p, static_cast<float>(q)) * sign);
  }
  __syncthreads();
}

// All keys for the block's queries; with `careful`, keys whose values are not finite are set aside.
__device__ __forceinline__ void run_block(const Params& p, const Block& block, Variant& variant, Softmax& rows,
                                          Output& out, unsigned char* shared, bool careful) {
  __shared__ bool aside[kKeys];
  const float unit = logit_unit(p);
  const int warp = __shfl_sync(0xffffffffu, threadIdx.x / 32, 0);
  const int warp_row = block.row0 + warp * kConfig.warp_rows();
  const uint32_t base = shared_address(shared);
  const uint32_t queries =
      base + kConfig.queries_at() + warp * kConfig.warp_rows() * kPitchQK + lane_rows_first(kPitchQK);
  const uint32_t keys = base + kConfig.keys_at() + lane_columns_first(kPitchQK);
  const uint32_t values = base + kConfig.values_at() + lane_rows_first(kPitchVO);
  const Copier<HEAD_DIM_QK> key_copier(keys_of(p, block), p.k_strides.row, block.kv_len, base + kConfig.keys_at());
  const Copier<HEAD_DIM_VO> value_copier(values_of(p, block), p.v_strides.row, block.kv_len,
                                         base + kConfig.values_at());

  KeyTiles tiles(p, block, variant);
  KeyTile tile = tiles.next();
  int slot = 0;
  load_queries(p, block, warp_row, base + kConfig.queries_at() + warp * kConfig.warp_rows() * kPitchQK);
  key_copier.start(tile, slot, p.k_tile_bytes, p.k_step_bytes).load(0, 1);
  value_copier.start(tile, slot, p.v_tile_bytes, p.v_step_bytes).load(0, 1);
  start_rows(p, block, variant, rows, warp_row);
  clear(out);
  copy_wait();
  __syncthreads();
  transform_queries(p, variant, shared + kConfig.queries_at());
  Queries held;
#pragma unroll
  for (int i = 0; i < kHeld; ++i) load_query_part(held[i], queries, i);

#pragma unroll 1
  while (tile.there()) {
    const int k0 = tile.first_key();
    TileClass found = TileClass::kFull;
    if (warp_row > block.last_row)
      found = TileClass::kSkip;
    else if (!tile.full())
      found = dm::hooks::classify_tile(variant, row_at(p, block, warp_row).q,
                                       row_at(p, block, warp_row + kConfig.warp_rows() - 1).q + 1, k0,
                                       dm::math::min(k0 + kKeys, block.kv_len));
    const KeyTile next{common(tiles.next().code)};  // so addresses of tiles are not each thread's own
    // The tile is there for all after this, and nobody still reads the other slot.
    copy_wait();
    __syncthreads();
    auto key_run = key_copier.start(next, slot ^ 1, p.k_tile_bytes, p.k_step_bytes);
    auto value_run = value_copier.start(next, slot ^ 1, p.v_tile_bytes, p.v_step_bytes);
    if (careful) {
      set_aside(shared + kConfig.values_at() + slot * kKeys * kPitchVO, aside, threadIdx.x / 32, kConfig.warps);
      __syncthreads();
    }
    if (found != TileClass::kSkip) {
      Logits s;
      // Copies go among the products: issued at once, they would block each other's address registers.
      multiply_keys(s, held, queries, keys + slot * kKeys * kPitchQK, [&](int i) {
        key_run.load(i, kQueryParts);
        value_run.load(i, kQueryParts);
      });
      const bool masked = found == TileClass::kPartial || k0 + kKeys > block.kv_len;
      Row at[kRows];
      if constexpr (kForesees) find_rows(p, block, at, warp_row);
      // The maxima go among the products, so they are found where they are not needed, too.
      const bool foreseen = foresees(p, variant, rows, s, at) & !masked & !careful;
      float max[kRows];
      if (!foreseen) {
        transform_logits(p, block, variant, s, warp_row, k0);
        find_maxima(max, s);
      }
      // What most tiles do not need, behind one branch.
      if (!foreseen && (masked || careful || outgrown(rows, max, unit))) {
        if (masked) {
          mask_logits(p, block, variant, s, warp_row, k0);
          find_maxima(max, s);
        }
        if constexpr (Traits::use_softmax) {
          float factors[kRows];
          raise_maxima(rows, factors, max, unit);
          rescale(out, factors);
        }
        if (careful) add_aside(p, block, out, s, aside, k0, [&](float x, int r) { return weight(rows, x, r, unit); });
      }
      if (foreseen) {
        for_each_logit([&](int m, int n, int e, int r, int step) {
          s[m][n][e] = transform_foreseen(p, block, variant, s[m][n][e], at[r], k0, step);
        });
      }
#pragma unroll
      for (int i = 0; i < kKeys / 16; ++i) {
        uint32_t weights[kM][4];
        weigh(rows, s, weights, i, unit);
        multiply_values(out, weights, values + slot * kKeys * kPitchVO + i * 16 * kPitchVO);
      }
    } else {
      key_run.load(0, 1);
      value_run.load(0, 1);
    }
    tile = next;
    slot ^= 1;
  }
  copy_wait();  // the zeros of no tile: what comes next uses the same memory
  finish_sums(rows);
}

// Stores the warp's output by way of shared memory, of which all of the block is free: 16 bytes at a time.
__device__ __forceinline__ void store_by_rows(const Params& p, const Block& block, Variant& variant,
                                              const Softmax& rows, const Output& out, int warp_row,
                                              unsigned char* shared) {
  static_assert(kConfig.rows() * kPitchVO <= kConfig.shared_bytes(), "room for the output");
  unsigned char* mine = shared + (warp_row - block.row0) * kPitchVO;
  float factors[kRows];
  normalise(p, block, variant, rows, factors, warp_row);
  store_output(p, block, variant, factors, out, warp_row, [&](int row, Row, const uint32_t (&pairs)[kValueChunks]) {
    uint32_t* to = reinterpret_cast<uint32_t*>(mine + (row - warp_row) * kPitchVO + thread_column() * 2);
#pragma unroll
    for (int n = 0; n < kValueChunks; ++n) to[n * 4] = pairs[n];
  });
  __syncwarp();
  const unsigned char* from = mine + threadIdx.x % 32 % kValueChunks * 16;
  for_each_row<HEAD_DIM_VO>(p, block, static_cast<DType*>(p.out), p.out_strides, warp_row,
                            [&](int row, DType* to, bool there) {
                              if (there)
                                *reinterpret_cast<uint4*>(to) = *reinterpret_cast<const uint4*>(from + row * kPitchVO);
                            });
}

// The block of that number; false when its sequence has no such rows.
__device__ __forceinline__ bool find_block(const Params& p, int index, Block& block) {
  const int unit = divide(index, p.splits), group = divide(unit, p.group * p.tiles);
  const int rest = unit - group * p.group * p.tiles, size = dm::math::min(p.group, p.units - group * p.group);
  const int rank = divide(rest, size), tile = p.tiles - 1 - rank;
  find_sequence(p, group * p.group + rest - rank * size, index - unit * p.splits, block);
  if (tile >= tiles_of(p, block.qo_len)) return false;
  find_rows_of_tile(p, tile, block);
  return true;
}

}  // namespace DIMORPH_CASE
