// What the case for the GPU and its device code agree on.
#pragma once
#include "element.h"

namespace DIMORPH_CASE {

constexpr int kLines = kPoints * kPoints;
constexpr int kThreads = (ELEMENTS * kLines + 31) / 32 * 32;  // of a block: whole warps, the last threads may idle
constexpr int kShared = ELEMENTS * kCubes * kCube * sizeof(DType);  // bytes

}  // namespace DIMORPH_CASE
