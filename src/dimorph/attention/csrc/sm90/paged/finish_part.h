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
  const int own = work.first(blockIdx.y);
  int32_t &again = pipeline.part_nonfinite[own], &last = pipeline.part_last[own];
  if (careful && !warp_uniform(again)) return;
  store_partial(p, work, softmax, out, warp_row);
  if (nonfinite) atomicOr(&again, 1);
  __threadfence();
  named_barrier_sync(kAllConsumers, kConsumerThreads);
  const int parts = work.last_group - work.first_group + 1;
  if (warp == 0 && threadIdx.x % 32 == 0) {
    int32_t& arrivals = p.schedule.arrivals[work.first_group * gridDim.x + blockIdx.x];
    last = (careful || !again) && atomicAdd(&arrivals, 1) == parts - 1;
    if (last) arrivals = 0;  // for the next launch
    __threadfence();
  }
  named_barrier_sync(kAllConsumers, kConsumerThreads);
  if (!warp_uniform(last)) return;
#pragma unroll 1
  for (int row = work.first_row + warp; row <= work.last_row; row += kConsumerWarps)
    merge_row(p, variant, work.batch, row_at(p, work, row), parts,
              [&](int i) { return partial_place(p, work, row, work.first_group + i, blockIdx.x); });
}

}  // namespace DIMORPH_CASE
