// Attention sinks as learned logits (gpt-oss, https://arxiv.org/abs/2508.10925): the softmax of each row has one more
// term, exp(sinks[head]), which has no value.
// Additional params: float32 tensor sinks [query heads].
#pragma once
#include "../variants.h"

namespace dm {

template <typename ParamsT>
struct Sinks {
  static constexpr bool exact_row_max = false;

  template <typename T, typename QIdx>
  DM_HD void RowFinalize(const ParamsT& params, RowState<T>& row, int, QIdx, int qo_head_idx) {
    const T sink = params.sinks[qo_head_idx];
    const T max = math::max(row.max, sink);
    // The side that is the maximum has factor 1, also if both are -inf, whose difference would be NaN.
    row.sum = row.sum * math::select(row.max == max, T(1.f), math::exp(row.max - max)) +
              math::select(sink == max, T(1.f), math::exp(sink - max));
    row.max = max;
  }
};

}  // namespace dm
