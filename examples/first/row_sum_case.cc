// The case: all the work, with every axis a plain constant. Compiled once for each dtype and width.
#include "row_sum_config.h"

namespace DIMORPH_CASE {

void row_sum(View<const DType, 2> x, View<DType, 1> sums) noexcept {
  for (int64_t row = 0; row < x.size(0); ++row) {
    DType sum = 0;
    for (int i = 0; i < WIDTH; ++i) sum += x(row, i);
    sums(row) = sum;
  }
}

}  // namespace DIMORPH_CASE
