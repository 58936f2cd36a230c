// From a block's sums to its output.
#pragma once
#include <dimorph/attention/math.h>
#include <dimorph/attention/variants.h>
#include <dimorph/ints.h>

#include "block.h"
#include "contract.h"
#include "ptx.h"
#include "softmax.h"

namespace DIMORPH_CASE {

// What a row's output is multiplied with at last, and its log-sum-exp. `max` is in units of log2.
__device__ __forceinline__ float normalisation(const Params& p, Variant& variant, int batch, Row at, float max,
                                               float sum, float& lse) {
  if constexpr (!Traits::use_softmax) {
    lse = __int_as_float(0x7fc00000);  // there is no such sum
    return 1.f;
  }
  dm::RowState<float> row{max == kLowest ? -dm::math::infinity : max * dm::math::ln2, sum};
  float factor = 1.f;
  if constexpr (Traits::has_row_finalize) {
    const float before = row.max;
    dm::hooks::row_finalize(variant, p, row, batch, at.q, at.head);
    factor = before == row.max ? 1.f : dm::math::exp(before - row.max);
  }
  lse = row.max + dm::math::log(row.sum);
  return row.sum == 0.f ? 0.f : __fdividef(factor, row.sum);
}

// The parts' sums, for attention_merge.
__device__ __forceinline__ void store_partial(const Params& p, const Block& block, const Softmax& rows,
                                              const Output& out, int warp_row) {
#pragma unroll
  for (int r = 0; r < kRows; ++r) {
    const int row = warp_row + thread_row(r);
    if (row > block.last_row) continue;
    const Row at = row_at(p, block, row);
    const int64_t place = block.split * p.rows + (p.get_qo_start(block.batch) + at.q) * p.num_qo_heads + at.head;
    if (threadIdx.x % 4 == 0) {
      p.partial_state[2 * place] = rows.max[r];
      p.partial_state[2 * place + 1] = rows.sum[r];
    }
#pragma unroll
    for (int n = 0; n < HEAD_DIM_VO / 8; ++n)
      *reinterpret_cast<float2*>(p.partial_out + place * HEAD_DIM_VO + n * 8 + thread_column()) =
          float2{out[r / 2][n][r % 2 * 2], out[r / 2][n][r % 2 * 2 + 1]};
  }
}

// What the rows' output is multiplied with at last. Stores their log-sum-exp.
__device__ __forceinline__ void normalise(const Params& p, const Block& block, Variant& variant, const Softmax& rows,
                                          float (&factors)[kRows], int warp_row) {
#pragma unroll
  for (int r = 0; r < kRows; ++r) {
    const int row = warp_row + thread_row(r);
    const Row at = row_at(p, block, row);
    float lse;
    factors[r] = normalisation(p, variant, block.batch, at, rows.max[r], rows.sum[r], lse);
    if (p.lse && row <= block.last_row && threadIdx.x % 4 == 0)
      p.lse[offset(p.lse_strides, block.batch, block.first_query + at.q, at.head)] = lse;
  }
}

// Multiplies the output with the factors and transforms it; place(row, at, pairs) stores what the thread has of a row:
// neighbouring elements in pairs, each 8 columns from the one before.
template <typename F>
__device__ __forceinline__ void store_output(const Params& p, const Block& block, Variant& variant,
                                             const float (&factors)[kRows], const Output& out, int warp_row, F place) {
#pragma unroll
  for (int r = 0; r < kRows; ++r) {
    const int row = warp_row + thread_row(r);
    const Row at = row_at(p, block, row);
    uint32_t pairs[kValueChunks];
#pragma unroll
    for (int n = 0; n < kValueChunks; ++n) {
      float x[2];
#pragma unroll
      for (int e = 0; e < 2; ++e)
        x[e] = dm::hooks::output_transform(variant, p, out[r / 2][n][r % 2 * 2 + e] * factors[r], block.batch, at.q,
                                           at.head, n * 8 + thread_column() + e);
      pairs[n] = pack(x[0], x[1]);
    }
    place(row, at, pairs);
  }
}

__device__ __forceinline__ DType* output_of(const Params& p, const Block& block, Row at) {
  return static_cast<DType*>(p.out) + offset(p.out_strides, block.batch, block.first_query + at.q, at.head);
}

}  // namespace DIMORPH_CASE
