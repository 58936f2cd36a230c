// What the kernel takes, by value: the case fills it in, the device code reads it.
#pragma once
#include <dimorph/dtype.h>

struct RmsParams {
  const void* x;
  void* y;
  int64_t rows;
  float epsilon;
};
