// Loads from global to shared memory, with cp.async.
#pragma once
#include <dimorph/attention/math.h>
#include <dimorph/ints.h>

#include "../gpu/contract.h"
#include "../gpu/head_dims.h"
#include "../gpu/key_tiles.h"
#include "../gpu/work_tile.h"
#include "../problem.h"
#include "ptx.h"

namespace DIMORPH_CASE {

// Which 16-byte chunks a thread copies of rows of kDim elements: one of each kRowsPerCopy rows, always in one column.
template <int kDim>
struct ThreadChunk {
  static constexpr int kChunks = kDim * kConfig.kv_bytes / 16;
  static constexpr int kRowsPerCopy = kConfig.rows_per_copy(kDim);
  static constexpr int kPitch = kConfig.kv_pitch(kDim);
  int row, chunk;
  __device__ explicit ThreadChunk(unsigned thread = threadIdx.x) : row(thread / kChunks), chunk(thread % kChunks) {}
  // Whether the thread copies nothing, because the number of threads is no multiple of the chunks of a row.
  __device__ bool idle() const { return kConfig.threads() % kChunks != 0 && row >= kRowsPerCopy; }
};

// Where the rows of a tile begin in the tensors, if that is looked up before the tile is loaded (load_float8.h).
template <bool kLookedUp = kFloat8>
struct TileRows {
  struct Offsets {
  } keys, values;
  __device__ TileRows(const Params&, const WorkTile&, KeyTile) {}
};

// Loads tiles of keys, or of values. Its members are kept over the whole mainloop, so that a tile takes few
// instructions.
template <int kDim, bool kPaged = PAGED, bool kLookedUp = kFloat8>
struct TileLoader {
  using Chunk = ThreadChunk<kDim>;
  static constexpr int kCopies = (kTileKeys + Chunk::kRowsPerCopy - 1) / Chunk::kRowsPerCopy;  // a thread and tile
  const char* first;      // first tile of the sequence, for all threads
  uint32_t stride_bytes;  // from row to row
  uint32_t to;            // where the thread writes in stage 0
  int rows;               // of the sequence, from the thread's first row on

  __device__ TileLoader(const Params&, const WorkTile& work, const void*, const DTypeKV* base,
                        const dimorph::attention::Strides& strides, uint32_t stages) {
    const Chunk own;
    first = reinterpret_cast<const char*>(base);
    stride_bytes = static_cast<uint32_t>(2 * strides.row);
    to = stages + own.row * Chunk::kPitch + own.chunk * 16;
    rows = work.kv_len - own.row;
  }

  // The load of one tile, issued in parts.
  struct Load {
    const char* rows;     // for all threads
    uint32_t from, to;    // of the thread: offset from `rows`; address in shared memory
    int left;             // rows of the sequence from the thread's first row on
    uint32_t step_bytes;  // between rows that the thread copies

    // Issues part i of `parts`. Rows past the sequence's last become 0.
    __device__ __forceinline__ void issue(int i, int parts) {
      const Chunk own;
#pragma unroll
      for (int j = kCopies * i / parts; j < kCopies * (i + 1) / parts; ++j) {
        const bool mine =
            !own.idle() && (kTileKeys % Chunk::kRowsPerCopy == 0 || j * Chunk::kRowsPerCopy + own.row < kTileKeys);
        if (mine) cp_async(to + j * Chunk::kRowsPerCopy * Chunk::kPitch, rows + from, left > j * Chunk::kRowsPerCopy);
        rows += step_bytes;
      }
    }
  };
  // The load of a tile to a stage; of zeros for an invalid tile.
  __device__ __forceinline__ Load start(KeyTile tile, TileRows<false>::Offsets, int stage, uint32_t tile_bytes,
                                        uint32_t step_bytes) const {
    const uint32_t number = tile.valid() ? tile.number() : 0;
    // The thread's offset is computed anew for each tile: otherwise the compiler keeps it, as 64 bits, for which there
    // are no registers.
    unsigned thread = threadIdx.x;
    asm volatile("" : "+r"(thread));
    const Chunk own(thread);
    const uint32_t from = own.row * stride_bytes + own.chunk * 16;
    return {first + static_cast<uint64_t>(number) * tile_bytes, from, to + stage * (kTileKeys * Chunk::kPitch),
            tile.valid() ? rows - tile.first_key() : 0, step_bytes};
  }
};

// The same for keys that may lie in pages: the place of each row is looked up, so that tiles cross pages of any size.
template <int kDim>
struct TileLoader<kDim, true, false> {
  using Chunk = ThreadChunk<kDim>;
  static constexpr int kCopies = (kTileKeys + Chunk::kRowsPerCopy - 1) / Chunk::kRowsPerCopy;
  const Params& p;
  const dimorph::attention::Strides& strides;
  const int32_t* pages;  // of the sequence
  const DTypeKV* first;  // of the sequence or, in pages, of page 0
  uint32_t stages;       // in shared memory
  int length;            // of the sequence

  __device__ TileLoader(const Params& params, const WorkTile& work, const void*, const DTypeKV* base,
                        const dimorph::attention::Strides& tensor_strides, uint32_t to)
      : p(params),
        strides(tensor_strides),
        pages(sequence_pages(params, work)),
        first(base),
        stages(to),
        length(work.kv_len) {}

  struct Load {
    const TileLoader& loader;
    uint32_t to;         // the tile in shared memory
    int first_key, end;  // of the tile, and of the sequence; an invalid tile has none

    __device__ __forceinline__ void issue(int i, int parts) {
      // Computed anew, as above: otherwise the compiler keeps it as part of a 64-bit address.
      unsigned thread = threadIdx.x;
      asm volatile("" : "+r"(thread));
      const Chunk own(thread);
#pragma unroll
      for (int j = kCopies * i / parts; j < kCopies * (i + 1) / parts; ++j) {
        const int row = j * Chunk::kRowsPerCopy + own.row, key = first_key + row;
        if (own.idle() || row >= kTileKeys) continue;
        const bool present = key < end;
        const DTypeKV* from = loader.first;
        // Behind the last key there may be no page.
        if (present) from += key_offset(loader.p, loader.pages, loader.strides, key) + own.chunk * 8;
        cp_async(to + row * Chunk::kPitch + own.chunk * 16, from, present);
      }
    }
  };
  __device__ __forceinline__ Load start(KeyTile tile, TileRows<false>::Offsets, int stage, uint32_t, uint32_t) const {
    const bool valid = tile.valid();
    return {*this, stages + stage * (kTileKeys * Chunk::kPitch), valid ? tile.first_key() : 0, valid ? length : 0};
  }
};

// Calls f(row, address, present) for each row of the warp of which this lane accesses a 16-byte chunk: the chunk's
// address in the tensor, and whether the work tile has the row. Going from row to row takes a few instructions.
template <int kDim, typename T, typename F>
__device__ __forceinline__ void for_each_row(const Params& p, const WorkTile& work, T* tensor,
                                             const dimorph::attention::Strides& strides, int warp_row, F f) {
  constexpr int kChunks = kDim / 8, kRowsAtOnce = 32 / kChunks;
  const int lane = threadIdx.x % 32, first = lane / kChunks;
  if (32 % kChunks != 0 && first >= kRowsAtOnce) return;
  const Row at = row_at(p, work, warp_row + first);
  T* to = tensor + offset(strides, work.batch, work.first_query + at.q, at.head) + lane % kChunks * 8;
  // kRowsAtOnce rows further are `queries` queries and `heads` heads, and one query more where the heads wrap around.
  const int queries = rows_to_queries(p, kRowsAtOnce), heads = kRowsAtOnce - queries * p.packed_heads;
  const int64_t step = queries * strides.row + heads * strides.head;
  const int64_t wrap = strides.row - p.packed_heads * strides.head;
  int head = at.head - work.first_head;
#pragma unroll 4
  for (int row = first; row < kConfig.warp_rows(); row += kRowsAtOnce) {
    f(row, to, warp_row + row <= work.last_row);
    to += step;
    head += heads;
    if (head >= p.packed_heads) head -= p.packed_heads, to += wrap;
  }
}

// Zeroes what queries and keys have in shared memory behind the head dim, once: loads leave it as it is. (Of values it
// only reaches outputs that nobody reads.)
__device__ __forceinline__ void clear_padding(unsigned char* shared) {
  if constexpr (gpu::padded(HEAD_DIM_QK) != HEAD_DIM_QK) {
    for (int row = threadIdx.x; row < 2 * kTileKeys + kConfig.tile_rows(); row += kConfig.threads()) {
      const int query = row - 2 * kTileKeys;
      const int at = query < 0 ? kConfig.key_offset() + row * kPitchQK : kConfig.query_offset() + query * kPitchQK;
      *reinterpret_cast<uint4*>(shared + at + HEAD_DIM_QK * 2) = uint4{0, 0, 0, 0};
    }
  }
}

// Starts loading the warp's queries to `to`; rows past the tile's last become 0.
__device__ __forceinline__ void load_queries(const Params& p, const WorkTile& work, int warp_row, uint32_t to) {
  const uint32_t place = to + threadIdx.x % 32 % (HEAD_DIM_QK / 8) * 16;
  for_each_row<HEAD_DIM_QK>(
      p, work, static_cast<const DType*>(p.q), p.q_strides, warp_row,
      [&](int row, const DType* from, bool present) { cp_async(place + row * kPitchQK, from, present); });
}

}  // namespace DIMORPH_CASE
