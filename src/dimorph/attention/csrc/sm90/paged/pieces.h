// How a producer loads a tile of keys whose pieces lie in pages (boxes.h): each lane knows one piece and loads it.
#pragma once
#include <dimorph/ints.h>

#include "../../gpu/contract.h"
#include "../../gpu/key_tiles.h"
#include "../../gpu/work_tile.h"
#include "../tile_loader.h"
#include "../tma.h"

namespace DIMORPH_CASE {

// Loads the tiles of keys, or of values, of a work tile. All lanes call its members.
class PageLoader {
 public:
  // A row of a page; -1: there is no such page.
  struct Piece {
    int row, page;
  };

  __device__ PageLoader(const Params& p, const WorkTile& work, bool values)
      : p_(p), work_(work), boxes_(values ? p.v_boxes : p.k_boxes), pages_(sequence_pages(p, work)) {}

  // Finds this lane's piece.
  __device__ __forceinline__ Piece find(KeyTile tile) const { return find(tile, threadIdx.x % 32 * boxes_.keys); }

  // Loads keys (values) of the tile to address `to`.
  template <bool keys>
  __device__ __forceinline__ void load(KeyTile tile, Piece piece, uint32_t full, uint32_t to) const {
    constexpr int kDim = keys ? HEAD_DIM_QK : HEAD_DIM_VO;
    constexpr sm90::TileLayout kLayout = kConfig.layout(kDim);
    const TensorMap& map = keys ? p_.k_map : p_.v_map;
    const int first = threadIdx.x % 32 * boxes_.keys;
    __syncwarp();  // the bytes have been announced
    if (kDim % 64 == 0 && boxes_.all_panels) {
      const int place = piece.page < 0 ? boxes_.none : piece.page * boxes_.page_heads + work_.kv_head;
      if (first < kTileKeys)
        tma_load(to + sm90::row_offset(kLayout, first), map, full, kEvictLast, 0, 0, 0, piece.row / 8, place);
      return;
    }
    // Where pages are tiny, a lane has several pieces and finds all but the first anew.
#pragma unroll 1
    for (int row = first; row < kTileKeys; row += 32 * boxes_.keys) {
      if (row > first) piece = find(tile, row);
#pragma unroll 1
      for (int c = 0; c < kConfig.panels(kDim); ++c)
        tma_load(to + c * kLayout.panel + sm90::row_offset(kLayout, row), map, full, kEvictLast, c * 64, piece.row,
                 work_.kv_head, piece.page < 0 ? boxes_.none : piece.page);
    }
  }

 private:
  const Params& p_;
  const WorkTile& work_;
  const sm90::Boxes& boxes_;
  const int32_t* const pages_;  // of the sequence

  // Finds the piece that begins at a row of the tile.
  __device__ __forceinline__ Piece find(KeyTile tile, int row) const {
    const int key = tile.first_key() + row;
    if (!tile.valid() || key >= work_.kv_len) return {0, -1};  // behind the last key there may be no page
    const KeyPlace place = place_of(p_, pages_, key);
    return {place.row, place.page};
  }
};

template <bool in_pages>
struct LoaderOf {
  using type = TileLoader;
};
template <>
struct LoaderOf<true> {
  using type = PageLoader;
};
using PieceLoader = LoaderOf<IN_PAGES>::type;

}  // namespace DIMORPH_CASE
