// What the case passes to the device code, by value.
#pragma once
#include <dimorph/dtype.h>

constexpr int kThreads = 128;  // of a block; whole warps

struct Params {
  const void* x;
  void* y;
  float epsilon;
};
