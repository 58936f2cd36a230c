#include <dimorph/entry.h>

#include "checked_config.h"

// Four arrays, each with a line that checks it, and the same without.
void checked(ConstTensor a, ConstTensor b, ConstTensor c, Tensor out) {
  dimorph::Size rows("rows"), width("width");
  a.expect({rows, width});
  b.expect({rows, width}, a.dtype());
  c.expect({width}, a.dtype());
  out.expect({rows, width}, a.dtype());
  DISPATCH_dtype(a.dtype(), DType, DIMORPH_CALL(nothing)(a, b, c, out));
}
DIMORPH_EXPORT(checked)
void unchecked(ConstTensor a, ConstTensor b, ConstTensor c, Tensor out) {
  DISPATCH_dtype(a.dtype(), DType, DIMORPH_CALL(nothing)(a, b, c, out));
}
DIMORPH_EXPORT(unchecked)
