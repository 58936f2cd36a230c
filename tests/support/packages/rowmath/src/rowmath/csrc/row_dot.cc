#include <dimorph/entry.h>

#include "row_dot_config.h"

using dimorph::ConstTensor;
using dimorph::Tensor;

// out[i] = sum(x[i, :] * y[i, :]); x and y: [rows, width], out: [rows], row-major, of one dtype.
void row_dot(ConstTensor x, ConstTensor y, Tensor out) {
  DIMORPH_CHECK(x.ndim() == 2 && x.contiguous(), "row_dot: argument 'x': expected a row-major matrix");
  DIMORPH_CHECK(y.ndim() == 2 && y.contiguous() && y.numel() == x.numel() && y.dtype() == x.dtype(),
                "row_dot: argument 'y': expected a row-major matrix of the shape and dtype of 'x'");
  DIMORPH_CHECK(out.ndim() == 1 && out.size(0) == x.size(0) && out.contiguous() && out.dtype() == x.dtype(),
                "row_dot: argument 'out': expected an element of the dtype of 'x' for each row");
  DISPATCH_dtype(x.dtype(), DType, DIMORPH_CALL(row_dot)(x, y, out));
}
DIMORPH_EXPORT(row_dot)
