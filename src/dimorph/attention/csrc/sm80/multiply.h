// The two products, on matrices in shared memory and registers.
#pragma once
#include <dimorph/ints.h>

#include "../gpu/contract.h"
#include "../gpu/softmax.h"
#include "ptx.h"

namespace DIMORPH_CASE {

constexpr int kHeld = kConfig.held;
using Queries = uint32_t[kHeld > 0 ? kHeld : 1][kM][4];

// Where in a 16x16 tile a thread's address for load_matrices points: rows first (queries and, transposed, values)...
__device__ __forceinline__ uint32_t lane_rows_first(int pitch) {
  const int lane = threadIdx.x % 32;
  return lane % 16 * pitch + lane / 16 * 16;
}
// ... or columns first (keys).
__device__ __forceinline__ uint32_t lane_columns_first(int pitch) {
  const int lane = threadIdx.x % 32;
  return (lane % 8 + lane / 16 * 8) * pitch + lane / 8 % 2 * 16;
}

// `queries` is the thread's address in the warp's first row.
__device__ __forceinline__ void load_query_part(uint32_t (&part)[kM][4], uint32_t queries, int i) {
#pragma unroll
  for (int m = 0; m < kM; ++m) load_matrices(part[m], queries + m * 16 * kPitchQK + i * 32);
}

constexpr int kQueryParts = HEAD_DIM_QK / 16;

// s = q k^T for a tile. `keys` is the thread's address in its first row. Calls between(i) after the i-th of kQueryParts
// parts.
template <typename F>
__device__ __forceinline__ void multiply_keys(Logits& s, const Queries& held, uint32_t queries, uint32_t keys,
                                              F between) {
#pragma unroll
  for (int i = 0; i < kQueryParts; ++i) {
    uint32_t part[kM][4];
    if (i >= kHeld) load_query_part(part, queries, i);
    const auto& a = i < kHeld ? held[i < kHeld ? i : 0] : part;
#pragma unroll
    for (int n = 0; n < kKeys / 8; n += 2) {
      uint32_t b[4];
      load_matrices(b, keys + n * 8 * kPitchQK + i * 32);
#pragma unroll
      for (int m = 0; m < kM; ++m) {
        if (i == 0) {
#pragma unroll
          for (int e = 0; e < 4; ++e) s[m][n][e] = s[m][n + 1][e] = 0.f;
        }
        multiply_add(s[m][n], a[m], b[0], b[1]);
        multiply_add(s[m][n + 1], a[m], b[2], b[3]);
      }
    }
    between(i);
  }
}

// out += w v for 16 keys. `values` is the thread's address in the first of them.
__device__ __forceinline__ void multiply_values(Output& out, const uint32_t (&weights)[kM][4], uint32_t values) {
#pragma unroll
  for (int n = 0; n < HEAD_DIM_VO / 8; n += 2) {
    uint32_t b[4];
    load_transposed(b, values + n * 16);
#pragma unroll
    for (int m = 0; m < kM; ++m) {
      multiply_add(out[m][n], weights[m], b[0], b[1]);
      multiply_add(out[m][n + 1], weights[m], b[2], b[3]);
    }
  }
}

}  // namespace DIMORPH_CASE
