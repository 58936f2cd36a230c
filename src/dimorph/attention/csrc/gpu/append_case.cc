// The case of append on a GPU: launches the kernel for the width of its copies.
#define DIMORPH_OPERATION "append"
#include <dimorph/cuda.h>

#include "append_gpu_config.h"
#include "append_params.h"
#include "debug_checks.h"

namespace DIMORPH_CASE {

namespace gpu = dimorph::attention::gpu;

void append(gpu::AppendParams params, bool wide, dimorph::Device device) noexcept {
  if (!gpu::check_places_on_gpu(params, device, dimorph::cuda::detail::case_sink())) return;
  const int64_t threads = int64_t{params.tokens} << params.lanes_log, block = gpu::kAppendThreads;
  const int64_t blocks = (threads + block - 1) / block;
  // As many as run at once: with more tokens than that, each block takes several.
  const int64_t most = int64_t{dimorph::cuda::multiprocessors(device)} * gpu::kAppendBlocks / 2;
  dimorph::cuda::Config config;
  config.block.x = gpu::kAppendThreads;
  config.grid.x = static_cast<unsigned>(most > 0 && blocks > most ? most : blocks);
  config.grid.y = 2;  // keys and values
  if (wide)
    DIMORPH_LAUNCH(append_wide, device, config, params);
  else
    DIMORPH_LAUNCH(append_narrow, device, config, params);
}

}  // namespace DIMORPH_CASE
