// The case of the GPU, on the host: launches the device code, once for each step.
#include <dimorph/cuda.h>

#include "domain.h"

int64_t DIMORPH_CASE::pass(const Domain& domain, int64_t, dimorph::Device device) noexcept {
  dimorph::cuda::Config config;
  config.grid = {unsigned(domain.width + BLOCK - 1) / BLOCK, unsigned(domain.rows), unsigned(domain.planes)};
  config.block.x = BLOCK;
  return DIMORPH_LAUNCH(advance_cells, device, config, domain) ? 1 : 0;
}
