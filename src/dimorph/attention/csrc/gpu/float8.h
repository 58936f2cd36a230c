// Elements of 8 bits in registers, as float16, which holds each of them.
#pragma once
#include <dimorph/ints.h>

#include "contract.h"
#include "ptx.h"

namespace DIMORPH_CASE {

// Two elements of e4m3 as float16 (sm_89 and later), and a * b + c for pairs of float16.
__device__ __forceinline__ uint32_t e4m3_to_halves(uint16_t x) {
  uint32_t result;
  asm("cvt.rn.f16x2.e4m3x2 %0, %1;" : "=r"(result) : "h"(x));
  return result;
}
__device__ __forceinline__ uint32_t multiply_add_halves(uint32_t a, uint32_t b, uint32_t c) {
  uint32_t result;
  asm("fma.rn.f16x2 %0, %1, %2, %3;" : "=r"(result) : "r"(a), "r"(b), "r"(c));
  return result;
}
// The float16 in the lower half of a register.
__device__ __forceinline__ float half_to_float(uint32_t x) {
  float result;
  asm("cvt.f32.f16 %0, %1;" : "=f"(result) : "h"(static_cast<uint16_t>(x)));
  return result;
}

// Two elements, in the upper bytes of each half of a register, as float16.
__device__ __forceinline__ uint32_t spread_to_halves(uint32_t x) {
  if constexpr (!kE4m3) return x;
  // 2^8 times less, as the exponents of the formats start 8 apart.
  const uint32_t small = (x & 0x80008000u) | ((x >> 1) & 0x3f803f80u);
  // NaN is 480 so far, and the only number that 35008 times that becomes infinite for; then infinity * 0 is added.
  constexpr uint32_t kUnit = 0x5c005c00, kLarge = 0x78467846;
  return multiply_add_halves(multiply_add_halves(small, kLarge, 0x80008000u), 0u,
                             multiply_add_halves(small, kUnit, 0x80008000u));
}

// The elements of 8 bits 0 and 1, and 2 and 3, as pairs of float16; if kAcross, 0 and 2, and 1 and 3.
template <bool kAcross>
__device__ __forceinline__ void to_halves(uint32_t x, uint32_t (&pairs)[2]) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 890
  if constexpr (kE4m3) {
    const uint32_t ordered = kAcross ? __byte_perm(x, 0, 0x3120) : x;
    pairs[0] = e4m3_to_halves(static_cast<uint16_t>(ordered));
    pairs[1] = e4m3_to_halves(static_cast<uint16_t>(ordered >> 16));
    return;
  }
#endif
  pairs[0] = spread_to_halves(__byte_perm(x, 0, kAcross ? 0x2404 : 0x1404));
  pairs[1] = spread_to_halves(kAcross ? x & 0xff00ff00u : __byte_perm(x, 0, 0x3424));
}

}  // namespace DIMORPH_CASE
