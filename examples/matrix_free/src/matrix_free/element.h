// The operator of some elements, T has a number for each: once for the CPU and the GPU, who differ in their Team.
//
// A team goes over the planes and lines of an element: the CPU in loops, the GPU with a thread for each line, which may
// not be busy, and waits for the others after it.
#pragma once
#include "geometry.h"

namespace DIMORPH_CASE {

struct Params : AdditionalParams {
  using Element = DType;
};
using Physics = PHYSICS_OF_POINT<Params>;

// Lines along the first direction begin an odd number apart, so that lines along the others lie in all sets of a cache,
// and on a GPU in all banks of shared memory.
constexpr int kRow = kPoints | 1, kPlane = kRow * kPoints, kCube = kPlane * kPoints;

// The nodes of an element form blocks, those of a vertex, an edge, a face or the interior; the unknowns of a block
// follow each other, in the order of the nodes.
constexpr int kClasses = DEGREE == 1 ? 2 : 3;  // of nodes in one direction: first, inner, last
constexpr int kBlocks = kClasses * kClasses * kClasses;
constexpr int kInterior = DEGREE == 1 ? -1 : 13;  // the block that no other element has

// What a team works in: a cube of nodes or points, and where a gradient is needed two for derivatives.
constexpr int kCubes = Physics::kGradient ? 3 : 1;

template <typename T, typename Team>
DM_HD DM_INLINE void apply_to_element(const Team& team, const Physics& physics, const Vector<T>* map, T* cube) {
  T* const second = cube + kCube;
  team.planes(kNodes, [&](int b, bool busy) {
    T* at = cube + b * kPlane;
    team.lines(busy, kNodes, [&](int j) { multiply<kValues>(at + j * kRow, 1, at + j * kRow, 1); });
    team.lines(busy, kPoints, [&](int i) { multiply<kValues>(at + i, kRow, at + i, kRow); });
  });
  team.planes(kPoints, [&](int b, bool busy) {
    team.lines(busy, kPoints, [&](int i) {
      T* at = cube + b * kRow + i;
      if constexpr (Physics::kGradient) {
        multiply<kSlopes>(at, kPlane, at + 2 * kCube, kPlane);
        multiply<kValues>(at, kPlane, at, kPlane);
      } else {
        T values[kPoints], none{};
        multiply<kValues>(at, kPlane, values, 1);
        const LineMap<2, T> line(map, i, b);
        DM_UNROLL for (int k = 0; k < kPoints; ++k) line.at_point(physics, k, values[k], none, none, none);
        multiply<kValuesBack>(values, 1, at, kPlane);
      }
    });
  });
  if constexpr (Physics::kGradient) {
    team.planes(kPoints, [&](int b, bool busy) {
      const int start = b * kPlane;
      team.lines(busy, kPoints, [&](int i) { multiply<kDerive>(cube + start + i, kRow, second + start + i, kRow); });
      team.lines(busy, kPoints, [&](int j) {
        T* at = cube + start + j * kRow;
        T first[kPoints];
        multiply<kDerive>(at, 1, first, 1);
        const LineMap<0, T> line(map, j, b);
        DM_UNROLL for (int i = 0; i < kPoints; ++i)
            line.at_point(physics, i, at[i], first[i], at[kCube + i], at[2 * kCube + i]);
        multiply<kDeriveBack, Physics::kValue>(first, 1, at, 1);
      });
      team.lines(busy, kPoints,
                 [&](int i) { multiply<kDeriveBack, true>(second + start + i, kRow, cube + start + i, kRow); });
    });
    team.planes(kPoints, [&](int b, bool busy) {
      team.lines(busy, kPoints, [&](int i) {
        T* at = cube + b * kRow + i;
        multiply<kValuesBack>(at, kPlane, at, kPlane);
        multiply<kSlopesBack, true>(at + 2 * kCube, kPlane, at, kPlane);
      });
    });
  }
  team.planes(kNodes, [&](int b, bool busy) {
    T* at = cube + b * kPlane;
    team.lines(busy, kPoints, [&](int i) { multiply<kValuesBack>(at + i, kRow, at + i, kRow); });
    team.lines(busy, kNodes, [&](int j) { multiply<kValuesBack>(at + j * kRow, 1, at + j * kRow, 1); });
  });
}

}  // namespace DIMORPH_CASE
