#include "gpu_add.h"
#include "gpu_add_config.h"

namespace DIMORPH_CASE {

extern "C" __global__ void gpu_add_kernel(const __grid_constant__ AddParams params) {
  const int64_t i = blockIdx.x * int64_t{256} + threadIdx.x;
  if (i < params.count) params.x[i] += params.value;
}

}  // namespace DIMORPH_CASE
