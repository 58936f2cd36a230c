// The entry: checks the arguments, then calls the case for their dtype and width. Compiled once.
#include <dimorph/entry.h>

#include "rms_config.h"

// y[i, :] = x[i, :] / sqrt(mean(x[i, :]^2) + epsilon), computed in float32; x and y: [rows, width], row-major, of one
// dtype, on one GPU. Runs on the caller's current stream.
void rms(ConstTensor x, Tensor y, float epsilon) {
  DIMORPH_CHECK(x.ndim() == 2, "rms: argument 'x': expected 2 dimensions, got %d", x.ndim());
  DIMORPH_CHECK(y.ndim() == 2 && y.size(0) == x.size(0) && y.size(1) == x.size(1),
                "rms: argument 'y': expected the shape of 'x', [%lld, %lld]", (long long)x.size(0),
                (long long)x.size(1));
  DIMORPH_CHECK(x.contiguous() && y.contiguous(), "rms: arguments 'x' and 'y': expected row-major tensors");
  DIMORPH_CHECK_TYPE(y.dtype() == x.dtype(), "rms: argument 'y': expected the dtype of 'x'");
  DIMORPH_CHECK(x.device().device_type == kDLCUDA && y.device().device_type == kDLCUDA &&
                    x.device().device_id == y.device().device_id,
                "rms: arguments 'x' and 'y': expected arrays on one GPU");
  if (x.size(0) == 0) return;
  DISPATCH_dtype(x.dtype(), DType, DISPATCH_width(x.size(1), WIDTH, DIMORPH_CALL(rms)(x, y, epsilon)));
}
DIMORPH_EXPORT(rms)
