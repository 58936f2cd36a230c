// Make the log-sum-exp show the row max that RowFinalize sees. No additional params.
#pragma once
#include <dimorph/attention/variants.h>

template <typename ParamsT>
struct ExactRowMax {
  template <typename T, typename QIdx>
  DM_HD void RowFinalize(const ParamsT&, dm::RowState<T>& row, int, QIdx, int) {
    row.sum = T(1.f);
  }
};

template <typename ParamsT>
struct AnyRowMax : ExactRowMax<ParamsT> {
  static constexpr bool exact_row_max = false;
};
