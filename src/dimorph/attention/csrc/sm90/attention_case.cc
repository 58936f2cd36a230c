// The sm90 family's case, on the host: plans and launches the kernels of attention_sm90.cu.
#include <dimorph/cuda.h>

#include "../gpu/case.h"
#include "../gpu/contract.h"
#include "../gpu/launch.h"
#include "../gpu/plan.h"
#include "../problem.h"
#include "boxes.h"
#include "config.h"
#include "order.h"

namespace DIMORPH_CASE {

bool encode(const void* data, const sm90::Boxes& boxes, dimorph::Device device,
            dimorph::cuda::TensorMap* map) {
  return dimorph::cuda::encode_tiled({dimorph::data_type<DType>(), const_cast<void*>(data), boxes.rank, boxes.sizes,
                                      boxes.strides, boxes.box, dimorph::cuda::Swizzle::bytes_128},
                                     device, map);
}

void attention(dimorph::attention::Problem problem, dimorph::attention::Launch launch, dimorph::Extra extra) noexcept {
  const int32_t multiprocessors = dimorph::cuda::multiprocessors(launch.device);
  const gpu::Plan plan = plan_for(kConfig, problem, launch, multiprocessors);
  if (plan.grid == 0) return;
  Params params;
  set_work(params, problem, launch, plan);
  static_cast<sm90::Order&>(params) = sm90::order(kConfig, problem, plan.work);
  const int64_t queries = problem.cu_seqlens_q ? launch.tokens : problem.max_qo_len;
  const int64_t keys = problem.cu_seqlens_k ? launch.key_tokens : problem.max_kv_len;
  const sm90::Boxes q = sm90::query_boxes(kConfig, problem, problem.q_strides, plan.work.pack, queries);
  const sm90::Boxes k = sm90::key_boxes(kConfig, problem, problem.k_strides, HEAD_DIM_QK, keys);
  const sm90::Boxes v = sm90::key_boxes(kConfig, problem, problem.v_strides, HEAD_DIM_VO, keys);
  // Without keys there is nothing to describe, and nothing is copied.
  if (keys > 0 &&
      !(encode(problem.q, q, launch.device, &params.q_map) && encode(problem.k, k, launch.device, &params.k_map) &&
        encode(problem.v, v, launch.device, &params.v_map)))
    return;
  const int64_t grid = plan.grid < multiprocessors ? plan.grid : multiprocessors;
  launch_kernels(params, launch, plan, grid, kConfig.threads(), kConfig.shared_bytes(), extra);
}

}  // namespace DIMORPH_CASE
