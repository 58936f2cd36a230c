// The warp that copies: finds blocks of work, says which they are, and copies their queries and then their tiles of
// keys and values, as slots become free.
#pragma once
#include <dimorph/attention/variants.h>
#include <dimorph/ints.h>

#include "../gpu/block.h"
#include "../gpu/contract.h"
#include "../gpu/ptx.h"
#include "barriers.h"
#include "ring.h"
#include "scheduler.h"
#include "tma.h"

namespace DIMORPH_CASE {

class Copier {
 public:
  __device__ Copier(const Params& p, unsigned char* shared, Signals& signals)
      : p_(p), shared_(shared_address(shared)), signals_(signals) {
    if (threadIdx.x % 32 != 0) return;
    prefetch_map(p.q_map);
    prefetch_map(p.k_map);
    prefetch_map(p.v_map);
  }

  // All lanes of the warp call it; one copies.
  __device__ __forceinline__ void copy_all() {
    Schedule schedule(p_);
    for (int round = 0; round < schedule.rounds(); ++round) {
      Block block;
      if (schedule.find(round, block)) copy(block);
    }
    Block none{};
    none.last_row = -1;
    announce(none, {}, 0);
  }

 private:
  __device__ __forceinline__ void announce(const Block& block, KeyTile first, int last) {
    const uint32_t slot = blocks_.slot();
    barrier_wait(shared_address(&signals_.blocks_empty[slot]), blocks_.round() ^ 1);
    if (threadIdx.x % 32 == 0) {
      const uint32_t place = blocks_.of_two();
      signals_.blocks[place] = block;
      signals_.first[place] = first;
      if constexpr (!KeyTiles::kClassified) signals_.last[place] = last;
      barrier_arrive(shared_address(&signals_.blocks_full[slot]));
    }
    blocks_.next();
  }

  // One loop, in which each step is found once: the block is announced with its first tile, keys with the tile after
  // theirs, and values are copied after the keys of the next tile, because the product with those is wanted before.
  __device__ __forceinline__ void copy(const Block& block) {
    Variant variant = dm::hooks::make<Variant>(p_, block.batch);
    KeyTiles tiles(p_, block, variant);
    const int first_row = first_key(p_, block);
    KeyTile before, tile;
#pragma unroll 1
    for (bool announced = false;; announced = true) {
      const KeyTile next = tiles.next();
      __syncwarp();  // barriers know only two rounds apart, so no lane may fall behind
      if (!announced) announce(block, next, tiles.last_number());
      // Room that is only the queries' own is free long before there is some for keys.
      const bool queries = tile.there() && !before.there();
      if (kConfig.query_stages > 1 && queries) load_queries(block);
      if (tile.there()) load_keys(block, first_row + tile.first_key(), next);
      if (kConfig.query_stages == 1 && queries) load_queries(block);
      if (before.there()) load_values(block, first_row + before.first_key());
      if (tile.there()) tiles_.next();
      if (announced && !tile.there()) return;
      before = tile;
      tile = next;
    }
  }

  const Params& p_;
  uint32_t shared_;
  Signals& signals_;
  Position<kStages> tiles_, blocks_;
  Position<kConfig.query_stages> queries_;

  // Where a sequence begins in the tensors: ragged ones are one long sequence.
  __device__ __forceinline__ int batch(const Block& block) const { return p_.cu_seqlens_q ? 0 : block.batch; }

  __device__ __forceinline__ void load_queries(const Block& block) {
    const uint32_t slot = queries_.slot(), full = shared_address(&signals_.queries_full[slot]);
    barrier_wait(shared_address(&signals_.queries_empty[slot]), queries_.round() ^ 1);
    queries_.next();
    if (threadIdx.x % 32 != 0) return;
    barrier_announce(full, kConfig.query_bytes());
    const int row = block.first_query + row_at(p_, block, block.row0).q;
#pragma unroll 1
    for (int c = 0; c < kConfig.columns(HEAD_DIM_QK); ++c)
      load_box(shared_ + kConfig.queries_at() + slot * kConfig.query_bytes() + c * kConfig.rows() * 128, p_.q_map, full,
               kOnce, c * 64, 0, row, block.first_head / p_.pack, batch(block));
  }

  __device__ __forceinline__ void load_keys(const Block& block, int row, KeyTile next) {
    const uint32_t slot = tiles_.slot(), full = shared_address(&signals_.keys_full[slot]);
    barrier_wait(shared_address(&signals_.keys_empty[slot]), tiles_.round() ^ 1);
    if (threadIdx.x % 32 != 0) return;
    if constexpr (KeyTiles::kClassified) signals_.next[tiles_.of_two()] = next;
    load(block, row, p_.k_map, full, kConfig.keys_at() + slot * kConfig.key_bytes(), kConfig.key_bytes());
  }
  __device__ __forceinline__ void load_values(const Block& block, int row) {
    const Position<kStages> at = tiles_.before();
    const uint32_t slot = at.slot(), full = shared_address(&signals_.values_full[slot]);
    barrier_wait(shared_address(&signals_.values_empty[slot]), at.round() ^ 1);
    if (threadIdx.x % 32 != 0) return;
    load(block, row, p_.v_map, full, kConfig.values_at() + slot * kConfig.value_bytes(), kConfig.value_bytes());
  }
  __device__ __forceinline__ void load(const Block& block, int row, const TensorMap& map, uint32_t full, int to,
                                       int bytes) {
    barrier_announce(full, bytes);
#pragma unroll 1
    for (int c = 0; c * kKeys * 128 < bytes; ++c)
      load_box(shared_ + to + c * kKeys * 128, map, full, kKeep, c * 64, row, block.kv_head, batch(block));
  }
};

}  // namespace DIMORPH_CASE
