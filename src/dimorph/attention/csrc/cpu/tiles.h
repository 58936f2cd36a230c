// Sizes of the tiles, the micro-kernel that both products are made of, and the copies of keys and values.
//
// Queries lie in SIMD lanes. So row max and row sum are plain vector operations, keys and values are read as scalars in
// the order in which they lie in memory, and only queries are ever transposed.
#pragma once
#include <dimorph/attention/math.h>
#include <dimorph/attention/simd.h>
#include <dimorph/dtype.h>

#include "bf16_pairs.h"
#include "float8_numbers.h"
#include "float8_table.h"
#include "key_rows.h"
#include "params.h"

namespace DIMORPH_CASE {

// A cell is 4 bytes of an operand. Where the target multiplies pairs of bfloat16, a cell holds two elements that follow
// each other along the sum, which halves the steps; elsewhere it holds one element as float32.
constexpr int kCellElements = kPaired ? 2 : 1;
template <bool = kPaired>
struct CellElement {
  using type = float;
};
template <>
struct CellElement<true> {
  using type = DType;
};

// The micro-kernel keeps kRows x kVectors accumulators in registers, and each step reads kRows + kVectors operands for
// kRows x kVectors multiply-adds: 24 for 11 loads with 32 registers, 12 for 7 loads with 16.
#if defined(__AVX512F__) || defined(__aarch64__)
constexpr int kRows = 8;
#else
constexpr int kRows = 4;
#endif
constexpr int kVectors = 3;
constexpr int kBlockQueries = kVectors * kLanes;  // queries that are computed together
// Head dims in tiles and blocks: of whole cells, and of whole rows of the micro-kernel. What a tensor's row does not
// have is 0 there; beyond a row nothing is read or written, as it may be another tensor's.
constexpr int round_up(int n, int step) { return (n + step - 1) / step * step; }
constexpr int kDimQK = round_up(HEAD_DIM_QK, kCellElements);
constexpr int kDimVO = round_up(HEAD_DIM_VO, kRows);
// Tiles of keys after which the sums of a block are folded away (fold in query_block.h). For 65,536 keys a result then
// has 32 + 32 roundings and not 1024. They are tiles of the sequence, of which a block may need few, so that its result
// does not depend on the tiles that the blocks beside it need.
constexpr int kFoldTiles = 2048 / TILE_KEYS;
// Blocks of queries that share one copy of a tile of keys and values. A copy costs 1/24 of the work of one block, more
// if it comes from the L3 cache, so up to 16 blocks share it. Their queries and outputs must fit the L2 cache.
constexpr int kBlockBytes = 4 * kBlockQueries * (kDimQK + kDimVO);
constexpr int kMaxBlocks = dm::math::min(16, 768 * 1024 / kBlockBytes);
static_assert(kMaxBlocks > 0, "head dims for which one block fits the L2 cache");

// sums[i][j] += sum over steps s of rows[i * kRowStride + s * kStepStride] * columns[s * kBlockQueries + j * kLanes +
// lane], all in cells.
template <int kRowStride, int kStepStride>
DM_INLINE void micro_kernel(RawFloat (&sums)[kRows][kVectors], const float* rows, const float* columns, int steps) {
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
    columns += kBlockQueries;
  }
}

// One element from storage.
template <typename T>
DM_INLINE float as_float(T x) {
  return static_cast<float>(x);
}
DM_INLINE float as_float(dimorph::attention::float8_e4m3fn x) { return dimorph::attention::to_float(x); }
DM_INLINE float as_float(dimorph::attention::float8_e5m2 x) { return dimorph::attention::to_float(x); }

// Convert kCount elements from the storage type; the only place that does.
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

template <typename T, int kCount>
struct VectorOf {
  typedef T type __attribute__((vector_size(kCount * sizeof(T))));
};
template <int kCount, typename Float8>
DM_INLINE void convert(float* to, const Float8* from) {
  using Format = decltype(dimorph::attention::format_of(*from));
  if constexpr (kCount > 0 && kCount % 4 == 0 && (kCount & (kCount - 1)) == 0) {
    using Halves = typename VectorOf<int16_t, kCount>::type;
    typename VectorOf<int8_t, kCount>::type bytes;
    __builtin_memcpy(&bytes, from, sizeof bytes);
    const Halves halves = Format::half_bits(__builtin_convertvector(bytes, Halves));
    convert<kCount>(to, reinterpret_cast<const half*>(&halves));
    DM_UNROLL
    for (int i = 0; i < kCount; ++i) to[i] *= Format::kUnit;
  } else {
    for (int i = 0; i < kCount; ++i) to[i] = dimorph::attention::to_float(from[i]);
  }
}
// The same where products take pairs of bfloat16, which holds any element of 8 bits.
template <int kCount>
DM_INLINE void convert_to_pairs(bfloat16* to, const bfloat16* from) {
  __builtin_memcpy(to, from, 2 * kCount);
}
#if defined(__AVX512BF16__)
// By two lookups in 64 elements each.
template <int kCount, typename Float8>
DM_INLINE void convert_part(bfloat16* to, const Float8* from) {
  typedef uint8_t Bytes __attribute__((vector_size(32)));
  typedef uint16_t Halves __attribute__((vector_size(64)));
  using Format = decltype(dimorph::attention::format_of(*from));
  const auto* table = reinterpret_cast<const Halves*>(dimorph::attention::kBfloat16Table<Format>.bits);
  Bytes bytes = {};
  __builtin_memcpy(&bytes, from, kCount);
  const Halves index = __builtin_convertvector(bytes, Halves);
  Halves low = index, high = index;
  asm("vpermi2w %2, %1, %0" : "+v"(low) : "v"(table[0]), "v"(table[1]));
  asm("vpermi2w %2, %1, %0" : "+v"(high) : "v"(table[2]), "v"(table[3]));
  const Halves found = ((index & 0x40) != 0 ? high : low) | (index & 0x80) << 8;
  __builtin_memcpy(to, &found, 2 * kCount);
}
#else
template <int kCount, typename Float8>
DM_INLINE void convert_part(bfloat16* to, const Float8* from) {
  using Format = decltype(dimorph::attention::format_of(*from));
  for (int i = 0; i < kCount; ++i) {
    const unsigned bits = from[i].bits;
    to[i].bits =
        static_cast<uint16_t>(dimorph::attention::kBfloat16Table<Format>.bits[bits & 0x7f] | (bits & 0x80) << 8);
  }
}
#endif
template <int kCount, typename Float8>
DM_INLINE void convert_to_pairs(bfloat16* to, const Float8* from) {
  if constexpr (kPaired) {  // elsewhere it is compiled for other elements, too
    constexpr int kTail = kCount % 32, kWhole = kCount - kTail;
    DM_UNROLL
    for (int i = 0; i < kWhole; i += 32) convert_part<32>(to + i, from + i);
    if constexpr (kTail > 0) convert_part<kTail>(to + kWhole, from + kWhole);
  }
}

// Copies `count` rows of keys to a contiguous tile, which the products read in one direction and at constant strides.
// Read in place, rows that lie a power of two apart would fall into few cache sets.
inline void load_keys(float* tile, const DTypeKV* rows, Places places, int count) {
  constexpr int kTail = HEAD_DIM_QK % kLanes, kWhole = HEAD_DIM_QK - kTail;
  for (int r = 0; r < count; ++r, next_row(rows, places), tile += kDimQK / kCellElements) {
    const DTypeKV* row = first_row(rows, places);
    if constexpr (kPaired) {
      if constexpr (kDimQK > HEAD_DIM_QK) tile[kDimQK / kCellElements - 1] = 0.f;
      convert_to_pairs<HEAD_DIM_QK>(reinterpret_cast<bfloat16*>(tile), row);
    } else {
      for (int d = 0; d < kWhole; d += kLanes) convert<kLanes>(tile + d, row + d);
      convert<kTail>(tile + kWhole, row + kWhole);
    }
  }
}

// Copies `count` rows of values to panels of cells [kDimVO / kRows][TILE_KEYS / kCellElements][kRows]. In a pair with
// only one key, the other value is 0.
inline void load_values(float* tile, const DTypeKV* rows, Places places, int count) {
  constexpr int kTail = HEAD_DIM_VO % kRows;
  for (int r = 0; r < count; r += kCellElements, advance(rows, places, kCellElements), tile += kRows)
    for (int d = 0; d < kDimVO; d += kRows) {
      const bool whole = !kTail || d + kRows <= HEAD_DIM_VO;
      float* cells = tile + d / kRows * kRows * (TILE_KEYS / kCellElements);
      if constexpr (kPaired) {
        typedef uint16_t Row __attribute__((vector_size(2 * kRows)));
        typedef uint32_t Pairs __attribute__((vector_size(4 * kRows)));
        const auto copy = [&](Row& to, const DTypeKV* from) {
          if (whole)
            convert_to_pairs<kRows>(reinterpret_cast<bfloat16*>(&to), from);
          else
            convert_to_pairs<kTail>(reinterpret_cast<bfloat16*>(&to), from);
        };
        Row first, second = {};
        if (!whole) first = second;
        copy(first, first_row(rows, places) + d);
        if (r + 1 < count) copy(second, row_at(rows, places, 1) + d);
        const Pairs pairs = __builtin_convertvector(first, Pairs) | __builtin_convertvector(second, Pairs) << 16;
        __builtin_memcpy(cells, &pairs, sizeof pairs);
      } else if (whole) {
        convert<kRows>(cells, first_row(rows, places) + d);
      } else {
        for (int i = kTail; i < kRows; ++i) cells[i] = 0.f;
        convert<kTail>(cells, first_row(rows, places) + d);
      }
    }
}

// Prefetches to the L2 cache rows that the next tile will copy.
template <int kDim>
inline void prefetch(const DTypeKV* rows, Places places, int count) {
  DM_NO_UNROLL
  for (int r = 0; r < count; ++r, next_row(rows, places)) {
    DM_NO_UNROLL
    for (int d = 0; d < kDim; d += 64 / sizeof(DTypeKV)) __builtin_prefetch(first_row(rows, places) + d, 0, 2);
  }
}

}  // namespace DIMORPH_CASE
