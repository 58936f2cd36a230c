// Tile sizes of the CPU family, and the register-blocked product that both matrix products are made of.
//
// Queries lie in SIMD lanes. So a row's maximum and sum are plain vector operations, keys and values are read as
// scalars in the order they lie in memory, and nothing but the queries is ever transposed.
#pragma once

namespace DIMORPH_CASE {

using dm::FloatV;
using dm::kLanes;
using dm::RawFloat;

// A product keeps kRows x kVectors accumulators in registers and reads kRows + kVectors operands for as many
// multiply-adds as there are accumulators: 24 per 11 loads fills 32 registers, 12 per 7 fills 16.
#if defined(__AVX512F__) || defined(__aarch64__)
constexpr int kRows = 8;
#else
constexpr int kRows = 4;
#endif
constexpr int kVectors = 3;
constexpr int kBlock = kVectors * kLanes;  // queries that are computed together
// Keys a tile: long enough that rescaling the output (once a tile) costs 1 / 64 of the product, short enough that the
// weights (12 KB with 16 lanes) stay in a first-level cache beside a block of queries.
constexpr int kKeys = 64;
// Tiles after which a block's sums are folded away: 65,000 keys then cost 32 + 32 roundings, not 1024.
constexpr int kFold = 32;
// Query blocks that share one copy of a tile of keys and values. The copy costs 1 / 24 of one block's work, more where
// it comes from the third-level cache, so 16 share it; their queries and outputs must fit a second-level cache.
constexpr int kBlockBytes = 4 * kBlock * (HEAD_DIM_QK + HEAD_DIM_VO);
constexpr int kMaxBlocks = dm::math::min(16, 768 * 1024 / kBlockBytes);

// sums[i][j] += the sum over s of rows[i * kRowStride + s * kStepStride] * columns[s * kBlock + lane j]
template <int kRowStride, int kStepStride>
DM_INLINE void multiply(RawFloat (&sums)[kRows][kVectors], const float* rows, const float* columns, int steps) {
  DM_NO_UNROLL
  for (int s = 0; s < steps; ++s) {
    RawFloat column[kVectors];
    DM_UNROLL
    for (int j = 0; j < kVectors; ++j) column[j] = reinterpret_cast<const RawFloat*>(columns)[j];
    DM_UNROLL
    for (int i = 0; i < kRows; ++i) {
      const RawFloat row = FloatV(rows[i * kRowStride]).raw;
      DM_UNROLL
      for (int j = 0; j < kVectors; ++j) sums[i][j] += row * column[j];
    }
    rows += kStepStride;
    columns += kBlock;
  }
}

// The one place that converts keys and values from the storage type.
template <int kCount>
DM_INLINE void convert(float* to, const float* from) {
  __builtin_memcpy(to, from, 4 * kCount);
}
template <int kCount, typename Storage>
DM_INLINE void convert(float* to, const Storage* from) {
  for (int i = 0; i < kCount; ++i) to[i] = static_cast<float>(from[i]);
}

// Copies rows into a tile of panels, [kDim / kPanel][kKeys][kPanel]: the products then read memory in one direction at
// constant strides (rows in place lie a power of two apart and would fall into few cache sets).
template <int kDim, int kPanel>
inline void load_tile(float* tile, const DType* rows, int64_t stride, int count) {
  constexpr int kStep = kPanel < 16 ? kPanel : 16;
  for (int r = 0; r < count; ++r, rows += stride)
    for (int d = 0; d < kDim; d += kStep)
      convert<kStep>(tile + d / kPanel * kPanel * kKeys + r * kPanel + d % kPanel, rows + d);
}

// Asks for rows that the next tile will copy.
template <int kDim>
inline void prefetch(const DType* rows, int64_t stride, int count) {
  DM_NO_UNROLL
  for (int r = 0; r < count; ++r, rows += stride) {
    DM_NO_UNROLL
    for (int d = 0; d < kDim; d += 64 / sizeof(DType)) __builtin_prefetch(rows + d, 0, 2);
  }
}

}  // namespace DIMORPH_CASE
