// Logits to weights: the variant's transform and mask, and the running softmax of a thread's rows. A warp owns kM tiles
// of 16 rows, in the registers that matrix instructions leave them in.
#pragma once
#include <dimorph/attention/index.h>
#include <dimorph/attention/math.h>
#include <dimorph/attention/variants.h>
#include <dimorph/ints.h>

#include "block.h"
#include "contract.h"
#include "ptx.h"

namespace DIMORPH_CASE {

// Logits are multiplied with this (and log2(e)) where no hook is to see them: positive, because masked ones are -inf.
// The sign is the queries' then; as good as 0 serves for 0.
__device__ __forceinline__ float logit_unit(const Params& p) {
  if constexpr (Traits::has_logits_transform) return dm::math::log2e;
  return dm::math::max(dm::math::abs(p.sm_scale), 1e-30f) * dm::math::log2e;
}

// What transforms see is multiplied with this.
__device__ __forceinline__ float logit_scale(const Params& p) { return Traits::use_softmax ? p.sm_scale : 1.f; }

// Where a maximum starts: finite, so that -inf minus it is -inf and not NaN.
constexpr float kLowest = -3.402823466e38f;
// A row's maximum may fall behind by this much, in units of log2: its weights then reach 2^8, which loses nothing, and
// output and sum are rescaled hardly ever after the first keys. A hook that sees the maximum sees the true one.
constexpr float kSlack = Traits::has_row_finalize ? 0.f : 8.f;

constexpr int kRows = 2 * kM;  // rows of which a thread holds elements: 8 apart
constexpr int kValueChunks = HEAD_DIM_VO / 8;
using Logits = float[kM][kKeys / 8][4];  // a thread's elements: rows (l / 4, l / 4 + 8), columns 2 (l % 4) + (0, 1)
using Output = float[kM][HEAD_DIM_VO / 8][4];

struct Softmax {
  float max[kRows];  // units of log2
  float sum[kRows];  // of the thread's own columns
};

// The thread's row number r counts from the warp's first.
__device__ __forceinline__ int thread_row(int r) { return r * 8 + static_cast<int>(threadIdx.x % 32) / 4; }
__device__ __forceinline__ int thread_column() { return threadIdx.x % 4 * 2; }

// Calls f(m, n, e, row number, step) for each logit of the thread; its column is thread_column() + step.
template <typename F>
__device__ __forceinline__ void for_each_logit(F f) {
#pragma unroll
  for (int m = 0; m < kM; ++m)
#pragma unroll
    for (int n = 0; n < kKeys / 8; ++n)
#pragma unroll
      for (int e = 0; e < 4; ++e) f(m, n, e, 2 * m + e / 2, n * 8 + e % 2);
}

__device__ __forceinline__ void find_rows(const Params& p, const Block& block, Row (&rows)[kRows], int warp_row) {
#pragma unroll
  for (int r = 0; r < kRows; ++r) rows[r] = row_at(p, block, warp_row + thread_row(r));
}

// Rows before their first key, as the variant starts them.
__device__ __forceinline__ void start_rows(const Params& p, const Block& block, Variant& variant, Softmax& rows,
                                           int warp_row) {
#pragma unroll
  for (int r = 0; r < kRows; ++r) {
    dm::RowState<float> row{-dm::math::infinity, 0.f};
    if constexpr (Traits::has_row_init) {
      const Row at = row_at(p, block, warp_row + thread_row(r));
      if (block.split == 0) dm::hooks::row_init(variant, p, row, block.batch, at.q, at.head);
    }
    rows.max[r] = fmaxf(kLowest, row.max * dm::math::log2e);
    rows.sum[r] = threadIdx.x % 4 == 0 ? row.sum : 0.f;
  }
}

__device__ __forceinline__ void clear(Output& out) {
#pragma unroll
  for (int m = 0; m < kM; ++m)
#pragma unroll
    for (int n = 0; n < HEAD_DIM_VO / 8; ++n)
#pragma unroll
      for (int e = 0; e < 4; ++e) out[m][n][e] = 0.f;
}

// Adds up the sums of the four threads that share a row.
__device__ __forceinline__ void finish_sums(Softmax& rows) {
#pragma unroll
  for (int r = 0; r < kRows; ++r) {
    rows.sum[r] += shuffle_xor(rows.sum[r], 1);
    rows.sum[r] += shuffle_xor(rows.sum[r], 2);
  }
}

// The variant's transform of the logits of the keys from k0 on.
__device__ __forceinline__ void transform_logits(const Params& p, const Block& block, Variant& variant, Logits& s,
                                                 int warp_row, int k0) {
  if constexpr (Traits::has_logits_transform) {
    Row rows[kRows];
    find_rows(p, block, rows, warp_row);
    for_each_logit([&](int m, int n, int e, int r, int step) {
      const dm::Index<1> k{k0 + thread_column(), step, block.kv_len - 1};
      s[m][n][e] = dm::hooks::logits_transform(variant, p, s[m][n][e] * logit_scale(p), block.batch, rows[r].q, k,
                                               rows[r].head, block.kv_head);
    });
  }
}

// Whether there are logits that are transformed without a look at the results, each of them when it is weighed.
constexpr bool kForesees =
    Traits::has_logits_transform && (Traits::use_softmax ? Traits::has_logits_bound : Traits::has_small_transform);

// Whether the logits are such: no row's maximum can be outgrown by what comes out, and they are small, if the variant
// has a faster way then.
__device__ __forceinline__ bool foresees(const Params& p, Variant& variant, const Softmax& rows, const Logits& s,
                                         const Row (&at)[kRows]) {
  if constexpr (!kForesees) return false;
  float most[kRows] = {};
  for_each_logit([&](int m, int n, int e, int r, int) { most[r] = fmaxf(most[r], fabsf(s[m][n][e])); });
  bool foreseen = true;
#pragma unroll
  for (int r = 0; r < kRows; ++r) {
    most[r] *= fabsf(logit_scale(p));
    if constexpr (Traits::has_small_transform) foreseen &= dm::hooks::small_logits(variant, p, most[r]);
    if constexpr (Traits::use_softmax) {
      const float bound = dm::hooks::logits_bound(variant, p, most[r], at[r].head) * dm::math::log2e;
      foreseen &= bound - rows.max[r] <= kSlack;
    }
  }
  return !__any_sync(0xffffffffu, !foreseen);
}

// The transform of one of them; its key is k0 + thread_column() + step.
__device__ __forceinline__ float transform_foreseen(const Params& p, const Block& block, Variant& variant, float logit,
                                                    Row at, int k0, int step) {
  const dm::Index<1> k{k0 + thread_column(), step, block.kv_len - 1};
  const float x = logit * logit_scale(p);
  if constexpr (Traits::has_small_transform)
    return dm::hooks::small_logits_transform(variant, p, x, block.batch, at.q, k, at.head, block.kv_head);
  return dm::hooks::logits_transform(variant, p, x, block.batch, at.q, k, at.head, block.kv_head);
}

__device__ __forceinline__ void mask_logits(const Params& p, const Block& block, Variant& variant, Logits& s,
                                            int warp_row, int k0) {
  Row rows[kRows];
  find_rows(p, block, rows, warp_row);
  const int last = block.kv_len - 1;
  for_each_logit([&](int m, int n, int e, int r, int step) {
    const dm::Index<1> k{k0 + thread_column(), step, last};
    const bool counts =
        dm::hooks::logits_mask<bool>(variant, p, block.batch, rows[r].q, k, rows[r].head, block.kv_head);
    if (!counts || k > last) s[m][n][e] = Traits::use_softmax ? -dm::math::infinity : 0.f;
  });
}

__device__ __forceinline__ void find_maxima(float (&max)[kRows], const Logits& s) {
#pragma unroll
  for (int r = 0; r < kRows; ++r) max[r] = s[r / 2][0][r % 2 * 2];
  for_each_logit([&](int m, int n, int e, int r, int) { max[r] = fmaxf(max[r], s[m][n][e]); });
}

// Whether a logit of the warp has outgrown its row's maximum. `max` holds the thread's own of the tile.
__device__ __forceinline__ bool outgrown(const Softmax& rows, const float (&max)[kRows], float unit) {
  if constexpr (!Traits::use_softmax) return false;
  float excess = max[0] * unit - rows.max[0];
#pragma unroll
  for (int r = 1; r < kRows; ++r) excess = fmaxf(excess, max[r] * unit - rows.max[r]);
  return __any_sync(0xffffffffu, excess > kSlack);
}

// Raises the rows' maxima to those of the logits. The output is then to be rescaled by the factors.
__device__ __forceinline__ void raise_maxima(Softmax& rows, float (&factors)[kRows], const float (&max)[kRows],
                                             float unit) {
#pragma unroll
  for (int r = 0; r < kRows; ++r) {
    float top = fmaxf(max[r], shuffle_xor(max[r], 1));
    top = fmaxf(fmaxf(top, shuffle_xor(top, 2)) * unit, rows.max[r]);
    factors[r] = dm::math::exp2(rows.max[r] - top);
    rows.max[r] = top;
    rows.sum[r] *= factors[r];
  }
}

__device__ __forceinline__ void rescale(Output& out, const float (&factors)[kRows]) {
#pragma unroll
  for (int m = 0; m < kM; ++m)
#pragma unroll
    for (int n = 0; n < HEAD_DIM_VO / 8; ++n)
#pragma unroll
      for (int e = 0; e < 4; ++e) out[m][n][e] *= factors[2 * m + e / 2];
}

// What a logit of the row r weighs.
__device__ __forceinline__ float weight(const Softmax& rows, float x, int r, float unit) {
  return Traits::use_softmax ? dm::math::exp2(x * unit - rows.max[r]) : x;
}

// The weights of 16 keys, the i-th of the tile, as an operand of the product with the values.
__device__ __forceinline__ void weigh(Softmax& rows, const Logits& s, uint32_t (&weights)[kM][4], int i, float unit) {
#pragma unroll
  for (int m = 0; m < kM; ++m)
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      const int r = 2 * m + j % 2;
      const float low = weight(rows, s[m][2 * i + j / 2][j % 2 * 2], r, unit);
      const float high = weight(rows, s[m][2 * i + j / 2][j % 2 * 2 + 1], r, unit);
      if constexpr (Traits::use_softmax) {
        rows.sum[r] += low;
        rows.sum[r] += high;
      }
      weights[m][j] = pack(low, high);
    }
}

}  // namespace DIMORPH_CASE
