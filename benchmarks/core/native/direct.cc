// The case of add_scalar, written and compiled by hand.
#include <stdint.h>

extern "C" void direct_add_scalar(float* x, int64_t count, float value) noexcept {
  for (int64_t i = 0; i < count; ++i) x[i] += value;
}
