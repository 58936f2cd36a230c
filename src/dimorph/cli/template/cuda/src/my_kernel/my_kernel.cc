// The entry: checks the arguments, then calls the case for their dtype and width. Compiled once.
#include "my_kernel_config.h"

// x and y: [rows, width], row-major, of one dtype, on one GPU.
void my_kernel(ConstTensor x, Tensor y, float epsilon) {
  dimorph::Size rows("rows"), width("width");
  x.expect({rows, width});
  y.expect({rows, width}, x.dtype());
  DIMORPH_CHECK(x.device().device_type == kDLCUDA, "my_kernel: argument 'x': expected an array on a GPU");
  y.expect_on(x.device());
  if (rows == 0) return;
  DISPATCH_dtype(x.dtype(), DType, DISPATCH_width(width, WIDTH, DIMORPH_CALL(my_kernel)(x, y, epsilon)));
}
DIMORPH_EXPORT(my_kernel)
