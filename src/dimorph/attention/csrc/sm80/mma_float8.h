// The products with keys and values of 8 bits. They are converted in registers, and multiplied as float16, which holds
// each of them, or values as bfloat16 where no softmax bounds the weights (kBfloat16Weights).
//
// ldmatrix moves pairs of bytes. Of a row of keys a thread gets four elements that follow each other, so they take the
// places 2 t, 2 t + 1, 2 t + 8 and 2 t + 9 of the 16 that an instruction sums over, and queries are put in that order
// too. Of values, transposed, it gets two columns of two keys, so an instruction computes every other column of the
// output, and two of them give a thread four columns that follow each other (value_step).
#pragma once
#include <dimorph/attention/math.h>
#include <dimorph/attention/variants.h>
#include <dimorph/ints.h>

#include "../gpu/contract.h"
#include "../gpu/float8.h"
#include "../gpu/ptx.h"
#include "../gpu/softmax.h"
#include "../gpu/work_tile.h"
#include "mma.h"
#include "ptx.h"

namespace DIMORPH_CASE {

// The elements 0 and 2, and 1 and 3, as an operand of the product with weights.
__device__ __forceinline__ void to_value_pairs(uint32_t x, uint32_t (&pairs)[2]) {
  to_halves<true>(x, pairs);
  if constexpr (kBfloat16Weights)
    for (uint32_t& pair : pairs) pair = pack(half_to_float(pair), half_to_float(pair >> 16));
}

// Turns the warp's queries in shared memory into float16 in the order of keys, with QueryTransform and the sign of the
// scale. Each row is multiplied by the power of 2 that takes its largest element to 2^14, because elements of bfloat16
// may be too large for float16, or too small. The factor that takes its products to logits stands behind it, where rows
// have a chunk more.
__device__ __forceinline__ void prepare_queries(const Params& p, const WorkTile& work, Variant& variant,
                                                unsigned char* queries) {
  const bool negate = Traits::use_softmax && !Traits::has_logits_transform && p.sm_scale < 0.f;
  const float sign = negate ? -1.f : 1.f, key_scale = p.k_scale.of(work.kv_head);
  constexpr int kLaneDims = (HEAD_DIM_QK + 31) / 32;
#pragma unroll 1
  for (int row = 0; row < kConfig.warp_rows(); ++row) {
    DType* from = reinterpret_cast<DType*>(queries + row * kPitchQK);
    float x[kLaneDims], most = 0.f;
#pragma unroll
    for (int j = 0; j < kLaneDims; ++j) {
      const int dim = j * 32 + static_cast<int>(threadIdx.x % 32);
      x[j] = dim < HEAD_DIM_QK ? dm::hooks::query_transform(variant, p, static_cast<float>(from[dim])) * sign : 0.f;
      most = fmaxf(most, fabsf(x[j]));
    }
    // Behind these shuffles all lanes have read the row.
#pragma unroll
    for (int mask = 1; mask < 32; mask *= 2) most = fmaxf(most, shuffle_xor(most, mask));
    // Exponents for which both powers are normal numbers.
    const int exponent = dm::math::min(dm::math::max(__float_as_int(most) >> 23, 15), 253);
    const float inverse = __int_as_float((268 - exponent) << 23);
    uint16_t* to = reinterpret_cast<uint16_t*>(from);
#pragma unroll
    for (int j = 0; j < kLaneDims; ++j) {
      const int dim = j * 32 + static_cast<int>(threadIdx.x % 32);
      const int place = dim / 16 * 16 + dim % 16 / 4 * 2 + dim % 4 / 2 * 8 + dim % 2;
      if (dim < HEAD_DIM_QK) to[place] = static_cast<uint16_t>(pack<false>(x[j] * inverse, 0.f));
    }
    if (threadIdx.x % 32 == 0)
      *reinterpret_cast<float*>(from + HEAD_DIM_QK) = __int_as_float((exponent - 14) << 23) * key_scale;
  }
  __syncwarp();
}

// Takes the products of a tile to logits.
__device__ __forceinline__ void scale_products(LogitsFragment& s, const unsigned char* queries) {
  float factors[kThreadRows];
#pragma unroll
  for (int r = 0; r < kThreadRows; ++r)
    factors[r] = *reinterpret_cast<const float*>(queries + thread_row(r) * kPitchQK + HEAD_DIM_QK * 2);
  for_each_logit([&](int m, int n, int e, int r, int) { s[m][n][e] *= factors[r]; });
}

// This lane's address of keys or of values in shared memory.
template <>
struct TileAddress<true> {
  uint32_t at;

  __device__ static TileAddress keys(uint32_t base) { return {base + threadIdx.x % 32 * kKeyPitch}; }
  __device__ static TileAddress values(uint32_t base) { return {base + ldmatrix_offset_rows_first(kValuePitch)}; }
  __device__ TileAddress operator+(uint32_t bytes) const { return {at + bytes}; }
};

template <typename F>
__device__ __forceinline__ void mma_qk(LogitsFragment& s, const ResidentQueries& resident, uint32_t queries,
                                       TileAddress<true> keys, F between) {
  static_assert(!kFloat8 || kTileKeys % 32 == 0, "ldmatrix loads 16 elements of 32 keys");
#pragma unroll
  for (int i = 0; i < kQueryParts; ++i) {
    uint32_t part[kRowTiles][4];
    if (i >= kResidentParts) load_query_part(part, queries, i);
    const auto& a = i < kResidentParts ? resident[i < kResidentParts ? i : 0] : part;
#pragma unroll
    for (int n = 0; n < kTileKeys / 8; n += 4) {
      uint32_t b[4];
      ldmatrix(b, keys.at + n * 8 * kKeyPitch + i * 16);
#pragma unroll
      for (int j = 0; j < 4; ++j) {
        uint32_t pairs[2];
        to_halves<false>(b[j], pairs);
#pragma unroll
        for (int m = 0; m < kRowTiles; ++m) {
          auto& c = s[m][n + j];
          if (i == 0) c[0] = c[1] = c[2] = c[3] = 0.f;
          mma<false>(c[0], c[1], c[2], c[3], a[m], pairs[0], pairs[1]);
        }
      }
    }
    between(i);
  }
}

__device__ __forceinline__ void mma_pv(OutputFragment& out, const uint32_t (&weights)[kRowTiles][4],
                                       TileAddress<true> values) {
#pragma unroll
  for (int n = 0; n < kOutputChunks; n += 4) {
    uint32_t b[4];
    ldmatrix_transposed(b, values.at + n * 8);
#pragma unroll
    for (int j = 0; j < 2; ++j) {
      const int c = n + 2 * j;
      if (c >= kOutputChunks) continue;  // an odd number of 16 columns: read, but nobody's
      uint32_t low[2], high[2];
      to_value_pairs(b[2 * j], low);
      to_value_pairs(b[2 * j + 1], high);
#pragma unroll
      for (int m = 0; m < kRowTiles; ++m) {
        auto &first = out[m][c], &second = out[m][c + 1];
#pragma unroll
        for (int e = 0; e < 2; ++e)
          mma<kBfloat16Weights>(first[e], second[e], first[e + 2], second[e + 2], weights[m], low[e], high[e]);
      }
    }
  }
}

}  // namespace DIMORPH_CASE
