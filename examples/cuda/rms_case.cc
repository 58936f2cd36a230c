// The case, on the host: launches the kernel of rms.cu, which is compiled for the same dtype and width.
#include <dimorph/cuda.h>

#include "rms_config.h"
#include "rms_params.h"

namespace DIMORPH_CASE {

void rms(ConstTensor x, Tensor y, float epsilon) noexcept {
  const RmsParams params{x.data(), y.data(), x.size(0), epsilon};
  dimorph::cuda::Config config;
  config.grid.x = static_cast<unsigned>(x.size(0));
  config.block.x = 128;
  config.programmatic = true;
  DIMORPH_LAUNCH(rms_kernel, x.device(), config, params);
}

}  // namespace DIMORPH_CASE
