// The sm80 family's forward pass for one work tile: online softmax (Milakov and Gimelshein 2018,
// https://arxiv.org/abs/1805.02867) over tiles of keys (Dao 2023, https://arxiv.org/abs/2307.08691). While one tile is
// computed, the next one is loaded to the other stage of shared memory.
#pragma once
#include <dimorph/attention/math.h>
#include <dimorph/attention/variants.h>
#include <dimorph/ints.h>

#include "../gpu/contract.h"
#include "../gpu/epilogue.h"
#include "../gpu/invariant.h"
#include "../gpu/key_tiles.h"
#include "../gpu/nonfinite.h"
#include "../gpu/ptx.h"
#include "../gpu/softmax.h"
#include "../gpu/work_tile.h"
#include "load.h"
#include "load_float8.h"  // IWYU pragma: keep (specialisations of load.h)
#include "mma.h"
#include "mma_float8.h"
#include "ptx.h"

namespace DIMORPH_CASE {

// Applies QueryTransform to the queries in shared memory and, if logit_scale leaves the scale's sign to them, the sign.
__device__ __forceinline__ void transform_queries(const Params& p, Variant& variant, unsigned char* queries) {
  const bool negate = Traits::use_softmax && !Traits::has_logits_transform && p.sm_scale < 0.f;
  if (!Traits::has_query_transform && !negate) return;
  const float sign = negate ? -1.f : 1.f;
#pragma unroll 1
  for (int i = threadIdx.x; i < kConfig.tile_rows() * HEAD_DIM_QK; i += kConfig.threads()) {
    DType& q = *reinterpret_cast<DType*>(queries + i / HEAD_DIM_QK * kPitchQK + i % HEAD_DIM_QK * 2);
    q = static_cast<DType>(dm::hooks::query_transform(variant, p, static_cast<float>(q)) * sign);
  }
  __syncthreads();
}

// Computes the work tile's output and row state over all of its keys. `careful`: keys whose values are not finite are
// treated apart (nonfinite.h).
__device__ __forceinline__ void mainloop(const Params& p, const WorkTile& work, Variant& variant,
                                         OnlineSoftmax& softmax, OutputFragment& out, unsigned char* shared,
                                         bool careful) {
  __shared__ bool removed[kTileKeys];
  const float scale = logit_scale(p);
  const int warp = __shfl_sync(0xffffffffu, threadIdx.x / 32, 0);
  const int warp_row = work.first_row + warp * kConfig.warp_rows();
  const uint32_t base = shared_address(shared);
  const int query_offset = kConfig.query_offset() + warp * kConfig.warp_rows() * kPitchQK;
  const uint32_t queries = base + query_offset + ldmatrix_offset_rows_first(kPitchQK);
  const auto keys = TileAddress<>::keys(base + kConfig.key_offset());
  const auto values = TileAddress<>::values(base + kConfig.value_offset());
  const TileLoader<HEAD_DIM_QK> key_loader(p, work, p.k, key_pointer(p, work), p.k_strides,
                                           base + kConfig.key_offset());
  const TileLoader<HEAD_DIM_VO> value_loader(p, work, p.v, value_pointer(p, work), p.v_strides,
                                             base + kConfig.value_offset());

  [[maybe_unused]] Total total;
  KeyTileIterator tiles(p, work, variant);
  KeyTile tile = tiles.next();
  int stage = 0;
  load_queries(p, work, warp_row, base + kConfig.query_offset() + warp * kConfig.warp_rows() * kPitchQK);
  const TileRows<> first_rows(p, work, tile);
  key_loader.start(tile, first_rows.keys, stage, p.k_tile_bytes, p.k_step_bytes).issue(0, 1);
  value_loader.start(tile, first_rows.values, stage, p.v_tile_bytes, p.v_step_bytes).issue(0, 1);
  clear_padding(shared);
  init_softmax(p, work, variant, softmax, warp_row);
  clear(out);
  cp_async_wait();
  __syncthreads();
  if constexpr (kFloat8)
    prepare_queries(p, work, variant, shared + query_offset);
  else
    transform_queries(p, variant, shared + kConfig.query_offset());
  ResidentQueries resident;
#pragma unroll
  for (int i = 0; i < kResidentParts; ++i) load_query_part(resident[i], queries, i);

#pragma unroll 1
  while (tile.valid()) {
    const int k0 = tile.first_key();
    TileClass found = TileClass::kFull;  // for the rows of this warp
    if (warp_row > work.last_row)
      found = TileClass::kSkip;
    else if (!tile.full())
      found = dm::hooks::classify_tile(variant, row_at(p, work, warp_row).q,
                                       row_at(p, work, warp_row + kConfig.warp_rows() - 1).q + 1, k0,
                                       dm::math::min(k0 + kTileKeys, work.kv_len));
    const KeyTile next{warp_uniform(tiles.next().code)};  // so that a tile's address is not computed by each thread
    const TileRows<> next_rows(p, work, next);
    // After this, all threads see the tile, and no thread still reads the other stage.
    cp_async_wait();
    __syncthreads();
    auto key_load = key_loader.start(next, next_rows.keys, stage ^ 1, p.k_tile_bytes, p.k_step_bytes);
    auto value_load = value_loader.start(next, next_rows.values, stage ^ 1, p.v_tile_bytes, p.v_step_bytes);
    if (careful) {
      remove_nonfinite_keys({}, shared + kConfig.value_offset() + stage * kTileKeys * kValuePitch, removed,
                            threadIdx.x / 32, kConfig.warps);
      __syncthreads();
    }
    if (found != TileClass::kSkip) {
      LogitsFragment s;
      // Loads are issued between the products: all at once, they would wait for each other's address registers.
      mma_qk(s, resident, queries, keys + stage * kTileKeys * kKeyPitch, [&](int i) {
        key_load.issue(i, kQueryParts);
        value_load.issue(i, kQueryParts);
      });
      if constexpr (kFloat8) scale_products(s, shared + query_offset);
      const bool masked = found == TileClass::kPartial || k0 + kTileKeys > work.kv_len;
      Row rows[kThreadRows];
      if constexpr (kCanFuseTransform) find_thread_rows(p, work, rows, warp_row);
      // Asked even if the answer is not used: its comparisons then run among the products.
      const bool fused = may_fuse_transform(p, variant, softmax, s, rows) & !masked & !careful;
      float max[kThreadRows];
      if (!fused) {
        transform_logits(p, work, variant, s, warp_row, k0);
        find_thread_max(max, s);
      }
      // One branch around all that most tiles do not need.
      if (!fused && (masked || careful || exceeds_row_max(softmax, max, scale))) {
        if (masked) {
          mask_logits(p, work, variant, s, warp_row, k0);
          find_thread_max(max, s);
        }
        if constexpr (Traits::use_softmax) {
          float factors[kThreadRows];
          update_row_max(softmax, factors, max, scale);
          rescale(out, factors);
        }
        if (careful)
          add_removed_keys(p, work, out, s, removed, k0,
                           [&](float x, int r) { return weight_in(softmax, x, r, scale); });
      }
      if (fused) {
        for_each_logit([&](int m, int n, int e, int r, int step) {
          s[m][n][e] = fused_transform(p, work, variant, s[m][n][e], rows[r], k0, step);
        });
      }
#pragma unroll
      for (int i = 0; i < kTileKeys / 16; ++i) {
        uint32_t weights[kRowTiles][4];
        compute_weights(softmax, s, weights, i, scale);
        mma_pv(out, weights, values + stage * kTileKeys * kValuePitch + i * 16 * kValuePitch);
      }
    } else {
      key_load.issue(0, 1);
      value_load.issue(0, 1);
    }
    if constexpr (BATCH_INVARIANT)
      if (next.valid() && next.first_key() / kPartKeys != k0 / kPartKeys)
        total.join(p, work, variant, softmax, out, warp_row);
    tile = next;
    stage ^= 1;
  }
  cp_async_wait();  // the zeros of the invalid tile: what follows writes to the same memory
  if constexpr (BATCH_INVARIANT)
    total.finish(p, work, variant, softmax, out, warp_row);
  else
    reduce_row_sums(softmax);
}

// Stores the warp's output by way of shared memory, of which nothing else is in use any more: 16 bytes a lane.
__device__ __forceinline__ void store_through_shared(const Params& p, const WorkTile& work, Variant& variant,
                                                     const OnlineSoftmax& softmax, const OutputFragment& out,
                                                     int warp_row, unsigned char* shared) {
  static_assert(kConfig.tile_rows() * kPitchVO <= kConfig.shared_bytes(), "room for the output");
  unsigned char* mine = shared + (warp_row - work.first_row) * kPitchVO;
  float factors[kThreadRows];
  finish_softmax(p, work, variant, softmax, factors, warp_row);
  store_output(p, work, variant, factors, out, warp_row, [&](int row, Row, const uint32_t (&pairs)[kValueChunks]) {
    uint32_t* to = reinterpret_cast<uint32_t*>(mine + (row - warp_row) * kPitchVO + value_column() * 2);
#pragma unroll
    for (int n = 0; n < kValueChunks; ++n) to[value_step(n) / 2] = pairs[n];
  });
  __syncwarp();
  const unsigned char* from = mine + threadIdx.x % 32 % kValueChunks * 16;
  for_each_row<HEAD_DIM_VO>(p, work, static_cast<DType*>(p.out), p.out_strides, warp_row,
                            [&](int row, DType* to, bool present) {
                              if (present)
                                *reinterpret_cast<uint4*>(to) = *reinterpret_cast<const uint4*>(from + row * kPitchVO);
                            });
}

}  // namespace DIMORPH_CASE
