#include <dimorph/entry.h>

#include "add_scalar_config.h"

// x[i] += value, in place; float32.
void add_scalar(dimorph::Tensor x, float value) {
  DIMORPH_CHECK(x.ndim() == 1, "add_scalar: argument 'x': expected 1 dimension, got %d", x.ndim());
  DISPATCH_dtype(x.dtype(), DType, DIMORPH_CALL(add_scalar)(x, value));
}
DIMORPH_EXPORT(add_scalar)
