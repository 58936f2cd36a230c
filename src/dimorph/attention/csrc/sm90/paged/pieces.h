// How the producer loads a tile of keys whose pieces lie in pages (boxes.h): each lane knows one piece and loads it.
#pragma once
#include <dimorph/ints.h>

#include "../../gpu/contract.h"
#include "../../gpu/key_tiles.h"
#include "../../gpu/work_tile.h"
#include "../tma.h"

namespace DIMORPH_CASE {

// Loads the tiles of a work tile. All lanes call its members.
class PieceLoader {
 public:
  // Where a piece of a tile lies: in the tensor of a sequence, or in its page. Values lie where keys do.
  struct Piece {
    int row, page;  // the page, or the sequence; -1: there is none
  };

  __device__ PieceLoader(const Params& p, const WorkTile& work)
      : p_(p), work_(work), pages_(sequence_pages(p, work)), first_row_(first_key_row(p, work)) {}

  // Finds this lane's piece.
  __device__ __forceinline__ Piece find(KeyTile tile) const { return find(tile, threadIdx.x % 32); }

  // Loads keys (values) of the tile, `bytes` in all, to address `to`.
  template <bool keys>
  __device__ __forceinline__ void load(KeyTile tile, Piece piece, uint32_t full, uint32_t to, int bytes) const {
    const TensorMap& map = keys ? p_.k_map : p_.v_map;
    const sm90::Boxes& boxes = keys ? p_.k_boxes : p_.v_boxes;
    const int lane = threadIdx.x % 32;
    __syncwarp();  // the bytes have been announced
    if (boxes.all_panels) {
      const int place = piece.page < 0 ? boxes.none : piece.page * boxes.page_heads + work_.kv_head;
      if (lane * boxes.keys < kTileKeys)
        tma_load(to + lane * boxes.piece_bytes, map, full, kEvictLast, 0, 0, 0, piece.row / 8, place);
      return;
    }
    // Where pages are tiny, a lane has several pieces and finds all but the first anew.
#pragma unroll 1
    for (int n = lane; n * boxes.keys < kTileKeys; n += 32) {
      if (n >= 32) piece = find(tile, n);
#pragma unroll 1
      for (int c = 0; c * kTileKeys * 128 < bytes; ++c)
        tma_load(to + c * kTileKeys * 128 + n * boxes.piece_bytes, map, full, kEvictLast, c * 64, piece.row,
                 work_.kv_head, piece.page < 0 ? boxes.none : piece.page);
    }
  }

 private:
  const Params& p_;
  const WorkTile& work_;
  const int32_t* const pages_;  // of the sequence; null: its keys follow each other
  const int first_row_;

  __device__ __forceinline__ Piece find(KeyTile tile, int number) const {
    const int key = tile.first_key() + number * p_.k_boxes.keys;
    if (!pages_) return {first_row_ + key, p_.cu_seqlens_k ? 0 : work_.batch};
    if (!tile.valid() || key >= work_.kv_len) return {0, -1};  // behind the last key there may be no page
    const int page = page_of(p_, key);
    return {key - page * p_.table.page_size, pages_[page]};
  }
};

}  // namespace DIMORPH_CASE
