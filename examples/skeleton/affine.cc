// The entry: checks the arguments, then calls the case for their dtype and width. Compiled once.
#include "affine_config.h"

/// y[i, j] = transform(x[i, j] / rms(x[i, :])); x and y: [rows, head_dim], row-major, of one dtype.
void affine(ConstTensor x, Tensor y, Extra extra) {
  dimorph::Size rows("rows"), head_dim("head_dim");
  x.expect({rows, head_dim});
  y.expect({rows, head_dim}, x.dtype());
  DISPATCH_dtype(x.dtype(), DType, DISPATCH_head_dim(x.size(1), HEAD_DIM, DIMORPH_CALL(affine)(x, y, extra)));
}
DIMORPH_EXPORT(affine)
