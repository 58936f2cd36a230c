// The case of merge_states on the CPU.
#include <dimorph/case.h>
#include <dimorph/parallel.h>

#include "../merge_states.h"
#include "merge_states_config.h"

namespace DIMORPH_CASE {

using dimorph::attention::MergedRow;
using dimorph::attention::MergeParams;

// Elements at a time: sums that fit the registers, for which weights are computed anew.
constexpr int kWidth = 64;

inline void merge_row(const MergeParams& p, int64_t token, int head) {
  const MergedRow row(p, token, head);
  p.lse[token * p.lse_strides.token + head * p.lse_strides.head] = row.lse();
  DType* out = static_cast<DType*>(p.out) + token * p.out_strides.token + head * p.out_strides.head;
  float merged[kWidth];
  const auto merge = [&](int first, int count) {
    dimorph::attention::merge_elements<DType>(p, row, token, head, first, merged,
                                              [&](const DType* from, float (&values)[kWidth]) {
                                                for (int j = 0; j < count; ++j) values[j] = static_cast<float>(from[j]);
                                              });
    for (int j = 0; j < count; ++j) out[first + j] = static_cast<DType>(merged[j]);
  };
  int first = 0;
  for (; first + kWidth <= p.head_dim; first += kWidth) merge(first, kWidth);
  if (first < p.head_dim) merge(first, p.head_dim - first);
}

void merge_states(MergeParams params, bool, dimorph::Device) noexcept {
  // So many rows are a thread's work of some ten microseconds.
  const int64_t grain = 1 + 64 * 1024 / (1 + int64_t{params.count} * (params.head_dim + 16));
  dimorph::parallel_for(
      params.tokens * params.heads,
      [&](int64_t i) { merge_row(params, i / params.heads, static_cast<int>(i % params.heads)); }, grain);
}

}  // namespace DIMORPH_CASE
