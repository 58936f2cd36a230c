// Merges the partial results of a row whose keys were split among thread blocks.
#pragma once
#include <dimorph/attention/math.h>
#include <dimorph/attention/variants.h>
#include <dimorph/ints.h>

#include "contract.h"
#include "epilogue.h"
#include "invariant.h"
#include "ptx.h"
#include "softmax.h"
#include "work_tile.h"

namespace DIMORPH_CASE {

// Merges a row and stores it. A warp calls it together. place(i): where the row of part i lies in the workspace.
// Without softmax the parts are simply added. Reads go to the L2 cache: the parts may have been written by running
// thread blocks. They wait for as few others as they can, because there is little else to do meanwhile.
template <typename F>
__device__ __forceinline__ void merge_row(const Params& p, Variant& variant, int batch, Row at, int parts, F place) {
  const int lane = threadIdx.x % 32;
  const auto state_of = [&](int i) {
    return i < parts ? __ldcg(reinterpret_cast<const float2*>(p.partial_state) + place(i)) : float2{kLowest, 0.f};
  };
  float2 state = state_of(lane);  // of the part of this lane's number
  float max = state.x, sum = 0.f;
  if constexpr (BATCH_INVARIANT) {
    const dm::RowState<float> row = initial_row(p, variant, batch, at);
    max = row.max, sum = row.sum;
  } else {
#pragma unroll 1
    for (int i = lane + 32; i < parts; i += 32) max = fmaxf(max, state_of(i).x);
#pragma unroll
    for (int step = 16; step > 0; step /= 2) max = fmaxf(max, shuffle_xor(max, step));
  }
  constexpr int kLaneDims = (HEAD_DIM_VO + 31) / 32, kAtOnce = kLaneDims > 4 ? 4 : 8;
  float out[kLaneDims] = {};
#pragma unroll 1
  for (int first = 0; first < parts; first += kAtOnce) {
    if (first > 0 && first % 32 == 0) state = state_of(first + lane);
    float x[kAtOnce][kLaneDims];
#pragma unroll
    for (int i = 0; i < kAtOnce; ++i)
#pragma unroll
      for (int j = 0; j < kLaneDims; ++j) {
        const int dim = j * 32 + lane;
        const bool present = first + i < parts && dim < HEAD_DIM_VO;
        x[i][j] = present ? __ldcg(p.partial_out + place(first + i) * HEAD_DIM_VO + dim) : 0.f;
      }
#pragma unroll
    for (int i = 0; i < kAtOnce; ++i) {
      const float part_max = __shfl_sync(0xffffffffu, state.x, (first + i) % 32);
      const float part_sum = __shfl_sync(0xffffffffu, state.y, (first + i) % 32);
      if constexpr (BATCH_INVARIANT) {
        if (first + i >= parts) continue;
        const Join join(max, sum, part_max, part_sum);
#pragma unroll
        for (int j = 0; j < kLaneDims; ++j) out[j] = join(out[j], x[i][j]);
        continue;
      }
      const float factor = Traits::use_softmax ? weight_of(part_max, max, 1.f) : 1.f;
      // Nothing to add, unless the part's logits are NaN: then it has no row max, but the result must be NaN.
      if (first + i >= parts || (factor == 0.f && part_sum == part_sum)) continue;
      sum += part_sum * factor;
#pragma unroll
      for (int j = 0; j < kLaneDims; ++j) out[j] += x[i][j] * factor;
    }
  }

  float lse;
  const float factor = normaliser(p, variant, batch, at, max, sum, lse);
  const int q_row = at.q + (p.cu_seqlens_q ? p.cu_seqlens_q[batch] : 0);
  if (p.lse && lane == 0) p.lse[offset(p.lse_strides, batch, q_row, at.head)] = lse;
  DType* to = static_cast<DType*>(p.out) + offset(p.out_strides, batch, q_row, at.head);
#pragma unroll
  for (int j = 0; j < kLaneDims; ++j) {
    const int dim = j * 32 + lane;
    if (dim < HEAD_DIM_VO)
      to[dim] = static_cast<DType>(
          dm::hooks::output_transform(variant, p, normalised(out[j], factor), batch, at.q, at.head, dim));
  }
}

}  // namespace DIMORPH_CASE
