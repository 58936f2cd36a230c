// Joins the partial results of rows whose keys were split among thread blocks.
#include <dimorph/attention/math.h>
#include <dimorph/attention/variants.h>
#include <dimorph/ints.h>

#include "contract.h"
#include "epilogue.h"
#include "partition.h"
#include "softmax.h"
#include "work_tile.h"

namespace DIMORPH_CASE {

// A warp computes one row. Without softmax the parts are simply added.
extern "C" __global__ void __launch_bounds__(gpu::kMergeThreads)
    attention_merge(const __grid_constant__ Params params) {
  const int index = blockIdx.x * gpu::kMergeRows + threadIdx.x / 32;
  const int per_sequence = params.max_qo_len * params.num_qo_heads;
  const int batch = index / per_sequence, row = index % per_sequence;
  const Row at{row / params.num_qo_heads, row % params.num_qo_heads};
  if (batch >= params.batch_size || at.q >= params.get_qo_len(batch)) return;
  const int64_t place = (params.get_qo_start(batch) + at.q) * params.num_qo_heads + at.head;

  float max = kLowest, sum = 0.f;
#pragma unroll 1
  for (int i = 0; i < params.splits; ++i) max = fmaxf(max, params.partial_state[2 * (i * params.total_rows + place)]);
  constexpr int kLaneDims = (HEAD_DIM_VO + 31) / 32;
  float out[kLaneDims] = {};
#pragma unroll 1
  for (int i = 0; i < params.splits; ++i) {
    const int64_t part = i * params.total_rows + place;
    const float factor = Traits::use_softmax ? weight_of(params.partial_state[2 * part], max, 1.f) : 1.f;
    const float part_sum = params.partial_state[2 * part + 1];
    // Nothing to add, unless the part's logits are NaN: then it has no row max, but the result must be NaN.
    if (factor == 0.f && part_sum == part_sum) continue;
    sum += part_sum * factor;
#pragma unroll
    for (int j = 0; j < kLaneDims; ++j) {
      const int dim = j * 32 + threadIdx.x % 32;
      if (dim < HEAD_DIM_VO) out[j] += params.partial_out[part * HEAD_DIM_VO + dim] * factor;
    }
  }

  Variant variant = dm::hooks::make<Variant>(params, batch);
  float lse;
  const float factor = normaliser(params, variant, batch, at, max, sum, lse);
  const int64_t q_row = at.q + (params.cu_seqlens_q ? params.cu_seqlens_q[batch] : 0);
  if (params.lse && threadIdx.x % 32 == 0)
    params.lse[batch * params.lse_strides.batch + q_row * params.lse_strides.row + at.head * params.lse_strides.head] =
        lse;
  DType* to = static_cast<DType*>(params.out) + batch * params.out_strides.batch + q_row * params.out_strides.row +
              at.head * params.out_strides.head;
#pragma unroll
  for (int j = 0; j < kLaneDims; ++j) {
    const int dim = j * 32 + threadIdx.x % 32;
    if (dim < HEAD_DIM_VO)
      to[dim] =
          static_cast<DType>(dm::hooks::output_transform(variant, params, out[j] * factor, batch, at.q, at.head, dim));
  }
}

}  // namespace DIMORPH_CASE
