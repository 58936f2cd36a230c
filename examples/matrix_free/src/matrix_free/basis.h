// The matrices of one direction, which the compiler computes for the degree, and their products with lines of numbers.
#pragma once
#include "matrix_free_config.h"

#if defined(__CUDACC__)
#define TABLE __device__ constexpr
#else
#define TABLE constexpr
#endif

namespace DIMORPH_CASE {

constexpr int kNodes = DEGREE + 1, kPoints = DEGREE + 2;  // in one direction

struct Points {
  int count;
  double at[kPoints], weight[kPoints];
};

// The Gegenbauer polynomial of degree n and its derivative at x: for half 1 Legendre's P_n, for half 3 P_(n+1)'.
struct Polynomial {
  double value, slope;
};
constexpr Polynomial gegenbauer(int half, int n, double x) {
  Polynomial before{0, 0}, now{1, 0};
  for (int k = 1; k <= n; ++k) {
    const double a = (2.0 * k + half - 2) / k, b = (k + half - 2.0) / k;
    const Polynomial next{a * x * now.value - b * before.value, a * (now.value + x * now.slope) - b * before.slope};
    before = now, now = next;
  }
  return now;
}

// For half 1 Gauss points, the `inner` roots; for half 3 Lobatto nodes, the ends besides. Newton's method from the
// right finds the largest root; those that are found are divided out.
constexpr Points points_of(int half, int inner) {
  Points points{inner + half - 1, {}, {}};
  double* roots = points.at + half / 2;
  if (half > 1) points.at[0] = -1, points.at[inner + 1] = 1;
  for (int i = 0; i < inner / 2; ++i) {
    double x = 1;
    for (int step = 0; step < 60; ++step) {
      const Polynomial p = gegenbauer(half, inner, x);
      double found = 0;
      for (int j = 0; j < i; ++j) found += 1 / (x - roots[inner - 1 - j]);
      x -= p.value / (p.slope - p.value * found);
    }
    roots[inner - 1 - i] = x, roots[i] = -x;
  }
  for (int i = 0; i < inner; ++i) {
    const double slope = gegenbauer(half, inner, roots[i]).slope;
    points.weight[i] = 2 / ((1 - roots[i] * roots[i]) * slope * slope);  // of Gauss points
  }
  return points;
}
TABLE Points kGauss = points_of(1, kPoints), kLobatto = points_of(3, kNodes - 2);

// Points and nodes lie symmetrically, so turned by 180 degrees a matrix is the same (sign 1) or its negative (-1).
struct Matrix {
  int rows, columns, sign;
  double at[kPoints][kPoints];
};
// Row i holds the Lagrange polynomials of the nodes, or their derivatives, at point i; or the transpose.
constexpr Matrix lagrange(const Points& points, const Points& nodes, bool derivatives, bool transpose) {
  Matrix matrix{
      transpose ? nodes.count : points.count, transpose ? points.count : nodes.count, derivatives ? -1 : 1, {}};
  for (int i = 0; i < points.count; ++i)
    for (int j = 0; j < nodes.count; ++j) {
      double value = 1, slope = 0;
      for (int k = 0; k < nodes.count; ++k) {
        if (k == j) continue;
        const double scale = 1 / (nodes.at[j] - nodes.at[k]), factor = (points.at[i] - nodes.at[k]) * scale;
        slope = slope * factor + value * scale;
        value *= factor;
      }
      (transpose ? matrix.at[j][i] : matrix.at[i][j]) = derivatives ? slope : value;
    }
  return matrix;
}
// From nodes to values at points, from nodes to derivatives there, from values at points to derivatives; and back.
TABLE Matrix kValues = lagrange(kGauss, kLobatto, false, false), kValuesBack = lagrange(kGauss, kLobatto, false, true);
TABLE Matrix kSlopes = lagrange(kGauss, kLobatto, true, false), kSlopesBack = lagrange(kGauss, kLobatto, true, true);
TABLE Matrix kDerive = lagrange(kGauss, kGauss, true, false), kDeriveBack = lagrange(kGauss, kGauss, true, true);

// out = M in (kAdd: out += M in), also in place; T is a number, or a vector with a number for each of several lines.
// The sums and differences of opposite numbers need half of the multiplications (Solomonoff 1992).
template <const Matrix& kMatrix, bool kAdd = false, typename T>
DM_HD DM_INLINE void multiply(const T* in, int in_stride, T* out, int out_stride) {
  constexpr int kRows = kMatrix.rows, kPairs = kMatrix.columns / 2, kLast = kMatrix.columns - 1;
  const auto& m = kMatrix.at;
  T sum[kPairs + 1], difference[kPairs + 1];
  DM_UNROLL for (int j = 0; j < kPairs; ++j) {
    const T left = in[j * in_stride], right = in[(kLast - j) * in_stride];
    sum[j] = left + right;
    difference[j] = left - right;
  }
  if (kLast % 2 == 0) sum[kPairs] = in[kPairs * in_stride];
  DM_UNROLL for (int i = 0; i < (kRows + 1) / 2; ++i) {
    T even = sum[0] * DType((m[i][0] + m[i][kLast]) / 2), odd = difference[0] * DType((m[i][0] - m[i][kLast]) / 2);
    DM_UNROLL for (int j = 1; j < kLast / 2 + 1; ++j) even += sum[j] * DType((m[i][j] + m[i][kLast - j]) / 2);
    DM_UNROLL for (int j = 1; j < kPairs; ++j) odd += difference[j] * DType((m[i][j] - m[i][kLast - j]) / 2);
    const bool middle = 2 * i + 1 == kRows;  // its own mirror image
    T *low = out + i * out_stride, *high = out + (kRows - 1 - i) * out_stride;
    const T first = middle ? (kMatrix.sign > 0 ? even : odd) : even + odd;
    *low = kAdd ? *low + first : first;
    const T second = kMatrix.sign > 0 ? even - odd : odd - even;
    if (!middle) *high = kAdd ? *high + second : second;
  }
}

}  // namespace DIMORPH_CASE
