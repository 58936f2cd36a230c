// The sm90 family's case for calls with a cache, on the host: makes schedules, and launches the kernel that follows
// one.
#include <dimorph/cuda.h>

#include "../../gpu/case.h"
#include "../../gpu/contract.h"
#include "../../gpu/launch.h"
#include "../../gpu/schedule.h"
#include "../../gpu/schedule_size.h"
#include "../../problem.h"
#include "../config.h"
#include "../encode_maps.h"
#include "../tensor_maps.h"

namespace DIMORPH_CASE {

// Fills in all but the tensor maps and the variant's parameters; false, with an error in the sink, if the workspace is
// too small.
inline bool describe(Params& params, const dimorph::attention::Problem& problem,
                     const dimorph::attention::Launch& launch, int32_t blocks, dimorph::ErrorSink* sink) {
  const gpu::ScheduleSize size = gpu::schedule_size_of(kConfig, problem, launch.tokens, blocks, BATCH_INVARIANT);
  if (launch.workspace_size < size.all(kConfig.dim_vo)) {
    dimorph::detail::fail(sink, dimorph::ErrorKind::value,
                          "attention: argument 'workspace': expected at least %lld elements, as plan_size says, got "
                          "%lld",
                          static_cast<long long>(size.all(kConfig.dim_vo)),
                          static_cast<long long>(launch.workspace_size));
    return false;
  }
  if (reinterpret_cast<uint64_t>(launch.workspace) % 16 != 0) {
    dimorph::detail::fail(sink, dimorph::ErrorKind::value,
                          "attention: argument 'workspace': expected an address that is a multiple of 16, got %p",
                          static_cast<const void*>(launch.workspace));
    return false;
  }
  static_cast<dimorph::attention::Problem&>(params) = problem;
  static_cast<gpu::Partition&>(params) = size.partition;
  params.schedule =
      gpu::schedule_at(launch.workspace, size.groups, size.lanes, size.most_units, size.most_waves, size.slot_rows);
  params.partial_state = launch.workspace + size.schedule;
  params.partial_out = params.partial_state + 2 * size.slots * size.slot_rows;
  return true;
}

inline int32_t blocks_on(dimorph::Device device) {
  const int32_t multiprocessors = dimorph::cuda::multiprocessors(device);
  return multiprocessors < gpu::kMostBlocks ? multiprocessors : gpu::kMostBlocks;
}

inline bool launch_schedule(const Params& params, dimorph::Device device) {
  dimorph::cuda::Config config;
  config.block.x = gpu::kScheduleThreads;
  config.programmatic = true;
  return DIMORPH_LAUNCH(attention_schedule, device, config, params);
}

void plan(dimorph::attention::Problem problem, dimorph::attention::Launch launch, dimorph::Extra extra) noexcept {
  Params params{};
  if (!describe(params, problem, launch, blocks_on(launch.device), extra.sink)) return;
  if (fill_variant(params, launch, extra)) launch_schedule(params, launch.device);
}

void attention(dimorph::attention::Problem problem, dimorph::attention::Launch launch, bool planned,
               dimorph::Extra extra) noexcept {
  Params params{};
  const int32_t blocks = blocks_on(launch.device);
  if (!describe(params, problem, launch, blocks, extra.sink)) return;
  if (launch.tokens == 0) return;
  if (!fill_variant(params, launch, extra) || !check_scale(params.sm_scale, extra.sink)) return;
  const int64_t queries = problem.cu_seqlens_q ? launch.tokens : problem.max_qo_len;
  const int64_t keys = problem.cu_seqlens_k ? launch.key_tokens : problem.max_kv_len;
  const sm90::TensorMapLayout q =
      sm90::query_map_layout(kConfig, problem, problem.q_strides, params.packed_heads, queries);
  const auto layout = [&](const dimorph::attention::Strides& strides, int dim, sm90::Boxes& boxes) {
    if (!IN_PAGES) return sm90::key_map_layout(kConfig, problem, strides, dim, keys);
    boxes = sm90::page_boxes(kConfig, problem, strides, dim);
    return sm90::page_map_layout(problem, strides, dim, boxes);
  };
  const sm90::TensorMapLayout k = layout(problem.k_strides, HEAD_DIM_QK, params.k_boxes);
  const sm90::TensorMapLayout v = layout(problem.v_strides, HEAD_DIM_VO, params.v_boxes);
  // A tensor map cannot describe a tensor without keys. The kernel then loads nothing and reads no map.
  if ((IN_PAGES ? problem.table.pool_pages : keys) > 0 && !encode_maps(params, problem, launch.device, q, k, v)) return;
  if (!planned && !launch_schedule(params, launch.device)) return;
  dimorph::cuda::Config config;
  config.grid.x = params.schedule.lanes;
  config.grid.y = params.schedule.groups;
  config.block.x = kConfig.threads();
  config.shared_bytes = kConfig.shared_bytes();
  config.programmatic = true;
  DIMORPH_LAUNCH(attention_forward, launch.device, config, params);
}

}  // namespace DIMORPH_CASE
