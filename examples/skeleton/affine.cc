// The entry: checks the arguments, then calls the case for their dtype and width. Compiled once.
#include <dimorph/entry.h>

#include "affine_config.h"

// y[i, j] = transform(x[i, j] / rms(x[i, :])); x and y: [rows, head_dim], row-major, of one dtype.
void affine(ConstTensor x, Tensor y, Extra extra) {
  DIMORPH_CHECK(x.ndim() == 2, "affine: argument 'x': expected 2 dimensions, got %d", x.ndim());
  DIMORPH_CHECK(y.ndim() == 2 && y.size(0) == x.size(0) && y.size(1) == x.size(1),
                "affine: argument 'y': expected the shape of 'x', [%lld, %lld]", (long long)x.size(0),
                (long long)x.size(1));
  DIMORPH_CHECK(x.contiguous() && y.contiguous(), "affine: arguments 'x' and 'y': expected row-major tensors");
  DIMORPH_CHECK_TYPE(y.dtype() == x.dtype(), "affine: argument 'y': expected the dtype of 'x'");
  DISPATCH_dtype(x.dtype(), DType, DISPATCH_head_dim(x.size(1), HEAD_DIM, DIMORPH_CALL(affine)(x, y, extra)));
}
DIMORPH_EXPORT(affine)
