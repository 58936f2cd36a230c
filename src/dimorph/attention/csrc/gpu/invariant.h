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

// The rows over the parts before the current one. They lie in local memory, as there are no registers for them beside
// the current part, and are read and written only between parts.
class Total {
 public:
  __device__ static __forceinline__ void clear_rows(OnlineSoftmax& softmax) {
#pragma unroll
    for (int r = 0; r < kThreadRows; ++r) {
      softmax.row_max[r] = kLowest;
      softmax.row_sum[r] = 0.f;
    }
  }

  // Joins a part, and begins the next one.
  __device__ __forceinline__ void join(const Params& p, const WorkTile& work, Variant& variant, OnlineSoftmax& softmax,
                                       OutputFragment& out, int warp_row) {
    Rows& rows = in_memory();
    add(p, work, variant, softmax, out, warp_row, [&](int r, int n, int e, float x) {
      rows.out[r][n][e] = x;
      out[r / 2][n][r % 2 * 2 + e] = 0.f;
    });
#pragma unroll
    for (int r = 0; r < kThreadRows; ++r) {
      rows.max[r] = softmax.row_max[r];
      rows.sum[r] = softmax.row_sum[r];
    }
    clear_rows(softmax);
    begun_ = true;
  }

  // Joins the last part. The result takes its place.
  __device__ __forceinline__ void finish(const Params& p, const WorkTile& work, Variant& variant,
                                         OnlineSoftmax& softmax, OutputFragment& out, int warp_row) {
    add(p, work, variant, softmax, out, warp_row,
        [&](int r, int n, int e, float x) { out[r / 2][n][r % 2 * 2 + e] = x; });
  }

 private:
  struct Rows {
    float max[kThreadRows], sum[kThreadRows];
    float out[kThreadRows][kOutputChunks][2];
  };
  Rows rows_;
  bool begun_ = false;

  // The compiler, which does not know where the pointer goes, keeps nothing in registers.
  __device__ __forceinline__ Rows& in_memory() {
    Rows* rows = &rows_;
    asm volatile("" : "+l"(rows)::"memory");
    return *rows;
  }

  // Joins a part: sets its row state to that of all, and calls store(r, n, e, x) for each output element.
  template <typename F>
  __device__ __forceinline__ void add(const Params& p, const WorkTile& work, Variant& variant, OnlineSoftmax& softmax,
                                      const OutputFragment& out, int warp_row, F store) {
    const Rows& rows = in_memory();
    reduce_row_sums(softmax);
#pragma unroll
    for (int r = 0; r < kThreadRows; ++r) {
      // A work tile that is a part itself begins with nothing: who joins the parts adds what RowInit sets.
      dm::RowState<float> row{kLowest, 0.f};
      if (begun_)
        row = {rows.max[r], rows.sum[r]};
      else if (!work.is_part(p))
        row = initial_row(p, variant, work.batch, row_at(p, work, warp_row + thread_row(r)));
      const Join join(row.max, row.sum, softmax.row_max[r], softmax.row_sum[r]);
#pragma unroll
      for (int n = 0; n < kOutputChunks; ++n)
#pragma unroll
        for (int e = 0; e < 2; ++e)
          store(r, n, e, join(begun_ ? rows.out[r][n][e] : 0.f, out[r / 2][n][r % 2 * 2 + e]));
      softmax.row_max[r] = row.max;
      softmax.row_sum[r] = row.sum;
    }
  }
};

}  // namespace DIMORPH_CASE
