// The formats of elements in 8 bits, and how numbers are rounded to them: on every device to the same bits.
#pragma once
#include <dimorph/attention/host_device.h>
#include <dimorph/ints.h>

#include "kv_dtype.h"

namespace dimorph {
namespace attention {

// half_bits: an element, extended by its sign, as the float16 that is the element divided by kUnit; exact. T: int16_t,
// or a vector of them.
struct E4m3 {
  static constexpr float kUnit = 256.f;  // the exponents of the formats start 8 apart
  static constexpr int kMantissa = 3, kLeastExponent = -6;
  static constexpr uint8_t kLargest = 0x7e, kNaN = 0x7f;
  template <typename T>
  static T half_bits(T bits) {
    const T nan = ((bits & 0x7f) + 1) & 0x80;  // fills the exponent
    return T(((bits << 7) & ~0x4000) | (nan << 7));
  }
};
struct E5m2 {
  static constexpr float kUnit = 1.f;
  static constexpr int kMantissa = 2, kLeastExponent = -14;
  static constexpr uint8_t kLargest = 0x7b, kNaN = 0x7d;
  template <typename T>
  static T half_bits(T bits) {
    return T(bits << 8);
  }
};
inline E4m3 format_of(float8_e4m3fn) { return {}; }
inline E5m2 format_of(float8_e5m2) { return {}; }

// Rounds to nearest even. What is larger than the largest finite number becomes that number; NaN stays NaN.
template <typename Float8>
DM_HD inline Float8 from_float(float value) {
  using Format = decltype(format_of(Float8{}));
  constexpr uint32_t kDropped = 23 - Format::kMantissa, kLeast = 127 + Format::kLeastExponent;
  // With it added, the bits of a subnormal result stand, correctly rounded, at the bottom of the mantissa.
  constexpr uint32_t kMagic = (kLeast + kDropped) << 23;
  const uint32_t wide = __builtin_bit_cast(uint32_t, value), magnitude = wide & 0x7fffffffu;
  const uint32_t rebased = magnitude - ((kLeast - 1) << 23);
  const uint32_t normal = (rebased + (1u << (kDropped - 1)) - 1 + (rebased >> kDropped & 1u)) >> kDropped;
  const uint32_t subnormal =
      __builtin_bit_cast(uint32_t, __builtin_bit_cast(float, magnitude) + __builtin_bit_cast(float, kMagic)) - kMagic;
  uint32_t bits = magnitude < kLeast << 23 ? subnormal : normal;
  bits = bits > Format::kLargest ? Format::kLargest : bits;
  bits = magnitude > 0x7f800000u ? Format::kNaN : bits;
  return {static_cast<uint8_t>(bits | (wide >> 24 & 0x80u))};
}

}  // namespace attention
}  // namespace dimorph
