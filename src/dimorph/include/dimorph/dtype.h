// The element types of dtype axes, in host and device code. `half` and `bfloat16` are CUDA's own types in CUDA code;
// elsewhere they are storage types that convert to and from float.
#pragma once
#include "host_device.h"  // IWYU pragma: export
#include "ints.h"

#if defined(__CUDACC__) || defined(__CUDACC_RTC__)
#include <cuda_bf16.h>
#include <cuda_fp16.h>
using bfloat16 = __nv_bfloat16;
#else

namespace dimorph {

namespace detail {
inline uint32_t bits_of(float value) {
  uint32_t bits;
  __builtin_memcpy(&bits, &value, sizeof bits);
  return bits;
}
inline float float_of(uint32_t bits) {
  float value;
  __builtin_memcpy(&value, &bits, sizeof value);
  return value;
}
}  // namespace detail

// The upper half of a float32. Conversion rounds to nearest even; NaN stays NaN.
struct bfloat16 {
  uint16_t bits;

  bfloat16() = default;
  explicit bfloat16(float value) {
    const uint32_t wide = detail::bits_of(value);
    const uint32_t rounded = (wide + 0x7fffu + ((wide >> 16) & 1u)) >> 16;
    bits = static_cast<uint16_t>(value == value ? rounded : (wide >> 16) | 0x40u);
  }
  explicit operator float() const { return detail::float_of(static_cast<uint32_t>(bits) << 16); }
};

// IEEE binary16. Conversion rounds to nearest even, also to subnormals.
struct half {
  uint16_t bits;

  half() = default;
  explicit half(float value) {
    const uint32_t wide = detail::bits_of(value);
    const uint32_t sign = (wide >> 16) & 0x8000u;
    const uint32_t magnitude = wide & 0x7fffffffu;
    uint32_t result;
    if (magnitude > 0x7f800000u) {
      result = 0x7e00u;
    } else if (magnitude >= 0x47800000u) {
      result = 0x7c00u;
    } else if (magnitude >= 0x38800000u) {
      const uint32_t rebased = magnitude - 0x38000000u;
      result = (rebased + 0xfffu + ((rebased >> 13) & 1u)) >> 13;
    } else {
      // Adding 0.5 leaves the bits of a subnormal result, correctly rounded, at the bottom of the mantissa.
      result = detail::bits_of(detail::float_of(magnitude) + 0.5f) - 0x3f000000u;
    }
    bits = static_cast<uint16_t>(sign | result);
  }
  explicit operator float() const {
    const uint32_t sign = (bits & 0x8000u) << 16;
    const uint32_t magnitude = bits & 0x7fffu;
    if (magnitude >= 0x7c00u) return detail::float_of(sign | 0x7f800000u | ((magnitude & 0x3ffu) << 13));
    // Scaling by 2^112 rebases the exponent and normalises subnormals in one multiplication.
    const float rebased = detail::float_of(magnitude << 13) * detail::float_of(0x77800000u);
    return detail::float_of(sign | detail::bits_of(rebased));
  }
};

}  // namespace dimorph

using dimorph::bfloat16;
using dimorph::half;
#endif
