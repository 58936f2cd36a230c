// A cell of a lattice, or on the host a vector of cells: its populations, what they mean, and what boundaries do.
#pragma once
#include "lattice_boltzmann_config.h"

namespace lbm {
// Direction i along x, the middle and the outer axis: D2Q9, D3Q19 or D3Q27 (Krueger et al. 2017). Direction 0 rests; of
// the others, an odd one and the next are a pair of opposites. Two dimensions have no middle axis, so their pairs come
// first. The last direction never leads to smaller x, where a vector of its populations would end behind the cell's.
DM_HD constexpr int direction(int i, int axis) {
  constexpr int pairs[13][3] = {{1, 0, 0}, {0, 0, 1},  {1, 0, 1}, {-1, 0, 1}, {0, 1, 0},  {1, 1, 0}, {1, -1, 0},
                                {0, 1, 1}, {0, 1, -1}, {1, 1, 1}, {1, 1, -1}, {1, -1, 1}, {-1, 1, 1}};
  return i == 0 ? 0 : (i % 2 ? 1 : -1) * pairs[(i - 1) / 2][axis];
}

// What cells do in a step: collide; reflect, at rest or at the velocity outside; be at equilibrium with what is
// outside.
enum Kind : int { kFluid, kWall, kMoving, kOpen };

// T: DType, or a vector of DType. Populations are stored less their weights, which keeps the digits of float32 for the
// small differences that flow is made of (Skordos 1993).
template <typename T>
struct Cell {
  using Value = T;
  T f[Q];
  T density;      // less 1
  T velocity[3];  // in cells a step

  DM_HD DM_INLINE void find_moments() {
    density = f[0];
    for (T& component : velocity) component = -T{};  // -0, because compilers may leave out its sum
    DM_UNROLL for (int i = 1; i < Q; i += 2) {
      density += f[i] + f[i + 1];
      DM_UNROLL for (int axis = 0; axis < 3; ++axis) if (direction(i, axis)) velocity[axis] +=
          DType(direction(i, axis)) * (f[i] - f[i + 1]);
    }
    const T volume = 1 / (1 + density);
    for (T& component : velocity) component *= volume;
  }

  // Equilibrium is w (rho + rho (3 c.u + 9/2 (c.u)^2 - 3/2 u.u)), here less w. For the pair of directions i and i + 1,
  // half of the sum of theirs is even, and half of the difference odd.
  DM_HD DM_INLINE T rest_equilibrium() const { return weight(0) * (density - DType(1.5) * (1 + density) * square()); }
  DM_HD DM_INLINE T even_equilibrium(int i) const {
    const T rho = 1 + density, c = along(i);
    return weight(i) * (density - DType(1.5) * rho * square() + DType(4.5) * rho * c * c);
  }
  DM_HD DM_INLINE T odd_equilibrium(int i) const { return 3 * weight(i) * (1 + density) * along(i); }

  // Moves the even and the odd part of each pair towards equilibrium, at rates of their own.
  template <typename Rate>
  DM_HD DM_INLINE void relax(Rate even, Rate odd) {
    f[0] += even * (rest_equilibrium() - f[0]);
    DM_UNROLL for (int i = 1; i < Q; i += 2) {
      const T even_change = even * (even_equilibrium(i) - DType(0.5) * (f[i] + f[i + 1]));
      const T odd_change = odd * (odd_equilibrium(i) - DType(0.5) * (f[i] - f[i + 1]));
      f[i] += even_change + odd_change;
      f[i + 1] += even_change - odd_change;
    }
  }

  // Second moments of what is not at equilibrium: xx, yy, zz, xy, xz, yz, where y is the middle axis.
  DM_HD DM_INLINE void find_stress(T (&stress)[6]) const {
    for (T& component : stress) component = T{};
    DM_UNROLL for (int i = 1; i < Q; i += 2) {
      const T rest = f[i] + f[i + 1] - 2 * even_equilibrium(i);
      DM_UNROLL for (int k = 0; k < 6; ++k) if (second(i, k)) stress[k] += DType(second(i, k)) * rest;
    }
  }
  // The product of two components of direction i, in that order.
  static DM_HD constexpr int second(int i, int k) {
    return k < 3 ? direction(i, k) * direction(i, k) : direction(i, k / 5) * direction(i, k == 3 ? 1 : 2);
  }
  static DM_HD constexpr DType weight(int i) {
    constexpr double weights[3][4] = {
        {4. / 9, 1. / 9, 1. / 36, 0}, {1. / 3, 1. / 18, 1. / 36, 0}, {8. / 27, 2. / 27, 1. / 54, 1. / 216}};
    const int axes = second(i, 0) + second(i, 1) + second(i, 2);  // that the direction moves along
    return static_cast<DType>(weights[Q == 9 ? 0 : Q == 19 ? 1 : 2][axes]);
  }

  // A boundary, in place of a collision. Walls lie half-way between a cell of theirs and the fluid (Ladd 1994).
  DM_HD DM_INLINE void meet(int kind, const DType (&outside)[3]) {
    density = T{};
    for (int axis = 0; axis < 3; ++axis) velocity[axis] = T{} + (kind == kWall ? 0 : outside[axis]);
    if (kind == kOpen) f[0] = rest_equilibrium();
    DM_UNROLL for (int i = 1; i < Q; i += 2) {
      const T forward = kind == kOpen ? even_equilibrium(i) : f[i], odd = odd_equilibrium(i);
      f[i] = kind == kOpen ? forward + odd : f[i + 1] + 2 * odd;
      f[i + 1] = kind == kOpen ? forward - odd : forward - 2 * odd;
    }
  }
  DM_HD DM_INLINE T square() const {
    const T sum = velocity[0] * velocity[0] + velocity[2] * velocity[2];
    return Q == 9 ? sum : sum + velocity[1] * velocity[1];
  }
  DM_HD DM_INLINE T along(int i) const {
    T sum = -T{};
    DM_UNROLL for (int axis = 0; axis < 3; ++axis) if (direction(i, axis)) sum +=
        DType(direction(i, axis)) * velocity[axis];
    return sum;
  }
};
}  // namespace lbm
