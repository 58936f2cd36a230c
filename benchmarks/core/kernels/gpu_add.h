// What the kernel of gpu_add.cu takes.
#pragma once
#include <dimorph/ints.h>

struct AddParams {
  float* x;
  int64_t count;
  float value;
};
