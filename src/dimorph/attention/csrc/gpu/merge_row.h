// Merges the partial results of a row whose keys were split among thread blocks.
#pragma once
#include <dimorph/attention/math.h>
#include <dimorph/attention/variants.h>
#include <dimorph/ints.h>

#include "contract.h"
#include "epilogue.h"
#include "ptx.h"
#include "softmax.h"
#include "work_tile.h"

namespace DIMORPH_CASE {

// Merges a row and stores it. A warp calls it together. place(i): where the row of part i lies in the workspace.
// Without softmax the parts are simply added. Reads go to the L2 cache: the parts may have been written by running
// thread blocks.
template <typename F>
__device__ __forceinline__ void merge_row(const Params& p, Variant& variant, int batch, Row at, int parts, F place) {
  const int lane = threadIdx.x % 32;
  float max = kLowest, sum = 0.f;
#pragma unroll 1
  for (int i = lane; i < parts; i += 32) max = fmaxf(max, __ldcg(p.partial_state + 2 * place(i)));
#pragma unroll
  for (int step = 16; step > 0; step /= 2) max = fmaxf(max, shuffle_xor(max, step));
  constexpr int kLaneDims = (HEAD_DIM_VO + 31) / 32;
  float out[kLaneDims] = {};
#pragma unroll 4
  for (int i = 0; i < parts; ++i) {
    const int64_t part = place(i);
    const float2 state = __ldcg(reinterpret_cast<const float2*>(p.partial_state) + part);
    const float factor = Traits::use_softmax ? weight_of(state.x, max, 1.f) : 1.f;
    // Nothing to add, unless the part's logits are NaN: then it has no row max, but the result must be NaN.
    if (factor == 0.f && state.y == state.y) continue;
    sum += state.y * factor;
#pragma unroll
    for (int j = 0; j < kLaneDims; ++j) {
      const int dim = j * 32 + lane;
      if (dim < HEAD_DIM_VO) out[j] += __ldcg(p.partial_out + part * HEAD_DIM_VO + dim) * factor;
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
      to[dim] = static_cast<DType>(dm::hooks::output_transform(variant, p, out[j] * factor, batch, at.q, at.head, dim));
  }
}

}  // namespace DIMORPH_CASE
