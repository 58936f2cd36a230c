// The two products of attention, on matrices in shared memory and registers.
#pragma once
#include <dimorph/ints.h>

#include "../gpu/contract.h"
#include "../gpu/head_dims.h"
#include "../gpu/softmax.h"
#include "ptx.h"

namespace DIMORPH_CASE {

constexpr int kQueryParts = gpu::padded(HEAD_DIM_QK) / 16;
constexpr int kResidentParts = kConfig.resident_query_parts;
using ResidentQueries = uint32_t[kResidentParts > 0 ? kResidentParts : 1][kRowTiles][4];

// This lane's address of keys or of values in shared memory. Of elements of 8 bits: mma_float8.h.
template <bool kOf8Bits = kFloat8>
struct TileAddress;

// Offset in a 16 x 16 tile of the row whose address this lane gives to ldmatrix, if the four matrices are numbered down
// the rows first: for queries and, transposed, for values.
__device__ __forceinline__ uint32_t ldmatrix_offset_rows_first(int pitch) {
  const int lane = threadIdx.x % 32;
  return lane % 16 * pitch + lane / 16 * 16;
}
// The same if they are numbered along the columns first: for keys.
__device__ __forceinline__ uint32_t ldmatrix_offset_columns_first(int pitch) {
  const int lane = threadIdx.x % 32;
  return (lane % 8 + lane / 16 * 8) * pitch + lane / 8 % 2 * 16;
}

template <>
struct TileAddress<false> {
  uint32_t at;

  __device__ static TileAddress keys(uint32_t base) { return {base + ldmatrix_offset_columns_first(kKeyPitch)}; }
  __device__ static TileAddress values(uint32_t base) { return {base + ldmatrix_offset_rows_first(kValuePitch)}; }
  __device__ TileAddress operator+(uint32_t bytes) const { return {at + bytes}; }
};
// Loads part i of the warp's queries. `queries`: this lane's address in the warp's first row.
__device__ __forceinline__ void load_query_part(uint32_t (&part)[kRowTiles][4], uint32_t queries, int i) {
#pragma unroll
  for (int m = 0; m < kRowTiles; ++m) ldmatrix(part[m], queries + m * 16 * kPitchQK + i * 32);
}

// s = q k^T for a tile of keys. `queries`: this lane's address in the warp's first row. Calls between(i) after part i
// of kQueryParts.
template <typename F>
__device__ __forceinline__ void mma_qk(LogitsFragment& s, const ResidentQueries& resident, uint32_t queries,
                                       TileAddress<false> keys, F between) {
#pragma unroll
  for (int i = 0; i < kQueryParts; ++i) {
    uint32_t part[kRowTiles][4];
    if (i >= kResidentParts) load_query_part(part, queries, i);
    const auto& a = i < kResidentParts ? resident[i < kResidentParts ? i : 0] : part;
#pragma unroll
    for (int n = 0; n < kTileKeys / 8; n += 2) {
      uint32_t b[4];
      ldmatrix(b, keys.at + n * 8 * kKeyPitch + i * 32);
#pragma unroll
      for (int m = 0; m < kRowTiles; ++m) {
        if (i == 0) {
#pragma unroll
          for (int e = 0; e < 4; ++e) s[m][n][e] = s[m][n + 1][e] = 0.f;
        }
        mma(s[m][n], a[m], b[0], b[1]);
        mma(s[m][n + 1], a[m], b[2], b[3]);
      }
    }
    between(i);
  }
}

// out += weights v for 16 keys, at `values`.
__device__ __forceinline__ void mma_pv(OutputFragment& out, const uint32_t (&weights)[kRowTiles][4],
                                       TileAddress<false> values) {
#pragma unroll
  for (int n = 0; n < kOutputChunks; n += 2) {
    uint32_t b[4];
    ldmatrix_transposed(b, values.at + n * 16);
#pragma unroll
    for (int m = 0; m < kRowTiles; ++m) {
      mma(out[m][n], weights[m], b[0], b[1]);
      mma(out[m][n + 1], weights[m], b[2], b[3]);
    }
  }
}

}  // namespace DIMORPH_CASE
