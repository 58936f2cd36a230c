// The map of an element, x(r) = sum over m of map[m] r^m, trilinear in r of [-1, 1]^3; bit 0 of m stands for r_0.
#pragma once
#include "basis.h"

namespace DIMORPH_CASE {

template <typename T>
struct Vector {
  T at[3];
  DM_HD DM_INLINE Vector operator+(const Vector& b) const {
    return {{at[0] + b.at[0], at[1] + b.at[1], at[2] + b.at[2]}};
  }
  template <typename S>
  DM_HD DM_INLINE Vector operator*(const S& scale) const {
    return {{at[0] * scale, at[1] * scale, at[2] * scale}};
  }
  DM_HD DM_INLINE T dot(const Vector& b) const { return at[0] * b.at[0] + at[1] * b.at[1] + at[2] * b.at[2]; }
  DM_HD DM_INLINE Vector cross(const Vector& b) const {
    return {{at[1] * b.at[2] - at[2] * b.at[1], at[2] * b.at[0] - at[0] * b.at[2], at[0] * b.at[1] - at[1] * b.at[0]}};
  }
};

// The map along a line of points in direction A, of numbers i and j in the other two, and (A, B, C) is a cyclic
// permutation of (0, 1, 2). With J the matrix of dx/dr, row i of det(J) J^-1 is the cross product of the other two
// columns of J: along the line, row A is a quadratic polynomial, rows B and C are linear, and det(J) is quadratic.
template <int A, typename T>
struct LineMap {
  static constexpr int B = (A + 1) % 3, C = (A + 2) % 3, kA = 1 << A, kB = 1 << B, kC = 1 << C;
  const DType weight;
  Vector<T> start, along, row_a[3], row_b[2], row_c[2];

  DM_HD DM_INLINE LineMap(const Vector<T>* map, int i, int j) : weight(DType(kGauss.weight[i] * kGauss.weight[j])) {
    const auto b = DType(kGauss.at[i]), c = DType(kGauss.at[j]);
    start = map[0] + map[kB] * b + (map[kC] + map[kB + kC] * b) * c;
    along = map[kA] + map[kA + kB] * b + (map[kA + kC] + map[7] * b) * c;
    const Vector<T> b0 = map[kB] + map[kB + kC] * c, b1 = map[kA + kB] + map[7] * c;
    const Vector<T> c0 = map[kC] + map[kB + kC] * b, c1 = map[kA + kC] + map[7] * b;
    row_a[0] = b0.cross(c0), row_a[1] = b0.cross(c1) + b1.cross(c0), row_a[2] = b1.cross(c1);
    row_b[0] = c0.cross(along), row_b[1] = c1.cross(along);
    row_c[0] = along.cross(b0), row_c[1] = along.cross(b1);
  }

  // Point k of the line: replaces u and its derivatives in directions A, B, C by what v and its derivatives are tested
  // with.
  template <typename Physics>
  DM_HD DM_INLINE void at_point(const Physics& physics, int k, T& u, T& u_a, T& u_b, T& u_c) const {
    const auto s = DType(kGauss.at[k]), w = weight * DType(kGauss.weight[k]);
    const T det = along.dot(row_a[0]) + (along.dot(row_a[1]) + along.dot(row_a[2]) * s) * s;
    const Vector<T> x = start + along * s, a = row_a[0] + (row_a[1] + row_a[2] * s) * s;
    const Vector<T> b = row_b[0] + row_b[1] * s, c = row_c[0] + row_c[1] * s;
    Vector<T> gradient{};
    if (Physics::kValue) u = u * (det * w);
    if (Physics::kGradient) gradient = (a * u_a + b * u_b + c * u_c) * (w / det);
    physics.at(x.at, u, gradient.at);
    u_a = a.dot(gradient), u_b = b.dot(gradient), u_c = c.dot(gradient);
  }
};

}  // namespace DIMORPH_CASE
