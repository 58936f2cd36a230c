// What general codes fall back to, as collision models: a relaxation matrix, and a choice of the model at run time.
#pragma once
#include "collisions.h"

// f += S (f_equilibrium - f), with S [Q, Q] of the call.
template <typename Params>
struct Matrix {
  const DType* relaxation;
  DM_HD explicit Matrix(const Params& params) : relaxation(params.relaxation) {}

  template <typename Cell>
  DM_HD DM_INLINE void collide(Cell& cell) const {
    typename Cell::Value away[Q];
    away[0] = cell.rest_equilibrium() - cell.f[0];
    DM_UNROLL for (int i = 1; i < Q; i += 2) {
      const auto even = cell.even_equilibrium(i), odd = cell.odd_equilibrium(i);
      away[i] = even + odd - cell.f[i];
      away[i + 1] = even - odd - cell.f[i + 1];
    }
    for (int i = 0; i < Q; ++i)
      for (int j = 0; j < Q; ++j) cell.f[i] += relaxation[i * Q + j] * away[j];
  }
};

// The models of collisions.h by number: 0 BGK, 1 TRT, 2 MRT.
template <typename Params>
struct Chosen {
  int model;
  BGK<Params> bgk;
  TRT<Params> trt;
  MRT<Params> mrt;
  DM_HD explicit Chosen(const Params& params) : model(params.model), bgk(params), trt(params), mrt(params) {}

  template <typename Cell>
  DM_HD DM_INLINE void collide(Cell& cell) const {
    if (model == 0) bgk.collide(cell);
    if (model == 1) trt.collide(cell);
    if (model == 2) mrt.collide(cell);
  }
};
