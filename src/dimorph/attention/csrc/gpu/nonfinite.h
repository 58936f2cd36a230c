// Values that are NaN or infinite. The product of such a value with weight 0 is NaN and would reach rows for which the
// key does not count, masked ones above all. So a work tile whose output is not finite is computed a second time, in
// which keys with such values are taken out of their tile and added only to rows that give them a weight.
#pragma once
#include <dimorph/attention/math.h>
#include <dimorph/ints.h>

#include "contract.h"
#include "float8.h"
#include "ptx.h"
#include "softmax.h"
#include "work_tile.h"

namespace DIMORPH_CASE {

// Whether one of the elements in 4 bytes of a tile of values is NaN or infinite.
__device__ inline bool is_nonfinite(uint32_t pair) {
  if constexpr (kFloat8) {  // an exponent of ones, or all ones: adding 1 to the lowest of them carries to the sign
    constexpr uint32_t kOnes = kE4m3 ? 0x7f7f7f7f : 0x7c7c7c7c, kLowest = kE4m3 ? 0x01010101 : 0x04040404;
    return ((pair & kOnes) + kLowest) & 0x80808080;
  }
  constexpr uint32_t kExponent = kBfloat16 ? 0x7f80 : 0x7c00;
  return (pair & kExponent) == kExponent || (pair >> 16 & kExponent) == kExponent;
}

constexpr int kStoredChunks = HEAD_DIM_VO * static_cast<int>(sizeof(DTypeKV)) / 16;  // of a row of values in storage

// Two elements of a row of values in global memory, and one of them as a float.
template <typename T>
struct Pair {
  T elements[2];

  __device__ __forceinline__ explicit Pair(const T* from) {
    *reinterpret_cast<uint32_t*>(elements) = *reinterpret_cast<const uint32_t*>(from);
  }
  __device__ __forceinline__ float of(int e) const { return static_cast<float>(elements[e]); }
};
struct Float8Pair {
  uint32_t halves[2];

  __device__ __forceinline__ explicit Float8Pair(const void* from) {
    to_halves<false>(*static_cast<const uint16_t*>(from), halves);
  }
  __device__ __forceinline__ float of(int e) const { return half_to_float(halves[0] >> 16 * e); }
};
template <>
struct Pair<dimorph::attention::float8_e4m3fn> : Float8Pair {
  using Float8Pair::Float8Pair;
};
template <>
struct Pair<dimorph::attention::float8_e5m2> : Float8Pair {
  using Float8Pair::Float8Pair;
};

// Zeroes the rows of a tile of values that have an element that is not finite, and sets `removed` for them. `warps`
// warps divide the rows among themselves and must synchronise before they read the result.
__device__ __noinline__ inline void remove_nonfinite_keys(ValueLayout layout, unsigned char* values, bool* removed,
                                                          int warp, int warps) {
  const int lane = threadIdx.x % 32;
#pragma unroll 1
  for (int row = warp; row < kTileKeys; row += warps) {
    uint4& chunk = *reinterpret_cast<uint4*>(values + value_chunk(layout, row, dm::math::min(lane, kStoredChunks - 1)));
    const bool found = is_nonfinite(chunk.x) || is_nonfinite(chunk.y) || is_nonfinite(chunk.z) || is_nonfinite(chunk.w);
    const bool any = __any_sync(0xffffffffu, found);
    __syncwarp();  // several lanes read the last chunk; all must have read it before one writes
    if (any && lane < kStoredChunks) chunk = uint4{0, 0, 0, 0};
    if (lane == 0) removed[row] = any;
  }
}

// Adds the removed keys of the tile that begins at key k0. weigh(x, r): the weight of element x of `s` in row r.
template <typename F>
__device__ __forceinline__ void add_removed_keys(const Params& p, const WorkTile& work, OutputFragment& out,
                                                 const LogitsFragment& s, const bool* removed, int k0, F weigh) {
#pragma unroll 1
  for (int c = 0; c < kTileKeys; ++c) {
    if (!removed[c]) continue;
    const DTypeKV* v =
        value_pointer(p, work) + key_offset(p, sequence_pages(p, work), p.v_strides, k0 + c) + value_column();
    float weights[kThreadRows];
#pragma unroll
    for (int r = 0; r < kThreadRows; ++r) {
      float x = 0.f;
#pragma unroll
      for (int n = 0; n < kTileKeys / 8; ++n) {
        const float own = c % 2 ? s[r / 2][n][r % 2 * 2 + 1] : s[r / 2][n][r % 2 * 2];
        x = n == c / 8 ? own : x;
      }
      x = __shfl_sync(0xffffffffu, x, c % 8 / 2, 4);
      weights[r] = weigh(x, r);
    }
#pragma unroll
    for (int n = 0; n < HEAD_DIM_VO / 8; ++n) {
      const Pair<DTypeKV> pair(v + value_step(n));
#pragma unroll
      for (int e = 0; e < 2; ++e) {
        const float value = pair.of(e);
#pragma unroll
        for (int r = 0; r < kThreadRows; ++r)
          if (weights[r] != 0.f) out[r / 2][n][r % 2 * 2 + e] += weights[r] * value;
      }
    }
  }
}

// Whether the thread's outputs are all finite. A finite number times 0 is 0, any other number times 0 is NaN.
__device__ __forceinline__ bool all_finite(const OutputFragment& out) {
  float zero[4] = {};  // four sums, so that additions do not wait for each other
#pragma unroll
  for (int m = 0; m < kRowTiles; ++m)
#pragma unroll
    for (int n = 0; n < HEAD_DIM_VO / 8; ++n)
#pragma unroll
      for (int e = 0; e < 4; ++e) zero[e] += out[m][n][e] * 0.f;
  return zero[0] + zero[1] + zero[2] + zero[3] == 0.f;
}

}  // namespace DIMORPH_CASE
