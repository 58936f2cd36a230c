// The entry: checks the arguments, then calls the case for their dtype and width. Compiled once.
#include "my_kernel_config.h"

// x and y: [rows, width], row-major, of one dtype. The arguments of the variant follow.
void my_kernel(ConstTensor x, Tensor y, Extra extra) {
  dimorph::Size rows("rows"), width("width");
  x.expect({rows, width});
  y.expect({rows, width}, x.dtype());
  DISPATCH_dtype(x.dtype(), DType, DISPATCH_width(width, WIDTH, DIMORPH_CALL(my_kernel)(x, y, extra)));
}
DIMORPH_EXPORT(my_kernel)
