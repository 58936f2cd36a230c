// A cell, or on the host a vector of cells: its populations, what they mean, and how boundaries change them.
#pragma once
#include "lattice.h"

namespace lbm {

// Product of two components of direction i: xx, yy, zz, xy, xz or yz, where y is the middle axis.
LBM_HD constexpr int second(int i, int product) {
  constexpr int axes[6][2] = {{0, 0}, {1, 1}, {2, 2}, {0, 1}, {0, 2}, {1, 2}};
  return direction(i, axes[product][0]) * direction(i, axes[product][1]);
}

enum Kind : int {
  kFluid,   // collides
  kWall,    // reflects, at rest
  kMoving,  // reflects, at the velocity of the call
  kOpen,    // is at equilibrium, at density 1 and the velocity of the call
};

// Rate of relaxation for a kinematic viscosity, in cells^2 a step.
LBM_HD constexpr DType rate(DType viscosity) { return 1 / (3 * viscosity + DType(0.5)); }

// Square root of a number, or of each lane of a vector.
template <typename T>
LBM_INLINE T root(T x) {
  if constexpr (sizeof(T) == sizeof(DType)) {
#if defined(__CUDACC__)
    return ::sqrt(x);
#else
    return static_cast<DType>(sizeof(DType) == 4 ? __builtin_sqrtf(static_cast<float>(x)) : __builtin_sqrt(x));
#endif
  } else {
    for (int lane = 0; lane < static_cast<int>(sizeof(T) / sizeof(DType)); ++lane) x[lane] = root<DType>(x[lane]);
    return x;
  }
}

// T: DType, or a vector of DType. Populations are stored less their weights, which keeps the digits of float32 for the
// small differences that flow is made of (Skordos 1993).
template <typename T>
struct Cell {
  T f[Q];
  T density;      // less 1
  T velocity[3];  // in cells a step

  LBM_INLINE T square() const {
    const T first = velocity[0] * velocity[0], last = velocity[2] * velocity[2];
    return Q == 9 ? first + last : first + last + velocity[1] * velocity[1];
  }
  // Component of the velocity along a direction that does not rest.
  LBM_INLINE T along(int i) const {
    T sum{};
    bool begun = false;
    for (int axis = 0; axis < 3; ++axis)
      if (direction(i, axis)) add(sum, begun, DType(direction(i, axis)) * velocity[axis]);
    return sum;
  }
  // Half of the sum, and half of the difference, of the equilibria of the pair i and i + 1. Equilibrium is
  // w (rho + rho (3 c.u + 9/2 (c.u)^2 - 3/2 u.u)), here less w.
  LBM_INLINE T rest_equilibrium() const { return weight(0) * (density - DType(1.5) * (1 + density) * square()); }
  LBM_INLINE T even_equilibrium(int i) const {
    const T rho = 1 + density, c = along(i);
    return weight(i) * (density - DType(1.5) * rho * square() + DType(4.5) * rho * c * c);
  }
  LBM_INLINE T odd_equilibrium(int i) const { return 3 * weight(i) * (1 + density) * along(i); }

  LBM_INLINE void find_moments() {
    density = f[0];
    bool begun[3] = {};
    LBM_UNROLL for (int i = 1; i < Q; i += 2) {
      density += f[i] + f[i + 1];
      for (int axis = 0; axis < 3; ++axis)
        if (direction(i, axis)) add(velocity[axis], begun[axis], DType(direction(i, axis)) * (f[i] - f[i + 1]));
    }
    const T volume = 1 / (1 + density);
    for (int axis = 0; axis < 3; ++axis) velocity[axis] = begun[axis] ? velocity[axis] * volume : T{};
  }

  // The parts of each pair move towards equilibrium, the even one and the odd one at rates of their own.
  template <typename Rate>
  LBM_INLINE void relax(Rate even, Rate odd) {
    f[0] += even * (rest_equilibrium() - f[0]);
    LBM_UNROLL for (int i = 1; i < Q; i += 2) {
      const T half_sum = DType(0.5) * (f[i] + f[i + 1]), half_difference = DType(0.5) * (f[i] - f[i + 1]);
      const T change = even * (even_equilibrium(i) - half_sum);
      const T odd_change = odd * (odd_equilibrium(i) - half_difference);
      f[i] += change + odd_change;
      f[i + 1] += change - odd_change;
    }
  }

  // Second moments of what is not at equilibrium, in the order of `second`.
  LBM_INLINE void find_stress(T (&stress)[6]) const {
    for (T& component : stress) component = T{};
    bool begun[6] = {};
    LBM_UNROLL for (int i = 1; i < Q; i += 2) {
      const T rest = f[i] + f[i + 1] - 2 * even_equilibrium(i);
      for (int k = 0; k < 6; ++k)
        if (second(i, k)) add(stress[k], begun[k], DType(second(i, k)) * rest);
    }
  }

  // The first term of a sum takes the place of a zero, which the compiler may not leave out.
  static LBM_INLINE void add(T& sum, bool& begun, T term) {
    sum = begun ? sum + term : term;
    begun = true;
  }

  // Boundaries, in place of a collision. Where a direction leads into the fluid, the wall lies half-way (Ladd 1994).
  LBM_INLINE void reflect(const DType (&wall)[3], DType moving) {
    LBM_UNROLL for (int i = 1; i < Q; i += 2) {
      DType c = 0;
      for (int axis = 0; axis < 3; ++axis) c += direction(i, axis) * wall[axis];
      const T forward = f[i];
      f[i] = f[i + 1] + 6 * weight(i) * moving * c;
      f[i + 1] = forward - 6 * weight(i) * moving * c;
    }
  }
  LBM_INLINE void open(const DType (&inflow)[3]) {
    density = T{};
    for (int axis = 0; axis < 3; ++axis) velocity[axis] = T{} + inflow[axis];
    f[0] = rest_equilibrium();
    LBM_UNROLL for (int i = 1; i < Q; i += 2) {
      const T even = even_equilibrium(i), odd = odd_equilibrium(i);
      f[i] = even + odd;
      f[i + 1] = even - odd;
    }
  }
};

}  // namespace lbm
