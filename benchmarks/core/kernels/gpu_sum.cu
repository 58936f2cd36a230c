#include "gpu_sum.h"
#include "gpu_sum_config.h"

namespace DIMORPH_CASE {

extern "C" __global__ void gpu_sum_kernel(const __grid_constant__ SumParams params) {
  const int64_t i = blockIdx.x * int64_t{256} + threadIdx.x;
  if (i < params.count) params.out[i] = params.a[i] + params.b[i] + params.c[i];
}

}  // namespace DIMORPH_CASE
