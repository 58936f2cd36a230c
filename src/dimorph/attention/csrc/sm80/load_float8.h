// Loads of keys and values of 8 bits to shared memory, as they are. The place of each row is found once for all of its
// chunks, by one lane, while the tile before is waited for: half as many bytes leave half the time for it.
#pragma once
#include <dimorph/ints.h>

#include "../gpu/contract.h"
#include "../gpu/key_tiles.h"
#include "../gpu/work_tile.h"
#include "../problem.h"
#include "load.h"
#include "ptx.h"

namespace DIMORPH_CASE {

// From key_pointer and value_pointer, in units of 16 bytes: those of each row in the lane of the same number.
template <>
struct TileRows<true> {
  static constexpr int kParts = (kTileKeys + 31) / 32;
  using Offsets = uint32_t[kParts];
  Offsets keys, values;

  __device__ __forceinline__ TileRows(const Params& p, const WorkTile& work, KeyTile tile) {
    const int32_t* pages = sequence_pages(p, work);
#pragma unroll
    for (int i = 0; i < kParts; ++i) {
      const int key = (tile.valid() ? tile.first_key() : 0) + i * 32 + static_cast<int>(threadIdx.x % 32);
      keys[i] = values[i] = 0;
      if (!tile.valid() || key >= work.kv_len) continue;  // behind the last key there may be no page
      const KeyPlace place = pages ? place_of(p, pages, key) : KeyPlace{0, key};
      keys[i] = in_chunks(place, p.k_strides);
      values[i] = in_chunks(place, p.v_strides);
    }
  }
  __device__ static uint32_t in_chunks(KeyPlace place, const dimorph::attention::Strides& strides) {
    return static_cast<uint32_t>(place.page * (strides.batch / 16) + place.row * (strides.row / 16));
  }
  // That of row `first + more`, where `first` is a constant and `more` less than kMore. All lanes of a warp must call
  // it together.
  template <int kMore>
  __device__ __forceinline__ static uint32_t of(const Offsets& rows, int first, int more) {
    if constexpr (32 % kMore == 0) return __shfl_sync(0xffffffffu, rows[first / 32], first % 32 + more);
    uint32_t offset = 0;
#pragma unroll
    for (int i = 0; i < kParts; ++i) {
      const uint32_t found = __shfl_sync(0xffffffffu, rows[i], (first + more) % 32);
      if ((first + more) / 32 == i) offset = found;
    }
    return offset;
  }
};

template <int kDim>
struct TileLoader<kDim, true, true> {
  using Chunk = ThreadChunk<kDim>;
  using Offsets = TileRows<true>::Offsets;
  static constexpr int kCopies = (kTileKeys + Chunk::kRowsPerCopy - 1) / Chunk::kRowsPerCopy;
  const char* tensor;
  uint32_t first;   // key of the sequence or, in pages, of page 0, from the tensor's on, in units of 16 bytes
  uint32_t stages;  // in shared memory
  int length;       // of the sequence

  __device__ TileLoader(const Params&, const WorkTile& work, const void* all, const DTypeKV* base,
                        const dimorph::attention::Strides&, uint32_t to)
      : tensor(static_cast<const char*>(all)),
        first(static_cast<uint32_t>((reinterpret_cast<const char*>(base) - tensor) / 16)),
        stages(to),
        length(work.kv_len) {}

  struct Load {
    const char* tensor;
    uint32_t first;
    const Offsets& offsets;
    uint32_t to;  // the tile in shared memory
    int left;     // rows of the sequence from the tile's first on; an invalid tile has none

    __device__ __forceinline__ void issue(int i, int parts) {
      // Computed anew, as in load.h: otherwise the compiler keeps it as part of addresses.
      unsigned thread = threadIdx.x;
      asm volatile("" : "+r"(thread));
      const Chunk own(thread);
#pragma unroll
      for (int j = kCopies * i / parts; j < kCopies * (i + 1) / parts; ++j) {
        const int row = j * Chunk::kRowsPerCopy + own.row;
        const uint32_t offset =
            TileRows<true>::of<Chunk::kRowsPerCopy>(offsets, j * Chunk::kRowsPerCopy, own.row) + first + own.chunk;
        if (own.idle() || (kTileKeys % Chunk::kRowsPerCopy != 0 && row >= kTileKeys)) continue;
        cp_async(to + row * Chunk::kPitch + own.chunk * 16, tensor + uint64_t{offset} * 16, row < left);
      }
    }
  };
  __device__ __forceinline__ Load start(KeyTile tile, const Offsets& offsets, int stage, uint32_t, uint32_t) const {
    return {tensor, first, offsets, stages + stage * (kTileKeys * Chunk::kPitch),
            tile.valid() ? length - tile.first_key() : 0};
  }
};

}  // namespace DIMORPH_CASE
