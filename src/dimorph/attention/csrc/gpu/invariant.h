// Rows whose bits do not depend on what is computed beside them, with BATCH_INVARIANT.
//
// Keys are cut into parts of kPartTiles tiles, from key 0 on, whatever the length of the sequence: a chunk of a prefill
// sees fewer keys than the whole. Each part begins without sums, and parts are joined in one order, the last keys
// first. So it does not matter whether one thread block computes all parts or each has its own. Tiles and parts whose
// keys are all masked leave a row as it is, and so do the steps that a warp takes because another row needs them: row
// max and factors are exact, and no transform is fused, as a vote of the warp decides on that.
#pragma once
#include <dimorph/attention/variants.h>

#include "contract.h"
#include "softmax.h"
#include "work_tile.h"

namespace DIMORPH_CASE {

// A row before its first part, as RowInit sets it.
__device__ __forceinline__ dm::RowState<float> initial_row(const Params& p, Variant& variant, int batch, Row at) {
  dm::RowState<float> row{-dm::math::infinity, 0.f};
  dm::hooks::row_init(variant, p, row, batch, at.q, at.head);
  return {fmaxf(kLowest, kNatural ? row.max : row.max * dm::math::log2e), row.sum};
}

// Joins a part to the state of a row, and then its output, element by element. Every rounding is written out, because
// kernels that join parts in other places must have the same ones.
struct Join {
  float before, part;  // factors of the row's output so far, and of the part's
  bool replaces, adds;

  __device__ __forceinline__ Join(float& max, float& sum, float part_max, float part_sum) : before(1.f), part(1.f) {
    if constexpr (Traits::use_softmax) {
      const float top = fmaxf(max, part_max);
      before = weight_of(max, top, 1.f);
      part = weight_of(part_max, top, 1.f);
      max = top;
    }
    // What has no weight is left out, as it may not be finite. But if logits are NaN there is no max, and the result
    // must be NaN.
    replaces = before == 0.f && sum == sum;
    adds = part != 0.f || part_sum != part_sum;
    sum = (*this)(sum, part_sum);
  }
  __device__ __forceinline__ float operator()(float x, float of_part) const {
    if (!adds) return x;
    const float added = __fmul_rn(of_part, part);
    return replaces ? added : __fmaf_rn(x, before, added);
  }
};

// The rows over the parts so far.
struct Total {
  OnlineSoftmax softmax;
  OutputFragment out;

  // Of a work tile that is a part itself it is that part: another kernel has the state before it.
  __device__ __forceinline__ void init(const Params& p, const WorkTile& work, Variant& variant, int warp_row) {
#pragma unroll
    for (int r = 0; r < kThreadRows; ++r) {
      dm::RowState<float> row{kLowest, 0.f};
      if (!work.is_part(p)) row = initial_row(p, variant, work.batch, row_at(p, work, warp_row + thread_row(r)));
      softmax.row_max[r] = row.max;
      softmax.row_sum[r] = row.sum;
    }
    clear(out);
  }

  // Joins a part, and begins the next one.
  __device__ __forceinline__ void join(OnlineSoftmax& part, OutputFragment& part_out) {
    reduce_row_sums(part);
#pragma unroll
    for (int r = 0; r < kThreadRows; ++r) {
      const Join join(softmax.row_max[r], softmax.row_sum[r], part.row_max[r], part.row_sum[r]);
#pragma unroll
      for (int n = 0; n < kOutputChunks; ++n)
#pragma unroll
        for (int e = 0; e < 2; ++e) {
          float& x = out[r / 2][n][r % 2 * 2 + e];
          x = join(x, part_out[r / 2][n][r % 2 * 2 + e]);
        }
      part.row_max[r] = kLowest;
      part.row_sum[r] = 0.f;
    }
    clear(part_out);
  }

  __device__ __forceinline__ void move_to(OnlineSoftmax& to, OutputFragment& to_out) const {
    to = softmax;
#pragma unroll
    for (int m = 0; m < kRowTiles; ++m)
#pragma unroll
      for (int n = 0; n < kOutputChunks; ++n)
#pragma unroll
        for (int e = 0; e < 4; ++e) to_out[m][n][e] = out[m][n][e];
  }
};

}  // namespace DIMORPH_CASE
