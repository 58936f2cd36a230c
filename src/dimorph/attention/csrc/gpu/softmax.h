// Logits to attention weights: the variant's transform and mask, and the online softmax of a thread's rows.
//
// A warp computes kRowTiles tiles of 16 rows. Logits and outputs stay in registers, as the fragments in which matrix
// instructions accumulate: of each 16 x 8 tile a thread holds the rows lane / 4 and lane / 4 + 8, and of each the
// columns 2 * (lane % 4) and 2 * (lane % 4) + 1.
#pragma once
#include <dimorph/attention/index.h>
#include <dimorph/attention/math.h>
#include <dimorph/attention/variants.h>
#include <dimorph/ints.h>

#include "contract.h"
#include "head_dims.h"
#include "ptx.h"
#include "work_tile.h"

namespace DIMORPH_CASE {

// The unit of the row max. A weight is a power of 2, so that of log2 saves instructions. But what LogitsTransform
// returns may be as large as floats are, such as a bias that stands for a mask, and times log2(e) infinite: then it is
// the natural one.
constexpr bool kNatural = Traits::use_softmax && Traits::has_logits_transform;

// Factor that takes the logits in a fragment to the unit of the row max. If no hook sees a logit, it contains the
// softmax scale, made positive because masked logits are -inf: the scale's sign is applied to the queries. For scale 0
// it is 1e-30, which makes every finite logit as good as 0.
__device__ __forceinline__ float logit_scale(const Params& p) {
  if constexpr (Traits::has_logits_transform) return 1.f;
  return dm::math::max(dm::math::abs(p.sm_scale), 1e-30f) * dm::math::log2e;
}

// Factor that takes the logits in a fragment to those that LogitsTransform sees.
__device__ __forceinline__ float transform_scale(const Params& p) { return Traits::use_softmax ? p.sm_scale : 1.f; }

// Where a row max starts: finite, so that -inf minus it is -inf and not NaN.
constexpr float kLowest = -3.402823466e38f;
// How far a logit may exceed its row max before the max is raised. Weights then reach 2^8, which loses no precision,
// and after the first keys output and row sum are hardly ever rescaled.
//
// Weights in float16 begin at 2^-25: there the row max is one that lies 7 lower, so that the weights of many small keys
// count, and weights reach 2^15.
constexpr float kLog2 = kNatural ? dm::math::ln2 : 1.f;  // of 2, in the unit of the row max
constexpr float kHeadroom = kFloat8 && !Traits::exact_row_max ? 7 * kLog2 : 0.f;
constexpr float kRescaleThreshold = Traits::exact_row_max ? 0.f : 8 * kLog2 + kHeadroom;

constexpr int kThreadRows = 2 * kRowTiles;  // rows of which a thread holds elements, 8 apart
constexpr int kValueChunks = HEAD_DIM_VO / 8;
// Chunks of output in registers. That of the padding holds no result.
constexpr int kOutputChunks = gpu::padded(HEAD_DIM_VO) / 8;
using LogitsFragment = float[kRowTiles][kTileKeys / 8][4];
using OutputFragment = float[kRowTiles][kOutputChunks][4];

struct OnlineSoftmax {
  float row_max[kThreadRows];
  float row_sum[kThreadRows];  // over the thread's own columns, until reduce_row_sums
};

// The weight of a logit that is `scale` times x in the unit of the row max.
__device__ __forceinline__ float weight_of(float x, float row_max, float scale) {
  if constexpr (!kNatural) return dm::math::exp2(BATCH_INVARIANT ? __fmaf_rn(x, scale, -row_max) : x * scale - row_max);
  // Rounded as it stands: in one instruction with the product that LogitsTransform may end with, the difference would
  // not be 0 where x is the row max.
  return dm::math::exp2(__fsub_rn(x, row_max) * dm::math::log2e);
}

// The thread's row r, counted from the warp's first row.
__device__ __forceinline__ int thread_row(int r) { return r * 8 + static_cast<int>(threadIdx.x % 32) / 4; }
__device__ __forceinline__ int thread_column() { return threadIdx.x % 4 * 2; }
// The column of the output that out[m][n][0] and out[m][n][2] hold is value_step(n) + value_column(), and the next
// elements hold the next one. With values of 8 bits, two chunks hold four columns in a row (sm80/mma_float8.h).
__device__ __forceinline__ constexpr int value_step(int n) { return kFloat8 ? n / 2 * 16 + n % 2 * 2 : n * 8; }
__device__ __forceinline__ int value_column() { return kFloat8 ? threadIdx.x % 4 * 4 : thread_column(); }

// Calls f(m, n, e, r, step) for each logit [m][n][e] of the thread: its row is thread_row(r), its column
// thread_column() + step.
template <typename F>
__device__ __forceinline__ void for_each_logit(F f) {
#pragma unroll
  for (int m = 0; m < kRowTiles; ++m)
#pragma unroll
    for (int n = 0; n < kTileKeys / 8; ++n)
#pragma unroll
      for (int e = 0; e < 4; ++e) f(m, n, e, 2 * m + e / 2, n * 8 + e % 2);
}

__device__ __forceinline__ void find_thread_rows(const Params& p, const WorkTile& work, Row (&rows)[kThreadRows],
                                                 int warp_row) {
#pragma unroll
  for (int r = 0; r < kThreadRows; ++r) rows[r] = row_at(p, work, warp_row + thread_row(r));
}

// The state of the rows before their first key, as RowInit sets it. Where results must not depend on the batch, rows
// begin each part of the keys without it (invariant.h).
__device__ __forceinline__ void init_softmax(const Params& p, const WorkTile& work, Variant& variant,
                                             OnlineSoftmax& softmax, int warp_row) {
#pragma unroll
  for (int r = 0; r < kThreadRows; ++r) {
    dm::RowState<float> row{-dm::math::infinity, 0.f};
    if constexpr (Traits::has_row_init && !BATCH_INVARIANT) {
      const Row at = row_at(p, work, warp_row + thread_row(r));
      if (work.first(blockIdx.y)) dm::hooks::row_init(variant, p, row, work.batch, at.q, at.head);
    }
    softmax.row_max[r] = fmaxf(kLowest, kNatural ? row.max : row.max * dm::math::log2e);
    softmax.row_sum[r] = threadIdx.x % 4 == 0 ? row.sum : 0.f;
  }
}

__device__ __forceinline__ void clear(OutputFragment& out) {
#pragma unroll
  for (int m = 0; m < kRowTiles; ++m)
#pragma unroll
    for (int n = 0; n < kOutputChunks; ++n)
#pragma unroll
      for (int e = 0; e < 4; ++e) out[m][n][e] = 0.f;
}

// Adds up the sums of the four threads that share a row.
__device__ __forceinline__ void reduce_row_sums(OnlineSoftmax& softmax) {
#pragma unroll
  for (int r = 0; r < kThreadRows; ++r) {
    softmax.row_sum[r] += shuffle_xor(softmax.row_sum[r], 1);
    softmax.row_sum[r] += shuffle_xor(softmax.row_sum[r], 2);
  }
}

// Applies LogitsTransform to the logits of the tile of keys that begins at key k0.
__device__ __forceinline__ void transform_logits(const Params& p, const WorkTile& work, Variant& variant,
                                                 LogitsFragment& s, int warp_row, int k0) {
  if constexpr (Traits::has_logits_transform) {
    Row rows[kThreadRows];
    find_thread_rows(p, work, rows, warp_row);
    for_each_logit([&](int m, int n, int e, int r, int step) {
      const dm::Index<1> k{k0 + thread_column(), step, work.kv_len - 1};
      s[m][n][e] = dm::hooks::logits_transform(variant, p, s[m][n][e] * transform_scale(p), work.batch, rows[r].q, k,
                                               rows[r].head, work.kv_head);
    });
  }
}

// Fusing: each logit is transformed where its weight is computed, so that the special functions of the transform run
// among the exponentials. It needs a bound of the results, because the row max can then not be taken from them.
// Whether the variant has what it takes:
constexpr bool kCanFuseTransform = !BATCH_INVARIANT && Traits::has_logits_transform &&
                                   (Traits::use_softmax ? Traits::has_logits_bound : Traits::has_small_transform);

// Whether the transform of these logits may be fused: no result can exceed its row max by more than the threshold, and,
// if the variant has SmallLogitsTransform, that one serves all of them. The same for all lanes of the warp.
__device__ __forceinline__ bool may_fuse_transform(const Params& p, Variant& variant, const OnlineSoftmax& softmax,
                                                   const LogitsFragment& s, const Row (&rows)[kThreadRows]) {
  if constexpr (!kCanFuseTransform) return false;
  float most[kThreadRows] = {};
  for_each_logit([&](int m, int n, int e, int r, int) { most[r] = fmaxf(most[r], fabsf(s[m][n][e])); });
  bool may_fuse = true;
#pragma unroll
  for (int r = 0; r < kThreadRows; ++r) {
    most[r] *= fabsf(transform_scale(p));
    if constexpr (Traits::has_small_transform) may_fuse &= dm::hooks::small_logits(variant, p, most[r]);
    if constexpr (Traits::use_softmax) {
      const float bound = dm::hooks::logits_bound(variant, p, most[r], rows[r].head);
      may_fuse &= bound - softmax.row_max[r] <= kRescaleThreshold;
    }
  }
  return !__any_sync(0xffffffffu, !may_fuse);
}

// The transform of one such logit; its key is k0 + thread_column() + step.
__device__ __forceinline__ float fused_transform(const Params& p, const WorkTile& work, Variant& variant, float logit,
                                                 Row at, int k0, int step) {
  const dm::Index<1> k{k0 + thread_column(), step, work.kv_len - 1};
  const float x = logit * transform_scale(p);
  if constexpr (Traits::has_small_transform)
    return dm::hooks::small_logits_transform(variant, p, x, work.batch, at.q, k, at.head, work.kv_head);
  return dm::hooks::logits_transform(variant, p, x, work.batch, at.q, k, at.head, work.kv_head);
}

// Masks logits of keys that LogitsMask excludes, and of keys past the sequence's last.
__device__ __forceinline__ void mask_logits(const Params& p, const WorkTile& work, Variant& variant, LogitsFragment& s,
                                            int warp_row, int k0) {
  Row rows[kThreadRows];
  find_thread_rows(p, work, rows, warp_row);
  const int last = work.kv_len - 1;
  for_each_logit([&](int m, int n, int e, int r, int step) {
    const dm::Index<1> k{k0 + thread_column(), step, last};
    const bool counts = dm::hooks::logits_mask<bool>(variant, p, work.batch, rows[r].q, k, rows[r].head, work.kv_head);
    if (!counts || k > last) s[m][n][e] = Traits::use_softmax ? -dm::math::infinity : 0.f;
  });
}

// The row max of the thread's own logits.
__device__ __forceinline__ void find_thread_max(float (&max)[kThreadRows], const LogitsFragment& s) {
#pragma unroll
  for (int r = 0; r < kThreadRows; ++r) max[r] = s[r / 2][0][r % 2 * 2];
  for_each_logit([&](int m, int n, int e, int r, int) { max[r] = fmaxf(max[r], s[m][n][e]); });
}

// Whether a logit of the warp exceeds its row max by more than the threshold. `max`: from find_thread_max.
__device__ __forceinline__ bool exceeds_row_max(const OnlineSoftmax& softmax, const float (&max)[kThreadRows],
                                                float scale) {
  if constexpr (!Traits::use_softmax) return false;
  if constexpr (BATCH_INVARIANT) {
    // Whether update_row_max would raise one: rows that it would not are left as they are, whatever the others need.
    bool raised = false;
#pragma unroll
    for (int r = 0; r < kThreadRows; ++r) raised |= __fmaf_rn(max[r], scale, -kHeadroom) > softmax.row_max[r];
    return __any_sync(0xffffffffu, raised);
  }
  float excess = max[0] * scale - softmax.row_max[0];
#pragma unroll
  for (int r = 1; r < kThreadRows; ++r) excess = fmaxf(excess, max[r] * scale - softmax.row_max[r]);
  return __any_sync(0xffffffffu, excess > kRescaleThreshold);
}

// Raises the row max to that of the logits. The output must then be rescaled by `factors`.
__device__ __forceinline__ void update_row_max(OnlineSoftmax& softmax, float (&factors)[kThreadRows],
                                               const float (&max)[kThreadRows], float scale) {
#pragma unroll
  for (int r = 0; r < kThreadRows; ++r) {
    float top = fmaxf(max[r], shuffle_xor(max[r], 1));
    top = fmaxf(top, shuffle_xor(top, 2));
    top = BATCH_INVARIANT ? __fmaf_rn(top, scale, -kHeadroom) : top * scale - kHeadroom;
    top = fmaxf(top, softmax.row_max[r]);
    factors[r] = weight_of(softmax.row_max[r], top, 1.f);
    softmax.row_max[r] = top;
    softmax.row_sum[r] *= factors[r];
  }
}

__device__ __forceinline__ void rescale(OutputFragment& out, const float (&factors)[kThreadRows]) {
#pragma unroll
  for (int m = 0; m < kRowTiles; ++m)
#pragma unroll
    for (int n = 0; n < kOutputChunks; ++n)
#pragma unroll
      for (int e = 0; e < 4; ++e) out[m][n][e] *= factors[2 * m + e / 2];
}

// The weight of logit x of row r.
__device__ __forceinline__ float weight_in(const OnlineSoftmax& softmax, float x, int r, float scale) {
  return Traits::use_softmax ? weight_of(x, softmax.row_max[r], scale) : x;
}

// The same for a result of fused_transform. Its bound holds before it is rounded, too.
__device__ __forceinline__ float fused_weight_in(const OnlineSoftmax& softmax, float x, int r, float scale) {
  if constexpr (!kNatural) return weight_in(softmax, x, r, scale);
  return dm::math::exp2((x - softmax.row_max[r]) * dm::math::log2e);
}

__device__ __forceinline__ void add_to_sum(OnlineSoftmax& softmax, float weight, int r) {
  if constexpr (Traits::use_softmax) softmax.row_sum[r] += weight;
}

// The weights of the tile's keys [16 * i, 16 * i + 16), as an operand of the product with the values.
__device__ __forceinline__ void compute_weights(OnlineSoftmax& softmax, const LogitsFragment& s,
                                                uint32_t (&weights)[kRowTiles][4], int i, float scale) {
#pragma unroll
  for (int m = 0; m < kRowTiles; ++m)
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      const int r = 2 * m + j % 2;
      const float low = weight_in(softmax, s[m][2 * i + j / 2][j % 2 * 2], r, scale);
      const float high = weight_in(softmax, s[m][2 * i + j / 2][j % 2 * 2 + 1], r, scale);
      add_to_sum(softmax, low, r);
      add_to_sum(softmax, high, r);
      weights[m][j] = pack<kBfloat16Weights>(low, high);
    }
}

}  // namespace DIMORPH_CASE
