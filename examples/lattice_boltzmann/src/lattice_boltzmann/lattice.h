// The lattice of Q directions: D2Q9, D3Q19 or D3Q27 (Qian, d'Humieres and Lallemand 1992; Krueger et al. 2017).
#pragma once
#include "lattice_boltzmann_config.h"

#if defined(__CUDACC__)  // NVRTC defines it too
#define LBM_HD __host__ __device__
#define LBM_UNROLL _Pragma("unroll")
#elif defined(__clang__)
#define LBM_HD
#define LBM_UNROLL _Pragma("unroll")
#else
#define LBM_HD
#define LBM_UNROLL _Pragma("GCC unroll 32")
#endif

// Inlined always, because loops over directions are only fast as straight code with constants.
#define LBM_INLINE LBM_HD __attribute__((always_inline)) inline

namespace lbm {

// Direction 0 rests; of the others, an odd one and the one behind it are a pair of opposites.
LBM_HD constexpr int opposite(int i) { return i == 0 ? 0 : ((i - 1) ^ 1) + 1; }

// Direction i along an axis: 0 is x, 1 the middle axis of the array, 2 the outer one. Two dimensions have no middle
// axis, so their pairs come first, and the pairs of D3Q19 come before the corners that only D3Q27 has. The last
// direction never leads to smaller x, where a vector of its populations would end behind those of the cell.
LBM_HD constexpr int direction(int i, int axis) {
  constexpr int pairs[13][3] = {{1, 0, 0}, {0, 0, 1},  {1, 0, 1}, {-1, 0, 1}, {0, 1, 0},  {1, 1, 0}, {1, -1, 0},
                                {0, 1, 1}, {0, 1, -1}, {1, 1, 1}, {1, 1, -1}, {1, -1, 1}, {-1, 1, 1}};
  return i == 0 ? 0 : (i % 2 ? 1 : -1) * pairs[(i - 1) / 2][axis];
}

// The weight of a direction depends on how many axes it moves along.
LBM_HD constexpr DType weight(int i) {
  constexpr double weights[4] = {Q == 9    ? 4. / 9
                                 : Q == 19 ? 1. / 3
                                           : 8. / 27,
                                 Q == 9    ? 1. / 9
                                 : Q == 19 ? 1. / 18
                                           : 2. / 27,
                                 Q == 27 ? 1. / 54 : 1. / 36, 1. / 216};
  int axes = 0;
  for (int axis = 0; axis < 3; ++axis) axes += direction(i, axis) != 0;
  return static_cast<DType>(weights[axes]);
}

}  // namespace lbm
