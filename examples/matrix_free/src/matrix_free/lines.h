// Products with the matrices of one direction, along one line of nodes or points, for the CPU and the GPU.
#pragma once
#include "basis.h"
#include "matrix_free_config.h"

#if defined(__CUDACC__)
#define HD __host__ __device__ __forceinline__
#define UNROLL _Pragma("unroll")
#elif defined(__clang__)
#define HD inline __attribute__((always_inline))
#define UNROLL _Pragma("unroll")
#else
#define HD inline __attribute__((always_inline))
#define UNROLL _Pragma("GCC unroll 32")
#endif

namespace DIMORPH_CASE {

constexpr int kNodes = DEGREE + 1, kPoints = DEGREE + 2;  // in one direction

using ToPoints = Values<kNodes, kPoints>;        // values at nodes -> values at points
using ToSlopes = Slopes<kNodes, kPoints>;        // values at nodes -> derivatives at points
using PointsToSlopes = SlopesOfPoints<kPoints>;  // values at points -> derivatives at points

// out = M in (kAdd: out += M in); T is a number, or a vector with an element for each of several lines.
template <typename M, bool kAdd = false, typename T>
HD void multiply(const T* in, int in_stride, T* out, int out_stride) {
  constexpr int kRows = M::kRows, kColumns = M::kColumns, kPairs = kColumns / 2;
  constexpr auto kHalf = even_odd(M::make());
  T sum[(kColumns + 1) / 2], difference[(kColumns + 1) / 2];
  UNROLL for (int j = 0; j < kPairs; ++j) {
    const T left = in[j * in_stride], right = in[(kColumns - 1 - j) * in_stride];
    sum[j] = left + right;
    difference[j] = left - right;
  }
  if constexpr (kColumns % 2 != 0) sum[kPairs] = in[kPairs * in_stride];
  UNROLL for (int i = 0; i < (kRows + 1) / 2; ++i) {
    T even = sum[0] * static_cast<DType>(kHalf.even[i][0]);
    T odd = difference[0] * static_cast<DType>(kHalf.odd[i][0]);
    UNROLL for (int j = 1; j < (kColumns + 1) / 2; ++j) even += sum[j] * static_cast<DType>(kHalf.even[i][j]);
    UNROLL for (int j = 1; j < kPairs; ++j) odd += difference[j] * static_cast<DType>(kHalf.odd[i][j]);
    T* low = out + i * out_stride;
    T* high = out + (kRows - 1 - i) * out_stride;
    if (2 * i + 1 == kRows) {  // the middle row is its own mirror image
      *low = (kAdd ? *low : T{}) + (M::kSign > 0 ? even : odd);
    } else {
      *low = (kAdd ? *low : T{}) + (even + odd);
      *high = (kAdd ? *high : T{}) + (M::kSign > 0 ? even - odd : odd - even);
    }
  }
}

}  // namespace DIMORPH_CASE
