// The sm90 family's case, on the host: plans and launches the kernels of attention_sm90.cu.
#include <dimorph/cuda.h>

#include "attention_sm90_config.h"

#include <dimorph/attention/variants.h>

#include "launch.h"

#include "problem.h"

#include "gpu/plan.h"

#include "sm90/boxes.h"

#include "sm90/params.h"

namespace DIMORPH_CASE {

void set_extra([[maybe_unused]] Params& params ADDITIONAL_FUNC_PARAMS) { ADDITIONAL_PARAMS_SETTER }

bool encode(const void* data, const dimorph::attention::sm90::Boxes& boxes, dimorph::cuda::TensorMap* map) {
  return dimorph::cuda::encode_tiled({dimorph::data_type<DType>(), const_cast<void*>(data), boxes.rank, boxes.sizes,
                                      boxes.strides, boxes.box, dimorph::cuda::Swizzle::bytes_128},
                                     map);
}

void attention(dimorph::attention::Problem problem, dimorph::attention::Launch launch, dimorph::Extra extra) noexcept {
  namespace gpu = dimorph::attention::gpu;
  namespace sm90 = dimorph::attention::sm90;
  const int32_t multiprocessors = dimorph::cuda::multiprocessors(launch.device);
  gpu::Plan plan = gpu::plan(kConfig, problem, launch.tokens, multiprocessors);
  if (plan.partial_out_size + plan.partial_state_size > launch.workspace_size)
    plan = gpu::plan(kConfig, problem, launch.tokens, 0);  // without splits
  if (plan.grid == 0) return;

  Params params;
  static_cast<dimorph::attention::Problem&>(params) = problem;
  static_cast<gpu::Work&>(params) = plan.work;
  params.partial_out = launch.workspace;
  params.partial_state = launch.workspace + plan.partial_out_size;
  params.items = static_cast<int32_t>(plan.grid);
  const int64_t queries = problem.cu_seqlens_q ? launch.tokens : problem.max_qo_len;
  const int64_t keys = problem.cu_seqlens_k ? launch.key_tokens : problem.max_kv_len;
  const sm90::Boxes q = sm90::query_boxes(kConfig, problem, problem.q_strides, plan.work.pack, queries);
  const sm90::Boxes k = sm90::key_boxes(kConfig, problem, problem.k_strides, HEAD_DIM_QK, keys);
  const sm90::Boxes v = sm90::key_boxes(kConfig, problem, problem.v_strides, HEAD_DIM_VO, keys);
  // Without keys there is nothing to describe, and nothing is copied.
  if (keys > 0 && !(encode(problem.q, q, &params.q_map) && encode(problem.k, k, &params.k_map) &&
                    encode(problem.v, v, &params.v_map)))
    return;
  extra.device = launch.device;
  if (!extra.apply(set_extra, params)) return;

  dimorph::cuda::Config forward;
  forward.grid.x = static_cast<unsigned>(plan.grid < multiprocessors ? plan.grid : multiprocessors);
  forward.block.x = kConfig.threads();
  forward.shared_bytes = kConfig.shared_bytes();
  DIMORPH_LAUNCH(attention_forward, launch.device, forward, params);
  if (plan.merge_grid == 0) return;
  dimorph::cuda::Config merge;
  merge.grid.x = static_cast<unsigned>(plan.merge_grid);
  merge.block.x = gpu::kMergeThreads;
  DIMORPH_LAUNCH(attention_merge, launch.device, merge, params);
}

}  // namespace DIMORPH_CASE
