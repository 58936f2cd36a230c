// Attention over disjoint sets of keys, joined by the log-sum-exp of each: the arithmetic, for host and device code.
//
// With m = max over i of lse_i and w_i = exp(lse_i - m),
//   out = sum of w_i out_i / sum of w_i    and    lse = m + log(sum of w_i)
// (Milakov and Gimelshein 2018, https://arxiv.org/abs/1805.02867, whose normalizers merge in this way).
#pragma once
#include <dimorph/attention/math.h>
#include <dimorph/ints.h>

namespace dimorph {
namespace attention {

// The most parts in arrays of their own: a kernel with device code takes tensors one by one.
constexpr int kMostParts = 8;

// In elements: from token to token, over all leading dimensions, and from head to head.
struct StateStrides {
  int64_t token, head;
};

// Outputs and log-sum-exps: in arrays of their own, or parts of two that are stacked.
struct MergeParams {
  struct Part {
    const void* out;
    const float* lse;
    StateStrides out_strides, lse_strides;
  };
  Part parts[kMostParts];      // only the first one if they are stacked
  int64_t out_step, lse_step;  // of stacked parts: from one to the next, in elements
  bool stacked;
  int32_t count;  // of parts
  void* out;
  float* lse;
  StateStrides out_strides, lse_strides;
  int64_t tokens;
  int32_t heads, head_dim;

  template <typename T>
  DM_HD const T* out_row(int part, int64_t token, int head) const {
    const Part& at = parts[stacked ? 0 : part];
    return static_cast<const T*>(at.out) + part * out_step + token * at.out_strides.token + head * at.out_strides.head;
  }
  DM_HD float lse_of(int part, int64_t token, int head) const {
    const Part& at = parts[stacked ? 0 : part];
    return at.lse[part * lse_step + token * at.lse_strides.token + head * at.lse_strides.head];
  }
};

// The log-sum-exps of one token and head.
struct MergedRow {
  float max, sum;  // sum of exp(lse_i - max); NaN if a log-sum-exp is NaN

  DM_HD MergedRow(const MergeParams& p, int64_t token, int head) : max(-dm::math::infinity), sum(0.f) {
    for (int i = 0; i < p.count; ++i) max = dm::math::max(max, p.lse_of(i, token, head));
    for (int i = 0; i < p.count; ++i) sum += weight(p.lse_of(i, token, head));
  }
  // A part without keys has none, also if no part has keys.
  DM_HD float weight(float lse) const { return lse == -dm::math::infinity ? 0.f : dm::math::exp(lse - max); }
  // Without keys the output is 0.
  DM_HD float factor() const { return sum == 0.f ? 0.f : 1.f / sum; }
  DM_HD float lse() const { return sum == 0.f ? -dm::math::infinity : max + dm::math::log(sum); }
};

// Merges kWidth elements of a row from `first` on. load(from, values) reads them from a part. A part of weight 0 adds
// nothing, NaN and infinity included.
template <typename DType, int kWidth, typename Load>
DM_HD inline void merge_elements(const MergeParams& p, const MergedRow& row, int64_t token, int head, int first,
                                 float (&merged)[kWidth], Load load) {
  for (int j = 0; j < kWidth; ++j) merged[j] = 0.f;
#if defined(__CUDACC__)
#pragma unroll 4  // the loads of several parts are under way at once
#endif
  for (int i = 0; i < p.count; ++i) {
    float values[kWidth];
    load(p.out_row<DType>(i, token, head) + first, values);
    const float weight = row.weight(p.lse_of(i, token, head));
    for (int j = 0; j < kWidth; ++j) merged[j] += weight == 0.f ? 0.f : weight * values[j];
  }
  const float factor = row.factor();
  for (int j = 0; j < kWidth; ++j) merged[j] *= factor;
}

}  // namespace attention
}  // namespace dimorph
