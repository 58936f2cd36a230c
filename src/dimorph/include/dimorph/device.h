// A header for device sources: safe in host and device code, light, with no dependency but the compiler.
#pragma once
#include "ints.h"

namespace dimorph {
namespace cuda {

// How TMA finds a tensor and the box that it moves. The host fills it in (encode_tiled in cuda.h); it is a member of
// the params struct, which the kernel takes as `const __grid_constant__`.
struct alignas(128) TensorMap {
  uint64_t opaque[16];
};

#if defined(__CUDACC__)

// Programmatic dependent launch (Config::programmatic in cuda.h). Code before `wait_for_previous` overlaps with the end
// of the previous kernel of the stream, and must read nothing that that kernel writes.
__device__ __forceinline__ void wait_for_previous() {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}
// Lets the next kernel of the stream start, once every block of this one has called it or ended.
__device__ __forceinline__ void let_next_start() {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.launch_dependents;");
#endif
}

#endif

}  // namespace cuda
}  // namespace dimorph
