#include <dimorph/entry.h>

#include "scale_config.h"

using dimorph::ConstTensor;
using dimorph::Tensor;

// y = x * factor; x and y: [rows, width], any strides, of one dtype. Returns the sum of y.
double scale(ConstTensor x, Tensor y, double factor) {
  DIMORPH_CHECK(x.ndim() == 2, "scale: argument 'x': expected 2 dimensions, got %d", x.ndim());
  DIMORPH_CHECK(y.ndim() == 2 && y.size(0) == x.size(0) && y.size(1) == x.size(1),
                "scale: argument 'y': expected the shape of 'x', [%lld, %lld]", (long long)x.size(0),
                (long long)x.size(1));
  DIMORPH_CHECK_TYPE(y.dtype() == x.dtype(), "scale: argument 'y': expected the dtype of 'x'");
  double sum = 0;
  DISPATCH_dtype(x.dtype(), DType, DISPATCH_width(x.size(1), WIDTH, sum = DIMORPH_CALL(scale, double)(x, y, factor)));
  return sum;
}
DIMORPH_EXPORT(scale)
