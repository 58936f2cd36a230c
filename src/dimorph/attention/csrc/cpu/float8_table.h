// Elements in 8 bits as bfloat16, by a table.
#pragma once
#include <dimorph/ints.h>

#include "../float8_formats.h"  // IWYU pragma: export

namespace dimorph {
namespace attention {

// The elements that are not negative as bfloat16, which holds each of them.
template <typename Format>
struct Bfloat16Table {
  alignas(64) uint16_t bits[128] = {};

  constexpr Bfloat16Table() {
    constexpr int kImplied = 1 << Format::kMantissa;
    for (int i = 1; i < 128; ++i) {
      int exponent = i / kImplied, mantissa = i % kImplied;
      if (i > Format::kLargest) {
        bits[i] = i < Format::kNaN ? 0x7f80 : 0x7fc0;
        continue;
      }
      if (exponent == 0) {
        for (exponent = 1; mantissa < kImplied; --exponent) mantissa *= 2;
        mantissa -= kImplied;
      }
      const int biased = 127 + Format::kLeastExponent + exponent - 1;
      bits[i] = static_cast<uint16_t>(biased << 7 | mantissa << (7 - Format::kMantissa));
    }
  }
};
template <typename Format>
constexpr Bfloat16Table<Format> kBfloat16Table;

}  // namespace attention
}  // namespace dimorph
