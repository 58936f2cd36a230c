// The entry: two functions, which dispatch over the same axes.
#include "stencil_config.h"

// out[i] = slope of u at sample i, by central differences of an order; samples lie `step` apart.
void slope(ConstTensor u, Tensor out, double step, int order, dimorph::Str edge, Extra extra) {
  dimorph::Size samples("samples");
  u.expect({samples});
  out.expect({samples}, u.dtype());
  DIMORPH_CHECK(step > 0, "slope: argument step: expected a number above 0, got %g", step);
  DIMORPH_CHECK(samples > order, "slope: argument u: expected more than %d samples, got %lld", order,
                static_cast<long long>(samples));
  DISPATCH_dtype(u.dtype(), DType,
                 DISPATCH_order(order, ORDER, DISPATCH_edge(edge, EDGE, DIMORPH_CALL(slope)(u, out, step, extra))));
}
DIMORPH_EXPORT(slope)

// out[i] = mean of the order + 1 samples around u[i].
void smooth(ConstTensor u, Tensor out, int order, dimorph::Str edge, Extra extra) {
  dimorph::Size samples("samples");
  u.expect({samples});
  out.expect({samples}, u.dtype());
  DISPATCH_dtype(u.dtype(), DType,
                 DISPATCH_order(order, ORDER, DISPATCH_edge(edge, EDGE, DIMORPH_CALL(smooth)(u, out, extra))));
}
DIMORPH_EXPORT(smooth)
