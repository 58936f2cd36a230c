// Tile sizes of the CPU family, and the register-blocked product that both matrix products are made of.
//
// Queries lie in SIMD lanes. So a row's maximum and sum are plain vector operations, keys and values are read as
// scalars in the order they lie in memory, and nothing but the queries is ever transposed.
#pragma once
#include <dimorph/attention/math.h>
#include <dimorph/attention/simd.h>
#include <dimorph/dtype.h>

#include "pairs.h"
#include "params.h"

namespace DIMORPH_CASE {

// Where the target multiplies pairs of bfloat16, a lane of an operand holds two elements that follow each other along
// the sum: half as many steps. Elsewhere a lane holds one element as float32. Either is called a cell.
constexpr int kPack = kPaired ? 2 : 1;  // elements a cell
template <bool = kPaired>
struct CellElement {
  using type = float;
};
template <>
struct CellElement<true> {
  using type = DType;
};

// A product keeps kRows x kVectors accumulators in registers and reads kRows + kVectors operands for as many
// multiply-adds as there are accumulators: 24 per 11 loads fills 32 registers, 12 per 7 fills 16.
#if defined(__AVX512F__) || defined(__aarch64__)
constexpr int kRows = 8;
#else
constexpr int kRows = 4;
#endif
constexpr int kVectors = 3;
constexpr int kBlock = kVectors * kLanes;  // queries that are computed together
// Tiles after which a block's sums are folded away: 65,000 keys then cost 32 + 32 roundings, not 1024.
constexpr int kFold = 2048 / TILE_KEYS;
// Query blocks that share one copy of a tile of keys and values. The copy costs 1 / 24 of one block's work, more where
// it comes from the third-level cache, so 16 share it; their queries and outputs must fit a second-level cache.
constexpr int kBlockBytes = 4 * kBlock * (HEAD_DIM_QK + HEAD_DIM_VO);
constexpr int kMaxBlocks = dm::math::min(16, 768 * 1024 / kBlockBytes);

// sums[i][j] += the sum over s of rows[i * kRowStride + s * kStepStride] * columns[s * kBlock + lane j], in cells
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
      for (int j = 0; j < kVectors; ++j)
        sums[i][j] = kPaired ? multiply_add_pairs(sums[i][j], row, column[j]) : sums[i][j] + row * column[j];
    }
    rows += kStepStride;
    columns += kBlock;
  }
}

// The one place that converts elements of rows from the storage type.
template <int kCount>
DM_INLINE void convert(float* to, const float* from) {
  __builtin_memcpy(to, from, 4 * kCount);
}
template <int kCount>
DM_INLINE void convert(float* to, const bfloat16* from) {
  for (int i = 0; i < kCount; ++i) to[i] = static_cast<float>(from[i]);
}
template <int kCount>
DM_INLINE void convert(float* to, const half* from) {
#if defined(__F16C__)
  if constexpr (kCount == 8 || kCount == kLanes) {
    typedef uint16_t Halves __attribute__((vector_size(2 * kCount)));
    typedef float Floats __attribute__((vector_size(4 * kCount)));
    Halves halves;
    Floats floats;
    __builtin_memcpy(&halves, from, sizeof halves);
    asm("vcvtph2ps %1, %0" : "=v"(floats) : "v"(halves));
    __builtin_memcpy(to, &floats, sizeof floats);
    return;
  }
#endif
  for (int i = 0; i < kCount; ++i) to[i] = static_cast<float>(from[i]);
}

// Copies keys, one after the other: the products then read memory in one direction at constant strides (rows in place
// lie a power of two apart and would fall into few cache sets).
inline void load_keys(float* tile, const DType* rows, int64_t stride, int count) {
  for (int r = 0; r < count; ++r, rows += stride, tile += HEAD_DIM_QK / kPack) {
    if constexpr (kPaired) {
      __builtin_memcpy(tile, rows, 2 * HEAD_DIM_QK);
    } else {
      for (int d = 0; d < HEAD_DIM_QK; d += kLanes) convert<kLanes>(tile + d, rows + d);
    }
  }
}

// Copies values into panels of cells, [HEAD_DIM_VO / kRows][TILE_KEYS / kPack][kRows]. Where a pair has one key, its
// other values are 0.
inline void load_values(float* tile, const DType* rows, int64_t stride, int count) {
  for (int r = 0; r < count; r += kPack, rows += kPack * stride, tile += kRows)
    for (int d = 0; d < HEAD_DIM_VO; d += kRows) {
      float* cells = tile + d / kRows * kRows * (TILE_KEYS / kPack);
      if constexpr (kPaired) {
        typedef uint16_t Row __attribute__((vector_size(2 * kRows)));
        typedef uint32_t Pairs __attribute__((vector_size(4 * kRows)));
        Row first, second = {};
        __builtin_memcpy(&first, rows + d, sizeof first);
        if (r + 1 < count) __builtin_memcpy(&second, rows + stride + d, sizeof second);
        const Pairs pairs = __builtin_convertvector(first, Pairs) | __builtin_convertvector(second, Pairs) << 16;
        __builtin_memcpy(cells, &pairs, sizeof pairs);
      } else {
        convert<kRows>(cells, rows + d);
      }
    }
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
