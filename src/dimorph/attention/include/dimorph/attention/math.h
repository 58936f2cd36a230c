// dm::math: the functions that variants and kernels compute with, on scalars, on SIMD vectors of the host (simd.h) and
// on the device. On the host, scalar and SIMD forms are one template, so they agree to the bit. No header of the
// standard library is needed: <cmath> alone would cost a third of a case's compile time.
// Relative errors on the host: exp2, exp, log2, log, tanh and sigmoid within 3e-7. Results below 2^-126 are flushed to
// zero.
#pragma once

#include <dimorph/ints.h>

#include "host_device.h"
#if defined(__CUDACC__)
#include "index.h"
#else
#include "simd.h"
#endif

namespace dm {
namespace math {

constexpr float log2e = 1.44269504088896340736f;
constexpr float ln2 = 0.69314718055994530942f;
constexpr float infinity = __builtin_bit_cast(float, 0x7f800000);

template <typename T>
DM_HD inline T select(bool condition, T yes, T no) {
  return condition ? yes : no;
}
// If `b` is NaN, so is the result.
DM_HD inline float max(float a, float b) { return a > b ? a : b; }
DM_HD inline float min(float a, float b) { return a < b ? a : b; }
DM_HD constexpr int32_t max(int32_t a, int32_t b) { return a > b ? a : b; }
DM_HD constexpr int32_t min(int32_t a, int32_t b) { return a < b ? a : b; }
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
// Not tanh.approx: its error of 2^-11 is too large for soft caps, and for sigmoid weights near 1 / keys. Near 0, where
// the difference has an absolute error, two terms of the series: a large soft cap multiplies the result.
DM_HD inline float tanh(float x) {
  const float big = 1.f - 2.f * rcp(exp2(x * (2 * log2e)) + 1.f);
  return abs(x) < 0.0625f ? x * (1.f - x * x * (1.f / 3.f)) : big;
}

#else

namespace detail {
DM_HD inline int32_t bits(float x) { return __builtin_bit_cast(int32_t, x); }
DM_HD inline float from_bits(int32_t x) { return __builtin_bit_cast(float, x); }
#if !defined(__CUDACC__)
DM_INLINE IntV bits(FloatV x) { return IntV(RawInt(x.raw)); }
DM_INLINE FloatV from_bits(IntV x) { return FloatV(RawFloat(x.raw)); }
#endif
// Hides a constant from the optimiser, which otherwise turns a maximum with it into a compare and a blend.
DM_HD inline float opaque(float x) { return x; }
#if !defined(__CUDACC__)
DM_INLINE FloatV opaque(FloatV x) {
#if defined(__x86_64__)
  asm("" : "+x"(x.raw));
#endif
  return x;
}
#endif

// 1.5 * 2^23. Adding it to a float rounds the float to an integer, which is then in the low bits of the sum.
constexpr float kRound = 12582912.f;

// 2^x for |x| <= 1/2: a minimax polynomial with an error of 1.6e-7, exactly 1 at 0.
template <typename T>
DM_HD inline T exp2_fraction(T x) {
  T p = x * 0.001326472731307149f + 0.009671512991189957f;
  p = p * x + 0.05550733581185341f;
  p = p * x + 0.24022242426872253f;
  p = p * x + 0.6931470036506653f;
  return p * x + 1.f;
}
// p * 2^n for rounded = kRound + n. Unsigned, because the sum may wrap.
DM_HD inline float scale(float p, float rounded) {
  return from_bits(static_cast<int32_t>(static_cast<uint32_t>(bits(p)) + (static_cast<uint32_t>(bits(rounded)) << 23)));
}
#if !defined(__CUDACC__)
DM_INLINE FloatV scale(FloatV p, FloatV rounded) {
  typedef uint32_t RawUint __attribute__((vector_size(4 * kLanes)));
  return FloatV(RawFloat(RawUint(p.raw) + (RawUint(rounded.raw) << 23)));
}
#endif
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
// 2^x for x <= 0, -inf and NaN included. That is all a softmax needs, and it saves clamping at the upper bound. At -127
// and below, exponent field and mantissa become zero: the result is exactly 0.
template <typename T>
DM_HD inline T exp2_nonpositive(T x) {
  x = max(detail::opaque(T(-127.f)), x);
  const T rounded = x + detail::kRound;
  return detail::scale(detail::exp2_fraction(x - (rounded - detail::kRound)), rounded);
}
#if defined(__AVX512F__) && !defined(__CUDACC__)
// Two instructions that handle every special value, instead of six with the clamp; vscalefps of (NaN, -inf) is 0.
DM_INLINE FloatV exp2_nonpositive(FloatV x) {
  FloatV n, result;
  asm("vrndscaleps $8, %1, %0" : "=v"(n.raw) : "v"(x.raw));
  const FloatV p = detail::exp2_fraction(x - n);
  asm("vscalefps %2, %1, %0" : "=v"(result.raw) : "v"(p.raw), "v"(n.raw));
  return result;
}
#endif
template <typename T>
DM_HD inline T exp2(T x) {
  return exp2_nonpositive(min(T(128.f), x));  // 2^128 is the bit pattern of infinity
}
template <typename T>
DM_HD inline T exp(T x) {
  const T rounded = x * log2e + detail::kRound, n = rounded - detail::kRound;
  const T rest = (x - n * 0.693359375f) + n * 2.12194440e-4f;  // x - n ln 2; the first product is exact
  const T value = detail::scale(detail::exp2_fraction(rest * log2e), rounded);
  const T bounded = select(x < -87.3f, T(0.f), select(x > 88.7228f, T(infinity), value));
  return select(x == x, bounded, x);
}
template <typename T>
DM_HD inline T log2(T x) {
  const auto bits = detail::bits(abs(x));
  const auto exponent = (bits - 0x3f3504f3) >> 23;  // the mantissa lies in [sqrt(1/2), sqrt(2))
  const T m = detail::from_bits(bits - exponent * (1 << 23));
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

// 1 / (1 + e^-x), exact to a few units in the last place, also where the result is tiny.
template <typename T>
DM_HD inline T sigmoid(T x) {
  return rcp(T(1.f) + exp(-x));
}

}  // namespace math
}  // namespace dm
