// The case: all the work, with every axis a plain constant. Compiled once for each dtype and width.
#include <dimorph/case.h>

#include "row_sum_config.h"

namespace DIMORPH_CASE {

void row_sum(ConstTensor x, Tensor sums) noexcept {
  for (int64_t row = 0; row < x.size(0); ++row) {
    DType sum = 0;
    for (int i = 0; i < WIDTH; ++i) sum += x.data<DType>()[row * WIDTH + i];
    sums.data<DType>()[row] = sum;
  }
}

}  // namespace DIMORPH_CASE
