// Collision models: each is a struct over the params type, whose `collide` changes the populations of a cell.
#pragma once
#include "lattice_boltzmann_config.h"

// Rate of relaxation for a kinematic viscosity, in cells^2 a step.
DM_HD constexpr DType rate(DType viscosity) { return 1 / (3 * viscosity + DType(0.5)); }

// One rate for all (Bhatnagar, Gross and Krook 1954).
template <typename Params>
struct BGK {
  DType omega;
  DM_HD explicit BGK(const Params& params) : omega(rate(params.viscosity)) {}

  template <typename Cell>
  DM_HD DM_INLINE void collide(Cell& cell) const {
    cell.f[0] += omega * (cell.rest_equilibrium() - cell.f[0]);
    DM_UNROLL for (int i = 1; i < Q; i += 2) {
      const auto even = cell.even_equilibrium(i), odd = cell.odd_equilibrium(i);
      cell.f[i] += omega * (even + odd - cell.f[i]);
      cell.f[i + 1] += omega * (even - odd - cell.f[i + 1]);
    }
  }
};

// Two rates, of the even and odd parts; `magic` = (1/even - 1/2) (1/odd - 1/2) says where walls are exactly
// (Ginzburg, Verhaeghe and d'Humieres 2008): at 3/16 they are half-way for every viscosity.
template <typename Params>
struct TRT {
  DType even, odd;
  DM_HD explicit TRT(const Params& params)
      : even(rate(params.viscosity)), odd(1 / (params.magic / (3 * params.viscosity) + DType(0.5))) {}

  template <typename Cell>
  DM_HD DM_INLINE void collide(Cell& cell) const {
    cell.relax(even, odd);
  }
};

// Many rates: of shear, of compression (`bulk` viscosity), and one for all moments that are not hydrodynamic
// (d'Humieres 2002, in the Hermite basis).
template <typename Params>
struct MRT {
  DType shear, bulk, ghost;
  DM_HD explicit MRT(const Params& params)
      : shear(rate(params.viscosity)), bulk(rate(params.bulk)), ghost(params.ghost) {}

  template <typename Cell>
  DM_HD DM_INLINE void collide(Cell& cell) const {
    typename Cell::Value stress[6];
    cell.find_stress(stress);
    cell.relax(ghost, ghost);
    // What the second moments relax more or less than the ghosts, put back in the shape of their Hermite polynomials.
    const auto trace = (stress[0] + stress[1] + stress[2]) * DType(Q == 9 ? 1. / 2 : 1. / 3);
    for (int k = 0; k < 3; k += Q == 9 ? 2 : 1)
      stress[k] = (ghost - shear) * (stress[k] - trace) + (ghost - bulk) * trace;
    for (int k = 3; k < 6; ++k) stress[k] *= ghost - shear;
    const auto third = DType(1. / 3) * (stress[0] + stress[1] + stress[2]);
    cell.f[0] -= DType(4.5) * cell.weight(0) * third;
    DM_UNROLL for (int i = 1; i < Q; i += 2) {
      auto sum = -third;
      DM_UNROLL for (int k = 0; k < 6; ++k) if (cell.second(i, k)) sum +=
          DType((k < 3 ? 1 : 2) * cell.second(i, k)) * stress[k];
      cell.f[i] += DType(4.5) * cell.weight(i) * sum;
      cell.f[i + 1] += DType(4.5) * cell.weight(i) * sum;
    }
  }
};
