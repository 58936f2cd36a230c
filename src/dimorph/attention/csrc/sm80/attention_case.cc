// The sm80 family's case, on the host: plans and launches the kernels of attention.cu and gpu/merge.cu.
#include <dimorph/cuda.h>

#include "../gpu/case.h"
#include "../gpu/contract.h"
#include "../gpu/launch.h"
#include "../gpu/plan.h"
#include "../problem.h"
#include "config.h"
#include "copy_strides.h"
#include "scheduler_params.h"

namespace DIMORPH_CASE {

void attention(dimorph::attention::Problem problem, dimorph::attention::Launch launch, dimorph::Extra extra) noexcept {
  const int32_t arch = dimorph::cuda::arch(launch.device);
  const sm80::Config config =
      sm80::choose_config(HEAD_DIM_QK, HEAD_DIM_VO, arch, Traits::has_logits_transform, kStoredIn8Bits, FEW_ROWS);
  const int multiprocessors = dimorph::cuda::multiprocessors(launch.device);
  const gpu::Plan plan = plan_for(config, problem, launch, multiprocessors);
  if (plan.grid == 0) return;
  Params params;
  set_partition(params, problem, launch, plan);
  static_cast<sm80::CopyStrides&>(params) = sm80::copy_strides(config, problem);
  static_cast<sm80::SchedulerParams&>(params) =
      sm80::scheduler_params(config, plan.partition, problem.batch_size, multiprocessors);
  launch_kernels(params, launch, plan, plan.grid, config.threads(), config.shared_bytes(), extra);
}

}  // namespace DIMORPH_CASE
