// The case of the GPU, on the host: launches the device code, once for each step.
#include <dimorph/cuda.h>

#include "domain.h"

namespace DIMORPH_CASE {

bool advance(Tensor first, Tensor second, ConstTensor cells, double x, double y, double z, int64_t steps,
             Extra extra) noexcept {
  Params params{};
  if (!extra.fill(params)) return false;
  Domain step = domain(first, second, cells, {x, y, z}, params);
  dimorph::cuda::Config config;
  config.grid.x = static_cast<unsigned>((step.width + BLOCK - 1) / BLOCK);
  config.grid.y = static_cast<unsigned>(step.rows);
  config.grid.z = static_cast<unsigned>(step.planes);
  config.block.x = BLOCK;
  for (int64_t i = 0; i < steps; ++i, step.swap())
    if (!DIMORPH_LAUNCH(advance_cells, first.device(), config, step)) return false;
  return steps % 2 == 1;
}

}  // namespace DIMORPH_CASE
