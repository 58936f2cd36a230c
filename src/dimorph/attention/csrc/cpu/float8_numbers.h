// The numbers that elements of 8 bits are, one at a time: for what is not worth faster code.
#pragma once
#include <dimorph/attention/math.h>
#include <dimorph/dtype.h>

#include "../kv_dtype.h"

namespace dimorph {
namespace attention {

inline float of_half(unsigned bits) {
  const uint16_t half_bits = static_cast<uint16_t>(bits);
  return static_cast<float>(reinterpret_cast<const half&>(half_bits));
}
// A float16 with the same mantissa is 2^8 times smaller, as the exponents of the formats start 8 apart.
inline float to_float(float8_e4m3fn x) {
  const unsigned magnitude = x.bits & 0x7fu;
  const float number = of_half((x.bits & 0x80u) << 8 | magnitude << 7) * 256.f;
  return magnitude == 0x7f ? dm::math::infinity * 0.f : number;
}
inline float to_float(float8_e5m2 x) { return of_half(static_cast<unsigned>(x.bits) << 8); }

}  // namespace attention
}  // namespace dimorph
