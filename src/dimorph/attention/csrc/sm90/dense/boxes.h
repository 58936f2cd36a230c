// The boxes that TMA loads of a tile of keys: one of each panel.
#pragma once
#include <dimorph/ints.h>

#include "../../gpu/contract.h"
#include "../../gpu/key_tiles.h"
#include "../../gpu/work_tile.h"

namespace DIMORPH_CASE {

// Where a piece of a tile of keys lies, which is loaded as one box of each panel: here all of it.
struct Piece {
  int row, sequence;  // in the tensor map

  // Finds piece `number` of the tile.
  __device__ static __forceinline__ Piece find(const Params& p, const WorkTile& work, KeyTile tile, int) {
    return {first_key_row(p, work) + tile.first_key(), p.cu_seqlens_k ? 0 : work.batch};
  }
  __device__ static __forceinline__ int keys(const Params&) { return kTileKeys; }
};

}  // namespace DIMORPH_CASE
