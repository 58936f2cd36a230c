// What the kernel of gpu_sum.cu takes.
#pragma once
#include <dimorph/ints.h>

struct SumParams {
  const float *a, *b, *c;
  float* out;
  int64_t count;
};
