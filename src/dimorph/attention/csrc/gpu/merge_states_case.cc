// The case of merge_states on a GPU: launches the kernel for the width of its copies.
#include <dimorph/cuda.h>

#include "merge_states_config.h"
#include "merge_states_params.h"

namespace DIMORPH_CASE {

void merge_states(dimorph::attention::MergeParams params, bool wide, dimorph::Device device) noexcept {
  const int width = wide ? 16 / static_cast<int>(sizeof(DType)) : 1;
  int lanes_log = 0;
  while (lanes_log < 5 && width << lanes_log < params.head_dim) ++lanes_log;
  const int64_t threads = params.tokens * params.heads << lanes_log;
  dimorph::cuda::Config config;
  config.block.x = dimorph::attention::gpu::kMergeStatesThreads;
  config.grid.x = static_cast<unsigned>((threads + config.block.x - 1) / config.block.x);
  if (wide)
    DIMORPH_LAUNCH(merge_states_wide, device, config, params, lanes_log);
  else
    DIMORPH_LAUNCH(merge_states_narrow, device, config, params, lanes_log);
}

}  // namespace DIMORPH_CASE
