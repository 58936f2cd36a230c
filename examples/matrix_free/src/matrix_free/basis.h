// Gauss points, nodes and the matrices of one direction, computed by the compiler for the degree at hand.
#pragma once

template <int kRows, int kColumns>
struct Matrix {
  double at[kRows][kColumns];
};
template <int kCount>
struct Points {
  double at[kCount], weight[kCount];
};

// The Legendre polynomial of degree n at x, and its first two derivatives.
struct Legendre {
  double value, slope, bend;
};
constexpr Legendre legendre(int n, double x) {
  Legendre before{1, 0, 0}, now{x, 1, 0};
  for (int k = 2; k <= n; ++k) {
    const double a = (2.0 * k - 1) / k, b = (k - 1.0) / k;
    const Legendre next{a * x * now.value - b * before.value, a * (now.value + x * now.slope) - b * before.slope,
                        a * (2 * now.slope + x * now.bend) - b * before.bend};
    before = now;
    now = next;
  }
  return now;
}

// Fills in the roots between -1 and 1 of the polynomial of degree n (of its derivative, where kSlope), in rising order.
// Newton's method from the right finds the largest; those that are found are divided out.
template <bool kSlope>
constexpr void find_roots(int n, int count, double* roots) {
  for (int i = 0; i <= count / 2; ++i) {
    double x = 1;
    for (int step = 0; step < 100; ++step) {
      const Legendre at = legendre(n, x);
      const double value = kSlope ? at.slope : at.value, slope = kSlope ? at.bend : at.slope;
      double taken = 0;
      for (int j = 0; j < i; ++j) taken += 1 / (x - roots[count - 1 - j]);
      const double change = value / (slope - value * taken);
      x -= change;
      if (change < 1e-16 && change > -1e-16) break;
    }
    roots[count - 1 - i] = x;
    roots[i] = -x;
  }
  if (count % 2) roots[count / 2] = 0;
}

// Gauss-Legendre quadrature on [-1, 1].
template <int kCount>
constexpr Points<kCount> gauss() {
  Points<kCount> points{};
  find_roots<false>(kCount, kCount, points.at);
  for (int i = 0; i < kCount; ++i) {
    const double slope = legendre(kCount, points.at[i]).slope;
    points.weight[i] = 2 / ((1 - points.at[i] * points.at[i]) * slope * slope);
  }
  return points;
}

// Gauss-Lobatto nodes on [-1, 1].
template <int kCount>
constexpr Points<kCount> lobatto() {
  Points<kCount> points{};
  find_roots<true>(kCount - 1, kCount - 2, points.at + 1);
  points.at[0] = -1;
  points.at[kCount - 1] = 1;
  return points;
}

// Row i holds the Lagrange polynomials of the nodes (kSlope: their derivatives) at point i.
template <bool kSlope, int kRows, int kColumns>
constexpr Matrix<kRows, kColumns> lagrange(const Points<kRows>& points, const Points<kColumns>& nodes) {
  Matrix<kRows, kColumns> matrix{};
  for (int i = 0; i < kRows; ++i)
    for (int j = 0; j < kColumns; ++j) {
      double value = 1, slope = 0;
      for (int k = 0; k < kColumns; ++k) {
        if (k == j) continue;
        const double scale = 1 / (nodes.at[j] - nodes.at[k]), factor = (points.at[i] - nodes.at[k]) * scale;
        slope = slope * factor + value * scale;
        value *= factor;
      }
      matrix.at[i][j] = kSlope ? slope : value;
    }
  return matrix;
}

template <int kRows, int kColumns>
constexpr Matrix<kColumns, kRows> transposed(const Matrix<kRows, kColumns>& matrix) {
  Matrix<kColumns, kRows> result{};
  for (int i = 0; i < kRows; ++i)
    for (int j = 0; j < kColumns; ++j) result.at[j][i] = matrix.at[i][j];
  return result;
}

// A matrix in its even-odd form. Nodes and points lie symmetrically, so that the matrix turned by 180 degrees is the
// same (kSign 1) or its negative (-1), and half of the multiplications suffice (Solomonoff 1992).
template <int kRows, int kColumns>
struct EvenOdd {
  double even[(kRows + 1) / 2][(kColumns + 1) / 2], odd[(kRows + 1) / 2][(kColumns + 1) / 2];
};
template <int kRows, int kColumns>
constexpr EvenOdd<kRows, kColumns> even_odd(const Matrix<kRows, kColumns>& matrix) {
  EvenOdd<kRows, kColumns> half{};
  for (int i = 0; i < (kRows + 1) / 2; ++i)
    for (int j = 0; j < (kColumns + 1) / 2; ++j) {
      const double left = matrix.at[i][j], right = matrix.at[i][kColumns - 1 - j];
      half.even[i][j] = (left + right) / 2;
      half.odd[i][j] = (left - right) / 2;
    }
  return half;
}

// The four matrices of one direction: from nodes to points, from values at points to derivatives there, from nodes to
// derivatives at points. Each has a transpose.
template <int kNodes, int kPoints>
struct Values {
  static constexpr int kRows = kPoints, kColumns = kNodes, kSign = 1;
  static constexpr auto make() { return lagrange<false>(gauss<kPoints>(), lobatto<kNodes>()); }
};
template <int kNodes, int kPoints>
struct Slopes {
  static constexpr int kRows = kPoints, kColumns = kNodes, kSign = -1;
  static constexpr auto make() { return lagrange<true>(gauss<kPoints>(), lobatto<kNodes>()); }
};
template <int kPoints>
struct SlopesOfPoints {
  static constexpr int kRows = kPoints, kColumns = kPoints, kSign = -1;
  static constexpr auto make() { return lagrange<true>(gauss<kPoints>(), gauss<kPoints>()); }
};
template <typename Of>
struct Transposed {
  static constexpr int kRows = Of::kColumns, kColumns = Of::kRows, kSign = Of::kSign;
  static constexpr auto make() { return transposed(Of::make()); }
};
