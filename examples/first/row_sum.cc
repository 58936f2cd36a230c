// The entry: checks the arguments, then calls the case for their dtype and width. Compiled once.
#include "row_sum_config.h"

/// sums[i] = sum of x[i, :]; x: [rows, width], row-major; sums: [rows], of x's dtype.
void row_sum(ConstTensor x, Tensor sums) {
  dimorph::Size rows("rows"), width("width");
  x.expect({rows, width});
  sums.expect({rows}, x.dtype());
  DISPATCH_dtype(x.dtype(), DType, DISPATCH_width(width, WIDTH, DIMORPH_CALL(row_sum)(x, sums)));
}
DIMORPH_EXPORT(row_sum)
