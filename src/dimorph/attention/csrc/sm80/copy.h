// From global to shared memory.
#pragma once

namespace DIMORPH_CASE {

constexpr int kPitchQK = kConfig.pitch_qk(), kPitchVO = kConfig.pitch_vo();

// Where 8 elements of a row of a tile of values lie.
__device__ __forceinline__ int value_chunk(int row, int chunk) { return row * kPitchVO + chunk * 16; }

// How the block's threads share the 16-byte chunks of `rows` rows of kDim elements: each keeps its column.
template <int kDim>
struct Share {
  static constexpr int kChunks = kDim / 8;
  static constexpr int kRowsAtOnce = kConfig.rows_at_once(kDim);
  static constexpr int kPitch = 2 * kDim + 16;
  int row = threadIdx.x / kChunks, chunk = threadIdx.x % kChunks;
  // Threads left over where the chunks of a row do not divide their number.
  __device__ bool idle() const { return kConfig.threads() % kChunks != 0 && row >= kRowsAtOnce; }
};

// A thread's share in copying tiles of keys or of values: where it reads in the sequence's first tile and writes in the
// first slot. Kept over the whole loop, so that a tile takes few instructions.
template <int kDim>
struct Copier {
  using S = Share<kDim>;
  static constexpr int kSteps = (kKeys + S::kRowsAtOnce - 1) / S::kRowsAtOnce;
  const char* from;
  uint32_t to;
  int rows;  // of the sequence, from the thread's first

  __device__ Copier(const DType* base, int64_t stride, int length, uint32_t slots) {
    const S share;
    from = reinterpret_cast<const char*>(base + share.row * stride + share.chunk * 8);
    to = slots + share.row * S::kPitch + share.chunk * 16;
    rows = length - share.row;
  }

  // One tile's copy, to be made in parts.
  struct Run {
    const char* row;
    uint32_t place;
    int left;
    uint32_t step_bytes;

    // The i-th of `parts`. Rows past the sequence's last become 0.
    __device__ __forceinline__ void load(int i, int parts) {
      const S share;
#pragma unroll
      for (int j = kSteps * i / parts; j < kSteps * (i + 1) / parts; ++j) {
        const bool mine = !share.idle() && (kKeys % S::kRowsAtOnce == 0 || j * S::kRowsAtOnce + share.row < kKeys);
        if (mine) copy_async(place + j * S::kRowsAtOnce * S::kPitch, row, left > j * S::kRowsAtOnce);
        row += step_bytes;
      }
    }
  };
  // Where there is no tile, one of zeros.
  __device__ __forceinline__ Run start(KeyTile tile, int slot, uint32_t tile_bytes, uint32_t step_bytes) const {
    const uint32_t number = tile.there() ? tile.number() : 0;
    return {from + static_cast<uint64_t>(number) * tile_bytes, to + slot * (kKeys * S::kPitch),
            tile.there() ? rows - tile.first_key() : 0, step_bytes};
  }
};

__device__ __forceinline__ void load_queries(const Params& p, const Block& block, uint32_t to) {
  using S = Share<HEAD_DIM_QK>;
  const S share;
  if (share.idle()) return;
  const DType* q = static_cast<const DType*>(p.q) + share.chunk * 8;
#pragma unroll 1
  for (int row = share.row; row < kConfig.rows(); row += S::kRowsAtOnce) {
    const Row at = row_at(p, block, block.row0 + row);
    copy_async(to + row * kPitchQK + share.chunk * 16,
               q + offset(p.q_strides, block.batch, block.first_query + at.q, at.head), true);
  }
}

}  // namespace DIMORPH_CASE
