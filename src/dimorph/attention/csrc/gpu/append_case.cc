// The case of append on a GPU: launches the kernel for the width of its copies.
#include <dimorph/cuda.h>

#include "append_gpu_config.h"
#include "append_params.h"

namespace DIMORPH_CASE {

void append(dimorph::attention::gpu::AppendParams params, bool wide, dimorph::Device device) noexcept {
  const int64_t threads = int64_t{params.tokens} << params.lanes_log;
  dimorph::cuda::Config config;
  config.block.x = dimorph::attention::gpu::kAppendThreads;
  config.grid.x = static_cast<unsigned>((threads + config.block.x - 1) / config.block.x);
  config.grid.y = 2;  // keys and values
  if (wide)
    DIMORPH_LAUNCH(append_wide, device, config, params);
  else
    DIMORPH_LAUNCH(append_narrow, device, config, params);
}

}  // namespace DIMORPH_CASE
