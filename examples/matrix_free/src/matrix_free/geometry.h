// The map of an element, x(r) = sum over m of map[m] r^m, trilinear in r of [-1, 1]^3; bit 0 of m stands for r_0.
#pragma once
#include "lines.h"

namespace DIMORPH_CASE {

template <typename T>
struct Vector {
  T at[3];
};
template <typename T>
HD Vector<T> operator+(const Vector<T>& a, const Vector<T>& b) {
  return {{a.at[0] + b.at[0], a.at[1] + b.at[1], a.at[2] + b.at[2]}};
}
template <typename T, typename S>
HD Vector<T> operator*(const Vector<T>& a, const S& scale) {
  return {{a.at[0] * scale, a.at[1] * scale, a.at[2] * scale}};
}
template <typename T>
HD T dot(const Vector<T>& a, const Vector<T>& b) {
  return a.at[0] * b.at[0] + a.at[1] * b.at[1] + a.at[2] * b.at[2];
}
template <typename T>
HD Vector<T> cross(const Vector<T>& a, const Vector<T>& b) {
  return {{a.at[1] * b.at[2] - a.at[2] * b.at[1], a.at[2] * b.at[0] - a.at[0] * b.at[2],
           a.at[0] * b.at[1] - a.at[1] * b.at[0]}};
}

// The map along a line of direction A, where the other two coordinates are fixed. With J the matrix of dx/dr, row i of
// det(J) J^-1 is the cross product of the other two columns of J; along the line, row A is a quadratic polynomial, rows
// B and C are linear, and so det(J) is quadratic. (A, B, C) is a cyclic permutation of (0, 1, 2).
template <int A, typename T>
struct LineMap {
  static constexpr int B = (A + 1) % 3, C = (A + 2) % 3;
  Vector<T> start, along, row_a[3], row_b[2], row_c[2];
  T det[3];

  HD LineMap(const Vector<T>* map, DType b, DType c) {
    constexpr int kA = 1 << A, kB = 1 << B, kC = 1 << C;
    start = map[0] + map[kB] * b + (map[kC] + map[kB + kC] * b) * c;
    along = map[kA] + map[kA + kB] * b + (map[kA + kC] + map[7] * b) * c;
    const Vector<T> b0 = map[kB] + map[kB + kC] * c, b1 = map[kA + kB] + map[7] * c;
    const Vector<T> c0 = map[kC] + map[kB + kC] * b, c1 = map[kA + kC] + map[7] * b;
    row_a[0] = cross(b0, c0);
    row_a[1] = cross(b0, c1) + cross(b1, c0);
    row_a[2] = cross(b1, c1);
    row_b[0] = cross(c0, along);
    row_b[1] = cross(c1, along);
    row_c[0] = cross(along, b0);
    row_c[1] = cross(along, b1);
    UNROLL for (int i = 0; i < 3; ++i) det[i] = dot(along, row_a[i]);
  }

  HD T determinant(DType s) const { return det[0] + (det[1] + det[2] * s) * s; }
  HD Vector<T> position(DType s) const { return start + along * s; }
  // Row B of det(J) J^-1 is rows[B], and so on.
  HD void rows(DType s, Vector<T> (&rows)[3]) const {
    rows[A] = row_a[0] + (row_a[1] + row_a[2] * s) * s;
    rows[B] = row_b[0] + row_b[1] * s;
    rows[C] = row_c[0] + row_c[1] * s;
  }
};

}  // namespace DIMORPH_CASE
