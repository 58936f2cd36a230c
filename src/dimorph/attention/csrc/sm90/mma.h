// The two products of a warpgroup, by wgmma, on matrices in shared memory as config.h lays them out.
#pragma once
#include <dimorph/ints.h>

#include "../gpu/contract.h"
#include "../gpu/head_dims.h"
#include "../gpu/softmax.h"
#include "wgmma.h"

namespace DIMORPH_CASE {

constexpr int kValueSteps = kTileKeys / 16;
using WeightsFragment = uint32_t[kValueSteps][4];

// Issues s = q k^T for a tile of keys. `queries`: the warpgroup's first row.
__device__ __forceinline__ void mma_qk(LogitsFragment& s, uint32_t queries, uint32_t keys, sm90::TileLayout layout) {
  auto& c = reinterpret_cast<float (&)[kTileKeys / 2]>(s);
  const uint64_t a = matrix_descriptor(queries, 0), b = matrix_descriptor(keys, 0, layout.group);
#pragma unroll
  for (int i = 0; i < gpu::padded(HEAD_DIM_QK) / 16; ++i)
    Wgmma<kTileKeys>::ss(c, advance_descriptor(a, i / 4 * kConfig.tile_rows() * 128 + i % 4 * 32),
                         advance_descriptor(b, i / 4 * layout.panel + i % 4 * 32), i > 0);
}

// Issues out += weights v for a tile of values.
__device__ __forceinline__ void mma_pv(OutputFragment& out, const WeightsFragment& weights, uint32_t values,
                                       sm90::TileLayout layout) {
  constexpr int kColumns = gpu::padded(HEAD_DIM_VO);
  auto& c = reinterpret_cast<float (&)[kColumns / 2]>(out);
  const uint64_t b = matrix_descriptor(values, layout.panel, layout.group);
#pragma unroll
  for (int i = 0; i < kValueSteps; ++i) Wgmma<kColumns>::rs(c, weights[i], advance_descriptor(b, i * 2 * layout.group));
}

}  // namespace DIMORPH_CASE
