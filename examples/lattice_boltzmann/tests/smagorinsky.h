// A collision model of one's own: BGK with the eddy viscosity of Smagorinsky (Hou et al. 1996).
#pragma once
#include "collisions.h"

template <typename Params>
struct Smagorinsky {
  DType time, factor;  // of relaxation without eddies; of the square of what they add
  DM_HD explicit Smagorinsky(const Params& params)
      : time(1 / rate(params.viscosity)), factor(18 * params.constant * params.constant) {}

  template <typename Cell>
  DM_HD DM_INLINE void collide(Cell& cell) const {
    typename Cell::Value stress[6], square{};
    cell.find_stress(stress);
    for (int k = 0; k < 6; ++k) square += (k < 3 ? DType(2) : DType(4)) * stress[k] * stress[k];
    const auto eddies = factor * root(square) / (1 + cell.density);
    const auto omega = 2 / (time + root(time * time + eddies));
    cell.relax(omega, omega);
  }

 private:
  static DM_HD DM_INLINE DType root(DType x) {
#if defined(__CUDACC__)
    return sqrt(x);
#else
    return static_cast<DType>(sizeof x == 4 ? __builtin_sqrtf(static_cast<float>(x)) : __builtin_sqrt(x));
#endif
  }
  template <typename Vector>
  static DM_HD DM_INLINE Vector root(Vector x) {
    for (unsigned lane = 0; lane < sizeof x / sizeof(DType); ++lane) x[lane] = root(DType(x[lane]));
    return x;
  }
};
