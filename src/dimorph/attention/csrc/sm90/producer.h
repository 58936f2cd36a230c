// The producers: two warps that take the same work tiles. One announces them to the consumers and loads their queries
// and their tiles of keys with TMA, as stages of the pipeline become free; the other loads their tiles of values.
#pragma once
#include <dimorph/attention/variants.h>
#include <dimorph/ints.h>

#include "../gpu/contract.h"
#include "../gpu/key_tiles.h"
#include "../gpu/ptx.h"
#include "../gpu/work_tile.h"
#include "barriers.h"
#include "pieces.h"  // of dense or paged
#include "pipeline.h"
#include "tma.h"
#include "work_tiles.h"  // of dense or paged

namespace DIMORPH_CASE {

class Producer {
 public:
  __device__ Producer(const Params& p, unsigned char* shared, PipelineStorage& pipeline)
      : p_(p),
        shared_(shared_address(shared)),
        pipeline_(pipeline),
        loads_values_(warp_uniform(threadIdx.x / 32) == 1) {
    if (threadIdx.x != 0) return;
    prefetch_tensor_map(p.q_map);
    prefetch_tensor_map(p.k_map);
    prefetch_tensor_map(p.v_map);
  }

  // Produces all work tiles of the thread block. All lanes of the warp must call it; one of them loads, or in pages
  // several.
  __device__ __forceinline__ void run() {
    WorkTiles tiles(p_);
    WorkTile work;
    while (tiles.next(work)) produce(work);
    WorkTile none{};
    none.last_row = -1;
    if (!loads_values_) announce(none, {}, 0);
  }

 private:
  // Announces a work tile, with its first tile of keys.
  __device__ __forceinline__ void announce(const WorkTile& work, KeyTile first, int last_number) {
    const uint32_t stage = work_.stage();
    mbarrier_wait(shared_address(&pipeline_.work_empty[stage]), work_.phase() ^ 1);
    if (threadIdx.x % 32 == 0) {
      const uint32_t place = work_.message();
      pipeline_.work[place] = work;
      pipeline_.first_tile[place] = first;
      if constexpr (!KeyTileIterator::kClassified) pipeline_.last_number[place] = last_number;
      mbarrier_arrive(shared_address(&pipeline_.work_full[stage]));
    }
    work_.advance();
  }

  // Announces and loads one work tile. A single loop, so that the code of each step exists once. Each tile of keys is
  // loaded with the message which tile follows it.
  __device__ __forceinline__ void produce(const WorkTile& work) {
    Variant variant = dm::hooks::make<Variant>(p_, work.batch);
    KeyTileIterator tiles(p_, work, variant);
    const PieceLoader loader(p_, work, loads_values_);
    KeyTile tile;
    PieceLoader::Piece piece{};  // of this tile
#pragma unroll 1
    for (bool first = true, announced = false;; announced = true) {
      const KeyTile next = tiles.next();
      const PieceLoader::Piece next_piece = loader.find(next);
      __syncwarp();  // a lane that fell two phases behind would mistake the parity
      if (!announced && !loads_values_) announce(work, next, tiles.last_number());
      if (tile.valid()) {
        // With one stage, queries wait for the previous work tile's products, and keys are loaded first; with two, a
        // stage for queries is free long before one for keys.
        const bool queries = first && !loads_values_;
        if (kConfig.query_stages > 1 && queries) load_queries(work);
        if (loads_values_)
          load_values(loader, tile, piece);
        else
          load_keys(loader, tile, piece, next);
        if (kConfig.query_stages == 1 && queries) load_queries(work);
        tiles_.advance();
        first = false;
      }
      if (!next.valid()) return;
      tile = next;
      piece = next_piece;
    }
  }

  const Params& p_;
  uint32_t shared_;
  PipelineStorage& pipeline_;
  const bool loads_values_;
  PipelineState<kStages> tiles_, work_;  // tiles of keys, or of values
  PipelineState<kConfig.query_stages> queries_;

  // The sequence's index in the tensor map of queries, in which ragged sequences are a single one.
  __device__ __forceinline__ int batch(const WorkTile& work) const { return p_.cu_seqlens_q ? 0 : work.batch; }

  __device__ __forceinline__ void load_queries(const WorkTile& work) {
    const uint32_t stage = queries_.stage(), full = shared_address(&pipeline_.queries_full[stage]);
    mbarrier_wait(shared_address(&pipeline_.queries_empty[stage]), queries_.phase() ^ 1);
    queries_.advance();
    if (threadIdx.x % 32 != 0) return;
    mbarrier_arrive_expect_tx(full, kConfig.query_bytes());
    const int row = work.first_query + row_at(p_, work, work.first_row).q;
#pragma unroll 1
    for (int c = 0; c < kConfig.panels(HEAD_DIM_QK); ++c)
      tma_load(shared_ + kConfig.query_offset() + stage * kConfig.query_bytes() + c * kConfig.tile_rows() * 128,
               p_.q_map, full, kEvictFirst, c * 64, 0, row, work.first_head / p_.packed_heads, batch(work));
  }

  __device__ __forceinline__ void load_keys(const PieceLoader& loader, KeyTile tile, PieceLoader::Piece piece,
                                            KeyTile next) {
    const uint32_t stage = tiles_.stage(), full = shared_address(&pipeline_.keys_full[stage]);
    mbarrier_wait(shared_address(&pipeline_.keys_empty[stage]), tiles_.phase() ^ 1);
    if (threadIdx.x % 32 == 0) {
      if constexpr (KeyTileIterator::kClassified) pipeline_.next_tile[tiles_.message()] = next;
      mbarrier_arrive_expect_tx(full, kConfig.key_bytes());
    }
    loader.load<true>(tile, piece, full, shared_ + kConfig.key_offset() + stage * kConfig.key_bytes());
  }
  __device__ __forceinline__ void load_values(const PieceLoader& loader, KeyTile tile, PieceLoader::Piece piece) {
    const uint32_t stage = tiles_.stage(), full = shared_address(&pipeline_.values_full[stage]);
    mbarrier_wait(shared_address(&pipeline_.values_empty[stage]), tiles_.phase() ^ 1);
    if (threadIdx.x % 32 == 0) mbarrier_arrive_expect_tx(full, kConfig.value_bytes());
    loader.load<false>(tile, piece, full, shared_ + kConfig.value_offset() + stage * kConfig.value_bytes());
  }
};

}  // namespace DIMORPH_CASE
