// dm::math: what variants and kernels compute with, on a scalar, on a SIMD vector of the host (simd.h) and on the
// device. The host's scalar and SIMD forms are one template, so they agree to the bit; no header of the standard
// library is needed (`<cmath>` alone would cost a third of a case's compile time).
// Relative errors on the host: exp2, exp, log2, log, tanh, sigmoid within 3e-7. Below 2^-126 they flush to zero.
#pragma once

#if defined(__CUDACC__)  // NVRTC defines it too
#define DM_HD __host__ __device__
#else
#define DM_HD
#include "simd.h"
#endif
#if !defined(__CUDACC_RTC__)
#include <stdint.h>
#endif

#if defined(__clang__)
#pragma clang fp contract(fast)  // a * b + c is one instruction, as it is for GCC
#endif

namespace dm {
namespace math {

constexpr float log2e = 1.44269504088896340736f;
constexpr float ln2 = 0.69314718055994530942f;
constexpr float infinity = __builtin_huge_valf();

template <typename T>
DM_HD inline T select(bool condition, T yes, T no) {
  return condition ? yes : no;
}
// These let a NaN in `b` through.
DM_HD inline float max(float a, float b) { return a > b ? a : b; }
DM_HD inline float min(float a, float b) { return a < b ? a : b; }
DM_HD inline int32_t max(int32_t a, int32_t b) { return a > b ? a : b; }
DM_HD inline int32_t min(int32_t a, int32_t b) { return a < b ? a : b; }
DM_HD inline float to_float(int32_t a) { return static_cast<float>(a); }

#if defined(__CUDA_ARCH__)

DM_HD inline float exp2(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}
DM_HD inline float log2(float x) {
  float y;
  asm("lg2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}
DM_HD inline float rcp(float x) {
  float y;
  asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}
DM_HD inline float exp(float x) { return exp2(x * log2e); }
DM_HD inline float log(float x) { return log2(x) * ln2; }
DM_HD inline float abs(float x) { return fabsf(x); }
// Not tanh.approx: at 2^-11 it is too coarse for soft caps and for sigmoid weights near 1 / keys.
DM_HD inline float tanh(float x) { return 1.f - 2.f * rcp(exp2(x * (2 * log2e)) + 1.f); }

#else

namespace detail {
DM_HD inline int32_t bits(float x) { return __builtin_bit_cast(int32_t, x); }
DM_HD inline float from_bits(int32_t x) { return __builtin_bit_cast(float, x); }
#if !defined(__CUDACC__)
DM_INLINE IntV bits(FloatV x) { return IntV(RawInt(x.raw)); }
DM_INLINE FloatV from_bits(IntV x) { return FloatV(RawFloat(x.raw)); }
#endif

// 1.5 * 2^23: adding it rounds to an integer and leaves that integer in the low bits of the sum.
constexpr float kRound = 12582912.f;

// 2^fraction * 2^n for |fraction| <= 1/2, where rounded = kRound + n; a minimax polynomial (1.6e-7) that is exactly 1 at 0.
template <typename T>
DM_HD inline T exp2_join(T rounded, T fraction) {
  T p = fraction * 0.001326472731307149f + 0.009671512991189957f;
  p = p * fraction + 0.05550733581185341f;
  p = p * fraction + 0.24022242426872253f;
  p = p * fraction + 0.6931470036506653f;
  p = p * fraction + 1.f;
  return from_bits(bits(p) + (bits(rounded) << 23));
}
}  // namespace detail

#if !defined(__CUDACC__)
DM_INLINE FloatV select(MaskV condition, FloatV yes, FloatV no) { return FloatV(condition.raw ? yes.raw : no.raw); }
DM_INLINE IntV select(MaskV condition, IntV yes, IntV no) { return IntV(condition.raw ? yes.raw : no.raw); }
DM_INLINE FloatV max(FloatV a, FloatV b) { return FloatV(a.raw > b.raw ? a.raw : b.raw); }
DM_INLINE FloatV min(FloatV a, FloatV b) { return FloatV(a.raw < b.raw ? a.raw : b.raw); }
DM_INLINE IntV max(IntV a, IntV b) { return select(a > b, a, b); }
DM_INLINE IntV min(IntV a, IntV b) { return select(a < b, a, b); }
DM_INLINE FloatV to_float(IntV a) { return FloatV(__builtin_convertvector(a.raw, RawFloat)); }
#endif

template <typename T>
DM_HD inline T abs(T x) {
  return detail::from_bits(detail::bits(x) & 0x7fffffff);
}
template <typename T>
DM_HD inline T rcp(T x) {
  return 1.f / x;
}
// 2^x for x <= 0, -inf and NaN included: what a softmax needs, without the upper bound's clamp.
// At -127 and below the exponent field is zero and the mantissa empty: exactly 0.
template <typename T>
DM_HD inline T exp2_nonpositive(T x) {
  x = max(T(-127.f), x);
  const T rounded = x + detail::kRound;
  return detail::exp2_join(rounded, x - (rounded - detail::kRound));
}
template <typename T>
DM_HD inline T exp2(T x) {
  return exp2_nonpositive(min(T(128.f), x));  // 2^128 is the bit pattern of infinity
}
template <typename T>
DM_HD inline T exp(T x) {
  constexpr float kLog2eLow = 1.92596303e-8f;  // log2(e) - log2e
  const T rounded = x * log2e + detail::kRound;
  const T fraction = (x * log2e - (rounded - detail::kRound)) + x * kLog2eLow;
  const T bounded = select(x < -87.3f, T(0.f), select(x > 88.7228f, T(infinity), detail::exp2_join(rounded, fraction)));
  return select(x == x, bounded, x);
}
template <typename T>
DM_HD inline T log2(T x) {
  const auto exponent = (detail::bits(x) - 0x3f3504f3) >> 23;  // the mantissa lies in [sqrt(1/2), sqrt(2))
  const T m = detail::from_bits(detail::bits(x) - (exponent << 23));
  const T s = (m - 1.f) / (m + 1.f), y = s * s;
  T series = y * 0.22222222f + 0.28571429f;  // log(m) = 2 atanh(s)
  series = series * y + 0.4f;
  series = series * y + 0.66666667f;
  const T result = to_float(exponent) + (s * y * series + s * 2.f) * log2e;
  const T special = select(x >= 0.f, select(x < 1.f, T(-infinity), x), T(__builtin_nanf("")));
  return select(x >= 1.17549435e-38f && x < infinity, result, special);
}
template <typename T>
DM_HD inline T log(T x) {
  return log2(x) * ln2;
}
template <typename T>
DM_HD inline T tanh(T x) {
  const T a = abs(x), y = x * x;
  T series = y * -0.005717045161873102f + 0.02065058797585f;
  series = series * y + -0.05374349653720856f;
  series = series * y + 0.13331490755081177f;
  series = series * y + -0.3333328366279602f;
  const T big = 1.f - 2.f * rcp(exp2(a * (2 * log2e)) + 1.f);
  return select(a < 0.625f, x + x * y * series, select(x < 0.f, -big, big));
}

#endif  // __CUDA_ARCH__

// 1 / (1 + e^-x), exact to a few units in the last place also where it is tiny.
template <typename T>
DM_HD inline T sigmoid(T x) {
  return rcp(T(1.f) + exp(-x));
}

}  // namespace math
}  // namespace dm
