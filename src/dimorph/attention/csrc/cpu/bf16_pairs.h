// Pairs of bfloat16 in the lanes of a float vector, for targets with instructions that multiply such pairs. The earlier
// element is the lower half of a lane. The instructions are written as inline assembly, because their intrinsics have
// different names in different compiler versions.
#pragma once
#include <dimorph/attention/simd.h>
#include <dimorph/dtype.h>

#include "params.h"

namespace DIMORPH_CASE {

using dm::FloatV;
using dm::kLanes;
using dm::RawFloat;
using dm::RawInt;

// Whether products are computed in pairs: the elements are bfloat16, and the target multiplies pairs of them.
#if defined(__AVX512BF16__) || defined(__ARM_FEATURE_BF16_VECTOR_ARITHMETIC)
constexpr bool kPaired = __is_same(DType, bfloat16);
#else
constexpr bool kPaired = false;
#endif

DM_INLINE FloatV low_half(FloatV pairs) { return FloatV(RawFloat(RawInt(pairs.raw) << 16)); }
DM_INLINE FloatV high_half(FloatV pairs) { return FloatV(RawFloat(RawInt(pairs.raw) & static_cast<int>(0xffff0000))); }

#if defined(__AVX512BF16__)

// sum + a.low * b.low + a.high * b.high in each lane; the products are exact.
DM_INLINE RawFloat multiply_add_pairs(RawFloat sum, RawFloat a, RawFloat b) {
  asm("vdpbf16ps %2, %1, %0" : "+v"(sum) : "v"(a), "v"(b));
  return sum;
}
// The pair (low, high) in each lane, rounded to nearest even.
DM_INLINE FloatV make_pairs(FloatV low, FloatV high) {
  typedef uint16_t Halves __attribute__((vector_size(64)));
  constexpr Halves kInterleave = {0, 16, 1, 17, 2,  18, 3,  19, 4,  20, 5,  21, 6,  22, 7,  23,
                                  8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31};
  FloatV pairs;
  asm("vcvtne2ps2bf16 %1, %2, %0" : "=v"(pairs.raw) : "v"(low.raw), "v"(high.raw));
  asm("vpermw %1, %2, %0" : "=v"(pairs.raw) : "v"(pairs.raw), "v"(kInterleave));
  return pairs;
}

// Stores a vector of floats as bfloat16, in the order of the lanes.
DM_INLINE void store_rounded(bfloat16* to, FloatV x) {
  typedef uint16_t Halves __attribute__((vector_size(32)));
  Halves halves;
  asm("vcvtneps2bf16 %1, %0" : "=v"(halves) : "v"(x.raw));
  __builtin_memcpy(to, &halves, sizeof halves);
}

#elif defined(__ARM_FEATURE_BF16_VECTOR_ARITHMETIC)

DM_INLINE RawFloat multiply_add_pairs(RawFloat sum, RawFloat a, RawFloat b) {
  asm("bfdot %0.4s, %1.8h, %2.8h" : "+w"(sum) : "w"(a), "w"(b));
  return sum;
}
DM_INLINE FloatV make_pairs(FloatV low, FloatV high) {
  FloatV pairs, upper;
  asm("bfcvtn %0.4h, %1.4s" : "=w"(pairs.raw) : "w"(low.raw));
  asm("bfcvtn %0.4h, %1.4s" : "=w"(upper.raw) : "w"(high.raw));
  asm("zip1 %0.8h, %0.8h, %1.8h" : "+w"(pairs.raw) : "w"(upper.raw));
  return pairs;
}

DM_INLINE void store_rounded(bfloat16* to, FloatV x) {
  FloatV halves;
  asm("bfcvtn %0.4h, %1.4s" : "=w"(halves.raw) : "w"(x.raw));
  __builtin_memcpy(to, &halves, 8);
}

#else  // declared only: other targets never instantiate their uses

RawFloat multiply_add_pairs(RawFloat sum, RawFloat a, RawFloat b);
FloatV make_pairs(FloatV low, FloatV high);
void store_rounded(bfloat16* to, FloatV x);

#endif

}  // namespace DIMORPH_CASE
