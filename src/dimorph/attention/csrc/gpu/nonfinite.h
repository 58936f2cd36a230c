// 0 * NaN is NaN, so a value that is NaN or infinite would reach the rows whose weight for it is 0, masked ones above
// all. Blocks whose output is not finite run once more: keys with such values are taken out of their tile and added
// where they count.
#pragma once
#include <dimorph/attention/math.h>
#include <dimorph/ints.h>

#include "block.h"
#include "contract.h"
#include "ptx.h"
#include "softmax.h"

namespace DIMORPH_CASE {

// Whether one of the two elements is NaN or infinite.
__device__ inline bool is_nonfinite(uint32_t pair) {
  constexpr uint32_t kExponent = kBfloat16 ? 0x7f80 : 0x7c00;
  return (pair & kExponent) == kExponent || (pair >> 16 & kExponent) == kExponent;
}

// In a tile of values: sets `aside` for the rows with a value that is not finite, and makes them 0. The rows are shared
// among `warps`; all of them are to meet after it.
__device__ __noinline__ inline void set_aside(unsigned char* values, bool* aside, int warp, int warps) {
  const int lane = threadIdx.x % 32;
#pragma unroll 1
  for (int row = warp; row < kKeys; row += warps) {
    uint4& chunk = *reinterpret_cast<uint4*>(values + value_chunk(row, dm::math::min(lane, kValueChunks - 1)));
    const bool found = is_nonfinite(chunk.x) || is_nonfinite(chunk.y) || is_nonfinite(chunk.z) || is_nonfinite(chunk.w);
    const bool any = __any_sync(0xffffffffu, found);
    __syncwarp();  // some chunks are read by several lanes
    if (any && lane < kValueChunks) chunk = uint4{0, 0, 0, 0};
    if (lane == 0) aside[row] = any;
  }
}

// Adds what was set aside among a tile's keys from k0 on. weigh(x, r) is the weight of the element x of `s` in row r.
template <typename F>
__device__ __forceinline__ void add_aside(const Params& p, const Block& block, Output& out, const Logits& s,
                                          const bool* aside, int k0, F weigh) {
#pragma unroll 1
  for (int c = 0; c < kKeys; ++c) {
    if (!aside[c]) continue;
    const DType* v = values_of(p, block) + (k0 + c) * p.v_strides.row + thread_column();
    float weights[kRows];
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
      float x = 0.f;
#pragma unroll
      for (int n = 0; n < kKeys / 8; ++n) {
        const float own = c % 2 ? s[r / 2][n][r % 2 * 2 + 1] : s[r / 2][n][r % 2 * 2];
        x = n == c / 8 ? own : x;
      }
      x = __shfl_sync(0xffffffffu, x, c % 8 / 2, 4);
      weights[r] = weigh(x, r);
    }
#pragma unroll
    for (int n = 0; n < HEAD_DIM_VO / 8; ++n) {
      DType pair[2];
      *reinterpret_cast<uint32_t*>(pair) = *reinterpret_cast<const uint32_t*>(v + n * 8);
#pragma unroll
      for (int e = 0; e < 2; ++e) {
        const float value = static_cast<float>(pair[e]);
#pragma unroll
        for (int r = 0; r < kRows; ++r)
          if (weights[r] != 0.f) out[r / 2][n][r % 2 * 2 + e] += weights[r] * value;
      }
    }
  }
}

__device__ __forceinline__ bool all_finite(const Output& out) {
  float zero[4] = {};  // sums that do not wait for each other
#pragma unroll
  for (int m = 0; m < kM; ++m)
#pragma unroll
    for (int n = 0; n < HEAD_DIM_VO / 8; ++n)
#pragma unroll
      for (int e = 0; e < 4; ++e) zero[e] += out[m][n][e] * 0.f;
  return zero[0] + zero[1] + zero[2] + zero[3] == 0.f;
}

}  // namespace DIMORPH_CASE
