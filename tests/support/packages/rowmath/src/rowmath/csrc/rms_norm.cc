#include <dimorph/entry.h>

#include "rms_norm_config.h"

using dimorph::ConstTensor;
using dimorph::Tensor;

// y[i, :] = x[i, :] / sqrt(mean(x[i, :]^2) + eps); x and y: [rows, width], row-major, of one dtype.
void rms_norm(ConstTensor x, Tensor y, double eps) {
  DIMORPH_CHECK(x.ndim() == 2 && x.contiguous(), "rms_norm: argument 'x': expected a row-major matrix");
  DIMORPH_CHECK(y.ndim() == 2 && y.contiguous() && y.numel() == x.numel() && y.dtype() == x.dtype(),
                "rms_norm: argument 'y': expected a row-major matrix of the shape and dtype of 'x'");
  DISPATCH_dtype(x.dtype(), DType, DISPATCH_width(x.size(1), WIDTH, DIMORPH_CALL(rms_norm)(x, y, eps)));
}
DIMORPH_EXPORT(rms_norm)
