// The epilogue: from the output accumulated over the keys to the output tensor and the log-sum-exp.
#pragma once
#include <dimorph/attention/math.h>
#include <dimorph/attention/variants.h>
#include <dimorph/ints.h>

#include "contract.h"
#include "ptx.h"
#include "softmax.h"
#include "work_tile.h"

namespace DIMORPH_CASE {

// Factor that normalises a row's output, after RowFinalize, with that of stored values; sets the row's log-sum-exp.
__device__ __forceinline__ float normaliser(const Params& p, Variant& variant, int batch, Row at, float max, float sum,
                                            float& lse) {
  float factor = kFloat8 ? p.v_scale.of(at.head / p.group_size) : 1.f;
  if constexpr (!Traits::use_softmax) {
    lse = __int_as_float(0x7fc00000);  // NaN: without softmax there is no log-sum-exp
    return factor;
  }
  // In natural units a logit may be the lowest float, so a row without keys is known by its sum.
  const bool no_key = max == kLowest && (!kNatural || sum == 0.f);
  dm::RowState<float> row{no_key ? -dm::math::infinity : kNatural ? max : max * dm::math::ln2, sum};
  if constexpr (Traits::has_row_finalize) {
    const float before = row.max;
    dm::hooks::row_finalize(variant, p, row, batch, at.q, at.head);
    factor *= before == row.max ? 1.f : dm::math::exp(before - row.max);
  }
  lse = row.max + dm::math::log(row.sum);
  return row.sum == 0.f ? 0.f : __fdividef(factor, row.sum);
}

// An element of the normalised output. Where results must not depend on the batch it is not -0, because sums to which
// the products of masked keys are added are not.
__device__ __forceinline__ float normalised(float x, float factor) {
  return BATCH_INVARIANT ? __fadd_rn(__fmul_rn(x, factor), 0.f) : x * factor;
}

// Stores output and row state of one part in the workspace, for merge_row.
__device__ __forceinline__ void store_partial(const Params& p, const WorkTile& work, const OnlineSoftmax& softmax,
                                              const OutputFragment& out, int warp_row) {
#pragma unroll
  for (int r = 0; r < kThreadRows; ++r) {
    const int row = warp_row + thread_row(r);
    if (row > work.last_row) continue;
    const int64_t place = partial_place(p, work, row, blockIdx.y, blockIdx.x);
    if (threadIdx.x % 4 == 0) {
      p.partial_state[2 * place] = softmax.row_max[r];
      p.partial_state[2 * place + 1] = softmax.row_sum[r];
    }
#pragma unroll
    for (int n = 0; n < HEAD_DIM_VO / 8; ++n)
      *reinterpret_cast<float2*>(p.partial_out + place * HEAD_DIM_VO + value_step(n) + value_column()) =
          float2{out[r / 2][n][r % 2 * 2], out[r / 2][n][r % 2 * 2 + 1]};
  }
}

// Sets the factors that normalise the thread's rows, and stores the rows' log-sum-exp.
__device__ __forceinline__ void finish_softmax(const Params& p, const WorkTile& work, Variant& variant,
                                               const OnlineSoftmax& softmax, float (&factors)[kThreadRows],
                                               int warp_row) {
#pragma unroll
  for (int r = 0; r < kThreadRows; ++r) {
    const int row = warp_row + thread_row(r);
    const Row at = row_at(p, work, row);
    float lse;
    factors[r] = normaliser(p, variant, work.batch, at, softmax.row_max[r], softmax.row_sum[r], lse);
    if (p.lse && row <= work.last_row && threadIdx.x % 4 == 0)
      p.lse[offset(p.lse_strides, work.batch, work.first_query + at.q, at.head)] = lse;
  }
}

// Normalises the output and applies OutputTransform. Calls store(row, at, pairs) for each of the thread's rows:
// pairs[n] holds the element value_step(n) + value_column() and the one after it.
template <typename F>
__device__ __forceinline__ void store_output(const Params& p, const WorkTile& work, Variant& variant,
                                             const float (&factors)[kThreadRows], const OutputFragment& out,
                                             int warp_row, F store) {
#pragma unroll
  for (int r = 0; r < kThreadRows; ++r) {
    const int row = warp_row + thread_row(r);
    const Row at = row_at(p, work, row);
    uint32_t pairs[kValueChunks];
#pragma unroll
    for (int n = 0; n < kValueChunks; ++n) {
      float x[2];
#pragma unroll
      for (int e = 0; e < 2; ++e)
        x[e] = dm::hooks::output_transform(variant, p, normalised(out[r / 2][n][r % 2 * 2 + e], factors[r]), work.batch,
                                           at.q, at.head, value_step(n) + value_column() + e);
      pairs[n] = pack(x[0], x[1]);
    }
    store(row, at, pairs);
  }
}

// The first output element of a row.
__device__ __forceinline__ DType* output_pointer(const Params& p, const WorkTile& work, Row at) {
  return static_cast<DType*>(p.out) + offset(p.out_strides, work.batch, work.first_query + at.q, at.head);
}

}  // namespace DIMORPH_CASE
