// How a producer loads a tile of keys that follow each other: one box of each panel.
#pragma once
#include <dimorph/ints.h>

#include "../gpu/contract.h"
#include "../gpu/key_tiles.h"
#include "../gpu/work_tile.h"
#include "tma.h"

namespace DIMORPH_CASE {

// Loads the tiles of a work tile. All lanes call its members; one loads.
class TileLoader {
 public:
  // What a lane has to know to load its part of a tile: here, where the tile begins in the tensor.
  struct Piece {
    int row;
  };

  __device__ TileLoader(const Params& p, const WorkTile& work, bool)
      : p_(p), work_(work), first_row_(first_key_row(p, work)) {}

  __device__ __forceinline__ Piece find(KeyTile tile) const { return {first_row_ + tile.first_key()}; }

  // Loads keys (values) of the tile to address `to`.
  template <bool keys>
  __device__ __forceinline__ void load(KeyTile, Piece piece, uint32_t full, uint32_t to) const {
    if (threadIdx.x % 32 != 0) return;
#pragma unroll 1
    for (int c = 0; c < kConfig.panels(keys ? HEAD_DIM_QK : HEAD_DIM_VO); ++c)
      tma_load(to + c * kTileKeys * 128, keys ? p_.k_map : p_.v_map, full, kEvictLast, c * 64, piece.row, work_.kv_head,
               p_.cu_seqlens_k ? 0 : work_.batch);
  }

 private:
  const Params& p_;
  const WorkTile& work_;
  const int first_row_;
};

}  // namespace DIMORPH_CASE
