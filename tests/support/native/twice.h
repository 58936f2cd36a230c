#pragma once
#include <dimorph/dtype.h>

struct TwiceParams {
  const float* x;
  float* y;
};
