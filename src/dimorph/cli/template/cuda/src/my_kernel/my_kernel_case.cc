// The case, on the host: launches the device code, which is compiled for the same dtype and width.
#include <dimorph/cuda.h>

#include "my_kernel_config.h"
#include "my_kernel_params.h"

namespace DIMORPH_CASE {

void my_kernel(ConstTensor x, Tensor y, float epsilon) noexcept {
  const Params params{x.data(), y.data(), epsilon};
  dimorph::cuda::Config config;
  config.grid.x = static_cast<unsigned>(x.size(0));  // a block for each row
  config.block.x = kThreads;
  DIMORPH_LAUNCH(my_kernel_device, x.device(), config, params);
}

}  // namespace DIMORPH_CASE
