// A collision model of one's own: BGK with the eddy viscosity of Smagorinsky (Hou et al. 1996).
#pragma once
#include "cell.h"

template <typename Params>
struct Smagorinsky {
  DType time, factor;  // of relaxation at rest; of the eddy viscosity
  LBM_HD explicit Smagorinsky(const Params& params)
      : time(1 / lbm::rate(params.viscosity)), factor(18 * params.constant * params.constant) {}

  template <typename T>
  LBM_INLINE void collide(lbm::Cell<T>& cell) const {
    T stress[6];
    cell.find_stress(stress);
    T square{};
    for (int k = 0; k < 6; ++k) square += (k < 3 ? DType(1) : DType(2)) * stress[k] * stress[k];
    const T eddies = factor * lbm::root(2 * square) / (1 + cell.density);
    const T omega = 2 / (time + lbm::root(time * time + eddies));
    cell.relax(omega, omega);
  }
};
