// What consumers do with the result of a part of the keys: the last part of a work tile to be finished merges all of
// them.
#pragma once
#include <dimorph/ints.h>

#include "../../gpu/contract.h"
#include "../../gpu/epilogue.h"
#include "../../gpu/merge_row.h"
#include "../../gpu/ptx.h"
#include "../../gpu/softmax.h"
#include "../../gpu/work_tile.h"
#include "../barriers.h"
#include "../pipeline.h"

namespace DIMORPH_CASE {

// All consumer warps call it. `nonfinite`: the warp's output is not finite, in the first pass. Such a part is finished
// in the careful pass, and only there.
__device__ __forceinline__ void finish_part(const Params& p, PipelineStorage& pipeline, const WorkTile& work,
                                            Variant& variant, const OnlineSoftmax& softmax, const OutputFragment& out,
                                            int warp, int warp_row, bool careful, bool nonfinite) {
  auto& again = work.nonfinite(p, pipeline.part_nonfinite, blockIdx.y);
  int32_t& last = pipeline.part_last[work.first(blockIdx.y)];
  if (careful && !warp_uniform(again)) return;
  store_partial(p, work, softmax, out, warp_row);
  if (nonfinite) atomicOr(const_cast<int32_t*>(&again), 1);
  __threadfence();
  named_barrier_sync(kAllConsumers, kConsumerThreads);
  const int parts = work.parts(work.kv_len);
  if (warp == 0 && threadIdx.x % 32 == 0) {
    int32_t& arrivals = work.arrivals(p, blockIdx.x);
    last = (careful || !again) && atomicAdd(&arrivals, 1) == parts - 1;
    if (last) arrivals = 0;  // for the next launch
    if (BATCH_INVARIANT && careful) again = 0;
    __threadfence();
  }
  named_barrier_sync(kAllConsumers, kConsumerThreads);
  if (!warp_uniform(last)) return;
#pragma unroll 1
  for (int row = work.first_row + warp; row <= work.last_row; row += kConsumerWarps)
    merge_row(p, variant, work.batch, row_at(p, work, row), parts,
              [&](int i) { return merged_place(p, work, row, i, parts, blockIdx.x); });
}

}  // namespace DIMORPH_CASE
