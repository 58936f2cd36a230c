#include <dimorph/entry.h>

#include "functor_config.h"

// values[i] = functor(values[i]); values: float64, row-major.
void functor(dimorph::Str variant, dimorph::Tensor values, dimorph::Extra extra) {
  DISPATCH_variant(variant, FUNCTOR, DIMORPH_CALL(functor)(values, extra));
}
DIMORPH_EXPORT(functor)
