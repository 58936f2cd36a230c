// What the cases of all GPU families do on the host: plan, fill in the parameters, launch.
#pragma once
#include <dimorph/cuda.h>

#include "../param_checks.h"
#include "../problem.h"
#include "contract.h"
#include "debug_checks.h"
#include "launch.h"
#include "partition.h"
#include "plan.h"

namespace DIMORPH_CASE {

// The plan for the launch. It splits no keys if the workspace is too small for their partial results.
template <typename Config>
gpu::Plan plan_for(const Config& config, const dimorph::attention::Problem& problem,
                   const dimorph::attention::Launch& launch, int multiprocessors) {
  const gpu::Plan plan = gpu::plan(config, problem, launch.tokens, multiprocessors, BATCH_INVARIANT);
  const bool fits = plan.partial_out_size + plan.partial_state_size <= launch.workspace_size;
  return fits ? plan : gpu::plan(config, problem, launch.tokens, 0, BATCH_INVARIANT);
}

inline void set_partition(Params& params, const dimorph::attention::Problem& problem,
                          const dimorph::attention::Launch& launch, const gpu::Plan& plan) {
  static_cast<dimorph::attention::Problem&>(params) = problem;
  static_cast<gpu::Partition&>(params) = plan.partition;
  params.partial_out = launch.workspace;
  params.partial_state = launch.workspace + plan.partial_out_size;
}

// Logits that no hook sees are multiplied by scale and log2(e) in the instruction that subtracts the row max, which is
// rounded: all weights of a row have the same factor, which is near 1 for logits up to 2^26. With q.k of 64 that is a
// scale of 2^20; far beyond, weights would be infinite.
constexpr float kMostScale = 1 << 20;

inline bool check_scale(float scale, dimorph::ErrorSink* sink) {
  if (!Traits::use_softmax || Traits::has_logits_transform || (scale >= -kMostScale && scale <= kMostScale))
    return true;
  dimorph::detail::fail(sink, dimorph::ErrorKind::value,
                        "attention: argument 'scale': expected a number from %.0f to %.0f on a GPU, got %g",
                        static_cast<double>(-kMostScale), static_cast<double>(kMostScale), static_cast<double>(scale));
  return false;
}

// Fills in the variant's parameters, whose tensors must lie on the launch's device, after the checks of debug_checks.h.
// An error is left in the call's
// sink.
inline bool fill_variant(Params& params, const dimorph::attention::Launch& launch, dimorph::Extra extra) {
  if (!gpu::check_lengths_on_gpu(params, launch, PAGED ? "cu_seqlens" : "cu_seqlens_k", extra.sink)) return false;
  dimorph::attention::ParamChecks checks(params, {launch.tokens, launch.key_tokens}, launch.device, extra.sink);
  return checks.fill<Variant>(params, extra, HEAD_DIM_VO);
}

// Fills in the variant's parameters and launches the kernels. An error is left in the call's sink.
inline void launch_kernels(Params& params, const dimorph::attention::Launch& launch, const gpu::Plan& plan,
                           int64_t grid, int threads, int shared_bytes, dimorph::Extra extra) {
  if (!fill_variant(params, launch, extra) || !check_scale(params.sm_scale, extra.sink)) return;
  constexpr int64_t kMostBlocks = 0x7fffffff;
  if (grid > kMostBlocks || plan.merge_grid > kMostBlocks) {
    dimorph::detail::fail(dimorph::cuda::detail::case_sink(), dimorph::ErrorKind::value,
                          "attention: expected a problem of at most %lld thread blocks, got one of %lld; of ragged "
                          "sequences, give the length of the longest as 'max_seqlen_q'",
                          static_cast<long long>(kMostBlocks), static_cast<long long>(grid));
    return;
  }
  dimorph::cuda::Config forward;
  forward.grid.x = static_cast<unsigned>(grid);
  forward.block.x = threads;
  forward.shared_bytes = shared_bytes;
  DIMORPH_LAUNCH(attention_forward, launch.device, forward, params);
  if (plan.merge_grid == 0) return;
  dimorph::cuda::Config merge;
  merge.grid.x = static_cast<unsigned>(plan.merge_grid);
  merge.block.x = gpu::kMergeThreads;
  DIMORPH_LAUNCH(attention_merge, launch.device, merge, params);
}

}  // namespace DIMORPH_CASE
