// The two products of a warpgroup, by wgmma, and where their matrices lie in shared memory.
#pragma once
#include <dimorph/ints.h>

#include "../gpu/contract.h"
#include "../gpu/softmax.h"
#include "wgmma.h"

namespace DIMORPH_CASE {

constexpr int kValueSteps = kKeys / 16;
using Weights = uint32_t[kValueSteps][4];

// s = q k^T for a tile, begun. `queries` are the warpgroup's, at its first row.
__device__ __forceinline__ void multiply_keys(Logits& s, uint32_t queries, uint32_t keys) {
  auto& c = reinterpret_cast<float (&)[kKeys / 2]>(s);
  const uint64_t a = matrix_at(queries, 0), b = matrix_at(keys, 0);
#pragma unroll
  for (int i = 0; i < HEAD_DIM_QK / 16; ++i)
    Multiply<kKeys>::keys(c, advanced(a, i / 4 * kConfig.rows() * 128 + i % 4 * 32),
                          advanced(b, i / 4 * kKeys * 128 + i % 4 * 32), i > 0);
}

// out += weights v for a tile, begun.
__device__ __forceinline__ void multiply_values(Output& out, const Weights& weights, uint32_t values) {
  auto& c = reinterpret_cast<float (&)[HEAD_DIM_VO / 2]>(out);
  const uint64_t b = matrix_at(values, kKeys * 128);
#pragma unroll
  for (int i = 0; i < kValueSteps; ++i) Multiply<HEAD_DIM_VO>::values(c, weights[i], advanced(b, i * 16 * 128));
}

}  // namespace DIMORPH_CASE
