// What consumers do with the result of a part of the keys: attention_merge joins the parts.
#pragma once
#include "../../gpu/contract.h"
#include "../../gpu/epilogue.h"
#include "../../gpu/softmax.h"
#include "../../gpu/work_tile.h"
#include "../pipeline.h"

namespace DIMORPH_CASE {

__device__ __forceinline__ void finish_part(const Params& p, PipelineStorage&, const WorkTile& work, Variant&,
                                            const OnlineSoftmax& softmax, const OutputFragment& out, int, int warp_row,
                                            bool, bool) {
  store_partial(p, work, softmax, out, warp_row);
}

}  // namespace DIMORPH_CASE
