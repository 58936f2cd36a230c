// The lattice of Q directions: D2Q9, D3Q19 or D3Q27 (Qian, d'Humieres and Lallemand 1992; Krueger et al. 2017).
#pragma once
#include "lattice_boltzmann_config.h"

// Loops over directions are only fast as straight code, with the directions as constants. DM_UNROLL ends at 16.
#if defined(__GNUC__) && !defined(__clang__) && !defined(__CUDACC__)
#define LBM_UNROLL _Pragma("GCC unroll 27")
#else
#define LBM_UNROLL DM_UNROLL
#endif

namespace lbm {

// Direction i along an axis: 0 is x, 1 the middle axis of the array, 2 the outer one. Direction 0 rests; of the others,
// an odd one and the one behind it are a pair of opposites. Two dimensions have no middle axis, so their pairs come
// first, and those of D3Q19 come before the corners that only D3Q27 has. The last direction never leads to smaller x,
// where a vector of its populations would end behind those of the cell.
DM_HD constexpr int direction(int i, int axis) {
  constexpr int pairs[13][3] = {{1, 0, 0}, {0, 0, 1},  {1, 0, 1}, {-1, 0, 1}, {0, 1, 0},  {1, 1, 0}, {1, -1, 0},
                                {0, 1, 1}, {0, 1, -1}, {1, 1, 1}, {1, 1, -1}, {1, -1, 1}, {-1, 1, 1}};
  return i == 0 ? 0 : (i % 2 ? 1 : -1) * pairs[(i - 1) / 2][axis];
}

// The weight of a direction depends on how many axes it moves along.
DM_HD constexpr DType weight(int i) {
  constexpr double weights[3][4] = {
      {4. / 9, 1. / 9, 1. / 36, 0}, {1. / 3, 1. / 18, 1. / 36, 0}, {8. / 27, 2. / 27, 1. / 54, 1. / 216}};
  int axes = 0;
  for (int axis = 0; axis < 3; ++axis) axes += direction(i, axis) != 0;
  return static_cast<DType>(weights[Q == 9 ? 0 : Q == 19 ? 1 : 2][axes]);
}

}  // namespace lbm
