#include <dimorph/entry.h>

#include "own_axes_config.h"

/// y = x * WIDTH * PAIR_A, doubled if `twice`.
void scaled(ConstTensor x, Tensor y, int64_t pair_a, int64_t pair_b, bool twice = false,
            dimorph::Str variant = "Plain") {
  dimorph::Size width("width");
  x.expect({width});
  y.expect({width}, x.dtype());
  DISPATCH_dtype(
      x.dtype(), DType,
      DISPATCH_width(
          width, WIDTH,
          DISPATCH_pair(
              pair_a, pair_b, PAIR_A, PAIR_B,
              DISPATCH_twice(twice, TWICE, DISPATCH_variant(variant, OWN_VARIANT, DIMORPH_CALL(scaled)(x, y))))));
}
DIMORPH_EXPORT(scaled)

/// The sum of all elements of tensors of one dtype and any sizes.
double total(dimorph::ConstTensorList xs) {
  DIMORPH_CHECK(xs.size() > 0, "total: argument 'xs': expected at least one tensor, got none");
  DISPATCH_dtype(
      xs[0].dtype(), DType,
      ANY_width(WIDTH, ANY_pair(PAIR_A, PAIR_B,
                                ANY_twice(TWICE, ANY_variant(OWN_VARIANT, return DIMORPH_CALL(total, double)(xs))))));
}
DIMORPH_EXPORT(total)
