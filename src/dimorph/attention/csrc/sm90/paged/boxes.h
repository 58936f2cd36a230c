// The boxes that TMA loads of a tile of keys, of which each lies in one page.
#pragma once
#include <dimorph/ints.h>

#include "../../gpu/contract.h"
#include "../../gpu/key_tiles.h"
#include "../../gpu/work_tile.h"

namespace DIMORPH_CASE {

// Where a piece of a tile of keys lies, which is loaded as one box of each panel.
struct Piece {
  int row, sequence;  // in the tensor map: of a sequence or a page

  // Finds piece `number` of the tile.
  __device__ static __forceinline__ Piece find(const Params& p, const WorkTile& work, KeyTile tile, int number) {
    const int key = tile.first_key() + number * p.box_keys;
    const int32_t* const pages = sequence_pages(p, work);
    if (!pages) return {first_key_row(p, work) + key, p.cu_seqlens_k ? 0 : work.batch};
    // Behind the last key there may be no page. Behind the last page of the pool, TMA reads zeros.
    if (!tile.valid() || key >= work.kv_len) return {0, p.table.pool_pages};
    const int page = page_of(p, key);
    return {key - page * p.table.page_size, pages[page]};
  }
  __device__ static __forceinline__ int keys(const Params& p) { return p.box_keys; }
};

}  // namespace DIMORPH_CASE
