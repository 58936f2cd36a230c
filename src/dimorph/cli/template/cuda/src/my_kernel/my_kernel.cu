// The device code: a block for each row, every axis a plain constant.
#include "my_kernel_config.h"
#include "my_kernel_params.h"

namespace DIMORPH_CASE {

__device__ float sum_of_block(float value) {
  __shared__ float of_warp[kThreads / 32];
  for (int lane = 16; lane > 0; lane /= 2) value += __shfl_xor_sync(0xffffffffu, value, lane);
  if (threadIdx.x % 32 == 0) of_warp[threadIdx.x / 32] = value;
  __syncthreads();
  float sum = 0;
  for (int warp = 0; warp < kThreads / 32; ++warp) sum += of_warp[warp];
  return sum;
}

extern "C" __global__ void __launch_bounds__(kThreads) my_kernel_device(const __grid_constant__ Params params) {
  const DType* x = static_cast<const DType*>(params.x) + static_cast<int64_t>(blockIdx.x) * WIDTH;
  DType* y = static_cast<DType*>(params.y) + static_cast<int64_t>(blockIdx.x) * WIDTH;
  float squares = 0;
  for (int i = threadIdx.x; i < WIDTH; i += kThreads) squares += static_cast<float>(x[i]) * static_cast<float>(x[i]);
  const float factor = 1 / sqrtf(sum_of_block(squares) / WIDTH + params.epsilon);
  for (int i = threadIdx.x; i < WIDTH; i += kThreads) y[i] = static_cast<DType>(static_cast<float>(x[i]) * factor);
}

}  // namespace DIMORPH_CASE
