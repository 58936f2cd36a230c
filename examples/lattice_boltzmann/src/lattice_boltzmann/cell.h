// A cell, or on the host a vector of cells: its populations, what they mean, and what boundaries do in place of
// collisions.
#pragma once
#include "lattice.h"

namespace lbm {

enum Kind : int { kFluid, kWall, kMoving, kOpen };

// T: DType, or a vector of DType. Populations are stored less their weights, which keeps the digits of float32 for the
// small differences that flow is made of (Skordos 1993).
template <typename T>
struct Cell {
  using Value = T;
  T f[Q];
  T density;      // less 1
  T velocity[3];  // in cells a step

  // Density and velocity are those of f from here on.
  DM_HD DM_INLINE void find_moments() {
    density = f[0];
    bool begun[3] = {};
    DM_UNROLL for (int i = 1; i < Q; i += 2) {
      density += f[i] + f[i + 1];
      DM_UNROLL for (int axis = 0; axis < 3; ++axis) if (direction(i, axis))
          add(velocity[axis], begun[axis], DType(direction(i, axis)) * (f[i] - f[i + 1]));
    }
    const T volume = 1 / (1 + density);
    for (int axis = 0; axis < 3; ++axis) velocity[axis] = begun[axis] ? velocity[axis] * volume : T{};
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
      const T sum = DType(0.5) * (f[i] + f[i + 1]), difference = DType(0.5) * (f[i] - f[i + 1]);
      const T even_change = even * (even_equilibrium(i) - sum), odd_change = odd * (odd_equilibrium(i) - difference);
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
  static DM_HD constexpr DType weight(int i) { return lbm::weight(i); }

  // A wall reflects what comes from the fluid, and lies half-way to it (Ladd 1994); an open cell is at equilibrium, at
  // density 1. In place of a collision.
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

 private:
  DM_HD DM_INLINE T square() const {
    const T sum = velocity[0] * velocity[0] + velocity[2] * velocity[2];
    return Q == 9 ? sum : sum + velocity[1] * velocity[1];
  }
  DM_HD DM_INLINE T along(int i) const {
    T sum{};
    bool begun = false;
    DM_UNROLL for (int axis = 0; axis < 3; ++axis) if (direction(i, axis))
        add(sum, begun, DType(direction(i, axis)) * velocity[axis]);
    return sum;
  }
  // The first term takes the place of a zero, which the compiler may not leave out.
  static DM_HD DM_INLINE void add(T& sum, bool& begun, T term) {
    sum = begun ? sum + term : term;
    begun = true;
  }
};

}  // namespace lbm
