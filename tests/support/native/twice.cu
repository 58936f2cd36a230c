#include <dimorph/device.h>

#include "twice.h"
#include "twice_config.h"

namespace DIMORPH_CASE {

extern "C" __global__ void __launch_bounds__(WIDTH) twice_kernel(const __grid_constant__ TwiceParams params) {
  const int i = blockIdx.x * WIDTH + threadIdx.x;
  params.y[i] = 2 * params.x[i];
}

}  // namespace DIMORPH_CASE
