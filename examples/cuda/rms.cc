// The entry: checks the arguments, then calls the case for their dtype and width. Compiled once.
#include "rms_config.h"

/// y[i, :] = x[i, :] / sqrt(mean(x[i, :]^2) + epsilon), computed in float32; x and y: [rows, width], row-major, of one
/// dtype, on one GPU. Runs on the caller's current stream.
void rms(ConstTensor x, Tensor y, float epsilon = 1e-6f) {
  dimorph::Size rows("rows"), width("width");
  x.expect({rows, width});
  y.expect({rows, width}, x.dtype());
  DIMORPH_CHECK(x.device().device_type == kDLCUDA, "rms: argument 'x': expected an array on a GPU");
  y.expect_on(x.device());
  if (rows == 0) return;
  DISPATCH_dtype(x.dtype(), DType, DISPATCH_width(width, WIDTH, DIMORPH_CALL(rms)(x, y, epsilon)));
}
DIMORPH_EXPORT(rms)
