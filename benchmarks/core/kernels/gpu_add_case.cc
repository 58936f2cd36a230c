#include <dimorph/cuda.h>

#include "gpu_add.h"
#include "gpu_add_config.h"

namespace DIMORPH_CASE {

void gpu_add(Tensor x, float value) noexcept {
  dimorph::cuda::Config config;
  config.grid.x = static_cast<unsigned>((x.size(0) + 255) / 256);
  config.block.x = 256;
  DIMORPH_LAUNCH(gpu_add_kernel, x.device(), config, (AddParams{x.data<float>(), x.size(0), value}));
}

}  // namespace DIMORPH_CASE
