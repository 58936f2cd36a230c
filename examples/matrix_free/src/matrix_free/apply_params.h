// What the kernels of the GPU take, by value: the case fills it in, the device code reads it.
#pragma once
#include "element.h"

namespace DIMORPH_CASE {

struct ApplyParams : AdditionalParams {
  using Element = DType;
  const DType* maps;      // [elements, 8, 3]
  const int32_t* starts;  // [elements, blocks]
  const DType* x;
  DType* y;
  int64_t unknowns, first_shared;
  int32_t elements;
};
using Physics = PHYSICS_OF_POINT<ApplyParams>;
constexpr int kCubes = Physics::kGradient ? 3 : 1, kLines = kPoints * kPoints;
constexpr int kThreads = (ELEMENTS * kLines + 31) / 32 * 32;  // of a block: whole warps, the last threads may idle

}  // namespace DIMORPH_CASE
