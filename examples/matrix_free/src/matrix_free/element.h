// The operator of some elements, T has a number for each: once for the CPU and the GPU, who differ in their Team.
//
// A team goes over the planes and lines of an element: the CPU in loops, the GPU with a thread for each line. It
// gathers and scatters nodes, and its sync() parts what one line writes from what another reads.
#pragma once
#include "geometry.h"

namespace DIMORPH_CASE {

// Lines along the first direction begin an odd number apart, so that lines along the others lie in all sets of a cache,
// and on a GPU in all banks of shared memory.
constexpr int kRow = kPoints | 1, kPlane = kRow * kPoints, kCube = kPlane * kPoints;

// The nodes of an element form blocks, those of a vertex, an edge, a face or the interior; the unknowns of a block
// follow each other, in the order of the nodes.
constexpr int kClasses = kNodes < 3 ? kNodes : 3;  // of nodes in one direction: first, inner, last
constexpr int kBlocks = kClasses * kClasses * kClasses;
constexpr int kInterior = DEGREE == 1 ? -1 : 13;  // the block that no other element has

// cubes: the nodes, and room for the derivatives in the second and third direction where the physics has a gradient.
template <typename Physics, typename T, typename Team>
DM_HD DM_INLINE void apply_to_element(const Team& team, const Physics& physics, const Vector<T>* map, T* cube) {
  T *const second = cube + kCube, *const third = second + kCube;
  team.planes(kNodes, [&](auto plane) {
    T* at = cube + plane.b * kPlane;
    plane.lines(kNodes, [&](int j) { multiply<kValues>(at + j * kRow, 1, at + j * kRow, 1); });
    plane.lines(kPoints, [&](int i) { multiply<kValues>(at + i, kRow, at + i, kRow); });
  });
  team.planes(kPoints, [&](auto plane) {
    plane.lines(kPoints, [&](int i) {
      T* at = cube + plane.b * kRow + i;
      if constexpr (Physics::kGradient) {
        multiply<kSlopes>(at, kPlane, at + 2 * kCube, kPlane);
        multiply<kValues>(at, kPlane, at, kPlane);
      } else {
        T values[kPoints], none[3];
        multiply<kValues>(at, kPlane, values, 1);
        const LineMap<2, T> line(map, DType(kGauss.at[i]), DType(kGauss.at[plane.b]));
        const double weight = kGauss.weight[i] * kGauss.weight[plane.b];
        DM_UNROLL for (int k = 0; k < kPoints; ++k)
            line.at_point(physics, DType(kGauss.at[k]), DType(weight * kGauss.weight[k]), values[k], none);
        multiply<kValuesBack>(values, 1, at, kPlane);
      }
    });
  });
  if constexpr (Physics::kGradient) {
    team.planes(kPoints, [&](auto plane) {
      const int start = plane.b * kPlane;
      plane.lines(kPoints, [&](int i) { multiply<kDerive>(cube + start + i, kRow, second + start + i, kRow); });
      plane.lines(kPoints, [&](int j) {
        T* at = cube + start + j * kRow;
        T first[kPoints];
        multiply<kDerive>(at, 1, first, 1);
        const LineMap<0, T> line(map, DType(kGauss.at[j]), DType(kGauss.at[plane.b]));
        const double weight = kGauss.weight[j] * kGauss.weight[plane.b];
        DM_UNROLL for (int i = 0; i < kPoints; ++i) {
          T g[3] = {first[i], at[kCube + i], at[2 * kCube + i]};
          line.at_point(physics, DType(kGauss.at[i]), DType(weight * kGauss.weight[i]), at[i], g);
          first[i] = g[0], at[kCube + i] = g[1], at[2 * kCube + i] = g[2];
        }
        multiply<kDeriveBack, Physics::kValue>(first, 1, at, 1);
      });
      plane.lines(kPoints,
                  [&](int i) { multiply<kDeriveBack, true>(second + start + i, kRow, cube + start + i, kRow); });
    });
    team.planes(kPoints, [&](auto plane) {
      plane.lines(kPoints, [&](int i) {
        T* at = cube + plane.b * kRow + i;
        multiply<kValuesBack>(at, kPlane, at, kPlane);
        multiply<kSlopesBack, true>(at + 2 * kCube, kPlane, at, kPlane);
      });
    });
  }
  team.planes(kNodes, [&](auto plane) {
    T* at = cube + plane.b * kPlane;
    plane.lines(kPoints, [&](int i) { multiply<kValuesBack>(at + i, kRow, at + i, kRow); });
    plane.lines(kNodes, [&](int j) { multiply<kValuesBack>(at + j * kRow, 1, at + j * kRow, 1); });
  });
}

}  // namespace DIMORPH_CASE
