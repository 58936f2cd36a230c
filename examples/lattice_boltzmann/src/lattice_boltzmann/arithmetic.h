// What collision models need beside the cell. The config header includes theirs, so nothing here may include it.
#pragma once

#if defined(__CUDACC__)  // NVRTC defines it too
#define LBM_HD __host__ __device__
#else
#define LBM_HD
#endif
#if defined(__CUDACC__) || defined(__clang__)
#define LBM_UNROLL _Pragma("unroll")
#else
#define LBM_UNROLL _Pragma("GCC unroll 32")
#endif
// Loops over directions are only fast as straight code, with the directions as constants.
#define LBM_INLINE LBM_HD __attribute__((always_inline)) inline

namespace lbm {
// Rate of relaxation for a kinematic viscosity, in cells^2 a step.
template <typename T>
LBM_HD constexpr T rate(T viscosity) {
  return 1 / (3 * viscosity + T(0.5));
}
}  // namespace lbm
