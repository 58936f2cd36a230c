// The sm80 family's case, on the host: plans and launches the kernels of attention_sm80.cu.
#include <dimorph/cuda.h>

#include "attention_sm80_config.h"

#include <dimorph/attention/variants.h>

#include "launch.h"

#include "problem.h"

#include "gpu/plan.h"

#include "sm80/params.h"

namespace DIMORPH_CASE {

void set_extra([[maybe_unused]] Params& params ADDITIONAL_FUNC_PARAMS) { ADDITIONAL_PARAMS_SETTER }

void attention(dimorph::attention::Problem problem, dimorph::attention::Launch launch, dimorph::Extra extra) noexcept {
  namespace gpu = dimorph::attention::gpu;
  namespace sm80 = dimorph::attention::sm80;
  const int32_t arch = dimorph::cuda::arch(launch.device),
                multiprocessors = dimorph::cuda::multiprocessors(launch.device);
  const sm80::Config config = sm80::choose(HEAD_DIM_QK, HEAD_DIM_VO, arch, Traits::has_logits_transform);
  gpu::Plan plan = gpu::plan(config, problem, launch.tokens, multiprocessors);
  if (plan.partial_out_size + plan.partial_state_size > launch.workspace_size)
    plan = gpu::plan(config, problem, launch.tokens, 0);  // without splits
  if (plan.grid == 0) return;

  Params params;
  static_cast<dimorph::attention::Problem&>(params) = problem;
  static_cast<gpu::Work&>(params) = plan.work;
  static_cast<sm80::Steps&>(params) = sm80::steps(config, problem);
  params.partial_out = launch.workspace;
  params.partial_state = launch.workspace + plan.partial_out_size;
  extra.device = launch.device;
  if (!extra.apply(set_extra, params)) return;

  dimorph::cuda::Config forward;
  forward.grid.x = static_cast<unsigned>(plan.grid);
  forward.block.x = plan.threads;
  forward.shared_bytes = plan.shared_bytes;
  DIMORPH_LAUNCH(attention_forward, launch.device, forward, params);
  if (plan.merge_grid == 0) return;
  dimorph::cuda::Config merge;
  merge.grid.x = static_cast<unsigned>(plan.merge_grid);
  merge.block.x = gpu::kMergeThreads;
  DIMORPH_LAUNCH(attention_merge, launch.device, merge, params);
}

}  // namespace DIMORPH_CASE
