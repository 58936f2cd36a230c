// The sm90 family's case, on the host: plans and launches the kernels of attention.cu and gpu/merge.cu.
#include <dimorph/cuda.h>

#include "../../gpu/case.h"
#include "../../gpu/contract.h"
#include "../../gpu/launch.h"
#include "../../gpu/plan.h"
#include "../../problem.h"
#include "../config.h"
#include "../encode_maps.h"
#include "../tensor_maps.h"
#include "scheduler_params.h"

namespace DIMORPH_CASE {

void attention(dimorph::attention::Problem problem, dimorph::attention::Launch launch, dimorph::Extra extra) noexcept {
  const int32_t multiprocessors = dimorph::cuda::multiprocessors(launch.device);
  const gpu::Plan plan = plan_for(kConfig, problem, launch, multiprocessors);
  if (plan.grid == 0) return;
  Params params;
  set_partition(params, problem, launch, plan);
  static_cast<sm90::SchedulerParams&>(params) = sm90::scheduler_params(kConfig, problem, plan.partition);
  const int64_t queries = problem.cu_seqlens_q ? launch.tokens : problem.max_qo_len;
  const int64_t keys = problem.cu_seqlens_k ? launch.key_tokens : problem.max_kv_len;
  const sm90::TensorMapLayout q =
      sm90::query_map_layout(kConfig, problem, problem.q_strides, plan.partition.packed_heads, queries);
  const sm90::TensorMapLayout k = sm90::key_map_layout(kConfig, problem, problem.k_strides, HEAD_DIM_QK, keys);
  const sm90::TensorMapLayout v = sm90::key_map_layout(kConfig, problem, problem.v_strides, HEAD_DIM_VO, keys);
  // A tensor map cannot describe a tensor without keys. The kernel then loads nothing and reads no map.
  if (keys > 0 && !encode_maps(params, problem, launch.device, q, k, v)) return;
  // Persistent: one thread block an SM, which takes work tiles until there are no more.
  const int64_t grid = plan.grid < multiprocessors ? plan.grid : multiprocessors;
  launch_kernels(params, launch, plan, grid, kConfig.threads(), kConfig.shared_bytes(), extra);
}

}  // namespace DIMORPH_CASE
