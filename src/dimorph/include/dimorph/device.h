// What a device source may include: safe in host and device code, light, with nothing behind it but the compiler.
#pragma once
#include "ints.h"

namespace dimorph {
namespace cuda {

// How the copy engine walks a tensor. Filled in on the host (encode_tiled of cuda.h), part of the params struct, which
// the kernel takes as `const __grid_constant__`.
struct alignas(128) TensorMap {
  uint64_t opaque[16];
};

#if defined(__CUDACC__)

// Programmatic dependent launch (Config::programmatic of cuda.h). What stands before `wait_for_previous` overlaps with
// the end of the kernel before this one in its stream, and must read nothing that that one writes.
__device__ __forceinline__ void wait_for_previous() {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}
// The kernel after this one may start, as soon as every block of this one has said so or ended.
__device__ __forceinline__ void let_next_start() {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.launch_dependents;");
#endif
}

#endif

}  // namespace cuda
}  // namespace dimorph
