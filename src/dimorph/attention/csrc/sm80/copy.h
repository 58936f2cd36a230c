// From global to shared memory.
#pragma once
#include <dimorph/attention/math.h>
#include <dimorph/ints.h>

#include "../gpu/block.h"
#include "../gpu/contract.h"
#include "../problem.h"
#include "ptx.h"

namespace DIMORPH_CASE {

// How the block's threads share the 16-byte chunks of `rows` rows of kDim elements: each keeps its column.
template <int kDim>
struct Share {
  static constexpr int kChunks = kDim / 8;
  static constexpr int kRowsAtOnce = kConfig.rows_at_once(kDim);
  static constexpr int kPitch = 2 * kDim + 16;
  int row, chunk;
  __device__ explicit Share(unsigned thread = threadIdx.x) : row(thread / kChunks), chunk(thread % kChunks) {}
  // Threads left over where the chunks of a row do not divide their number.
  __device__ bool idle() const { return kConfig.threads() % kChunks != 0 && row >= kRowsAtOnce; }
};

// A thread's share in copying tiles of keys or of values, kept over the whole loop, so that a tile takes few
// instructions.
template <int kDim>
struct Copier {
  using S = Share<kDim>;
  static constexpr int kSteps = (kKeys + S::kRowsAtOnce - 1) / S::kRowsAtOnce;
  const char* first;      // tile of the sequence, for all threads
  uint32_t stride_bytes;  // from row to row
  uint32_t to;            // where the thread writes in the first slot
  int rows;               // of the sequence, from the thread's first

  __device__ Copier(const DType* base, int64_t stride, int length, uint32_t slots) {
    const S share;
    first = reinterpret_cast<const char*>(base);
    stride_bytes = static_cast<uint32_t>(2 * stride);
    to = slots + share.row * S::kPitch + share.chunk * 16;
    rows = length - share.row;
  }

  // One tile's copy, to be made in parts.
  struct Run {
    const char* rows;  // for all threads
    uint32_t from, to;
    int left;
    uint32_t step_bytes;

    // The i-th of `parts`. Rows past the sequence's last become 0.
    __device__ __forceinline__ void load(int i, int parts) {
      const S share;
#pragma unroll
      for (int j = kSteps * i / parts; j < kSteps * (i + 1) / parts; ++j) {
        const bool mine = !share.idle() && (kKeys % S::kRowsAtOnce == 0 || j * S::kRowsAtOnce + share.row < kKeys);
        if (mine) copy_async(to + j * S::kRowsAtOnce * S::kPitch, rows + from, left > j * S::kRowsAtOnce);
        rows += step_bytes;
      }
    }
  };
  // Where there is no tile, one of zeros.
  __device__ __forceinline__ Run start(KeyTile tile, int slot, uint32_t tile_bytes, uint32_t step_bytes) const {
    const uint32_t number = tile.there() ? tile.number() : 0;
    // Found again for each tile: the compiler would keep it as 64 bits, for which there are no registers.
    unsigned thread = threadIdx.x;
    asm volatile("" : "+r"(thread));
    const S share(thread);
    const uint32_t from = share.row * stride_bytes + share.chunk * 16;
    return {first + static_cast<uint64_t>(number) * tile_bytes, from, to + slot * (kKeys * S::kPitch),
            tile.there() ? rows - tile.first_key() : 0, step_bytes};
  }
};

// Calls f(row, address, there) for those of the warp's rows of which the lane has a chunk of 16 bytes, always the same
// one: where it lies in the tensor, and whether the block has the row. From row to row it takes a few instructions.
template <int kDim, typename T, typename F>
__device__ __forceinline__ void for_each_row(const Params& p, const Block& block, T* tensor,
                                             const dimorph::attention::Strides& strides, int warp_row, F f) {
  constexpr int kChunks = kDim / 8, kAtOnce = 32 / kChunks;
  const int lane = threadIdx.x % 32, first = lane / kChunks;
  if (32 % kChunks != 0 && first >= kAtOnce) return;
  const Row at = row_at(p, block, warp_row + first);
  T* to = tensor + offset(strides, block.batch, block.first_query + at.q, at.head) + lane % kChunks * 8;
  const int queries = whole_queries(p, kAtOnce), heads = kAtOnce - queries * p.pack;
  const int64_t step = queries * strides.row + heads * strides.head, wrap = strides.row - p.pack * strides.head;
  int head = at.head - block.first_head;
#pragma unroll 4
  for (int row = first; row < kConfig.warp_rows(); row += kAtOnce) {
    f(row, to, warp_row + row <= block.last_row);
    to += step;
    head += heads;
    if (head >= p.pack) head -= p.pack, to += wrap;
  }
}

// The warp's queries, to its place in shared memory; zeros for rows past the block's last.
__device__ __forceinline__ void load_queries(const Params& p, const Block& block, int warp_row, uint32_t to) {
  const uint32_t place = to + threadIdx.x % 32 % (HEAD_DIM_QK / 8) * 16;
  for_each_row<HEAD_DIM_QK>(
      p, block, static_cast<const DType*>(p.q), p.q_strides, warp_row,
      [&](int row, const DType* from, bool there) { copy_async(place + row * kPitchQK, from, there); });
}

}  // namespace DIMORPH_CASE
