// The entry: checks the arguments, then calls the case for their dtype and width. Compiled once.
#include <dimorph/entry.h>

#include "row_sum_config.h"

// sums[i] = sum of x[i, :]; x: [rows, width], row-major; sums: [rows], of x's dtype.
void row_sum(ConstTensor x, Tensor sums) {
  DIMORPH_CHECK(x.ndim() == 2 && x.contiguous(), "row_sum: argument 'x': expected 2 dimensions, row-major");
  DIMORPH_CHECK(sums.ndim() == 1 && sums.size(0) == x.size(0) && sums.contiguous(),
                "row_sum: argument 'sums': expected shape [%lld], row-major", (long long)x.size(0));
  DIMORPH_CHECK_TYPE(sums.dtype() == x.dtype(), "row_sum: argument 'sums': expected the dtype of 'x'");
  DISPATCH_dtype(x.dtype(), DType, DISPATCH_width(x.size(1), WIDTH, DIMORPH_CALL(row_sum)(x, sums)));
}
DIMORPH_EXPORT(row_sum)
