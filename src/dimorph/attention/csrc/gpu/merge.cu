// Joins the partial results of rows whose keys were split among thread blocks: those of kernels without a schedule.
#include <dimorph/attention/variants.h>
#include <dimorph/ints.h>

#include "contract.h"
#include "merge_row.h"
#include "partition.h"
#include "work_tile.h"

namespace DIMORPH_CASE {

// A warp computes one row.
extern "C" __global__ void __launch_bounds__(gpu::kMergeThreads)
    attention_merge(const __grid_constant__ Params params) {
  const int index = blockIdx.x * gpu::kMergeRows + threadIdx.x / 32;
  const int per_sequence = params.max_qo_len * params.num_qo_heads;
  const int batch = index / per_sequence, row = index % per_sequence;
  const Row at{row / params.num_qo_heads, row % params.num_qo_heads};
  if (batch >= params.batch_size || at.q >= params.get_qo_len(batch)) return;
  const int64_t place = (params.get_qo_start(batch) + at.q) * params.num_qo_heads + at.head;
  Variant variant = dm::hooks::make<Variant>(params, batch);
  const auto place_of = [&](int i) { return i * params.total_rows + place; };
  if constexpr (BATCH_INVARIANT)  // the last keys first, as a thread block takes them that computes all parts
    merge_row(params, variant, batch, at, params.splits, [&](int i) { return place_of(params.splits - 1 - i); });
  else
    merge_row(params, variant, batch, at, params.splits, place_of);
}

}  // namespace DIMORPH_CASE
