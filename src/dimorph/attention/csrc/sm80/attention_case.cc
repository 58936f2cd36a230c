// The sm80 family's case, on the host: plans and launches the kernels of attention_sm80.cu.
#include <dimorph/cuda.h>

#include "../gpu/case.h"
#include "../gpu/contract.h"
#include "../gpu/launch.h"
#include "../gpu/plan.h"
#include "../problem.h"
#include "config.h"
#include "order.h"
#include "steps.h"

namespace DIMORPH_CASE {

void attention(dimorph::attention::Problem problem, dimorph::attention::Launch launch, dimorph::Extra extra) noexcept {
  const int32_t arch = dimorph::cuda::arch(launch.device);
  const sm80::Config config = sm80::choose(HEAD_DIM_QK, HEAD_DIM_VO, arch, Traits::has_logits_transform);
  const int multiprocessors = dimorph::cuda::multiprocessors(launch.device);
  const gpu::Plan plan = plan_for(config, problem, launch, multiprocessors);
  if (plan.grid == 0) return;
  Params params;
  set_work(params, problem, launch, plan);
  static_cast<sm80::Steps&>(params) = sm80::steps(config, problem);
  static_cast<sm80::Order&>(params) = sm80::order(config, plan.work, problem.batch_size, multiprocessors);
  launch_kernels(params, launch, plan, plan.grid, config.threads(), config.shared_bytes(), extra);
}

}  // namespace DIMORPH_CASE
