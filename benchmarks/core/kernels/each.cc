#include <dimorph/entry.h>

#include "each_config.h"

// x[i] = 2 x[i] + 1, by a loop and by parallel_for with a grain; float32.
void in_loop(Tensor x) {
  x.expect({x.size(0)});
  DISPATCH_dtype(x.dtype(), DType, DIMORPH_CALL(in_loop)(x));
}
DIMORPH_EXPORT(in_loop)
void in_parallel(Tensor x, int64_t grain) {
  x.expect({x.size(0)});
  DISPATCH_dtype(x.dtype(), DType, DIMORPH_CALL(in_parallel)(x, grain));
}
DIMORPH_EXPORT(in_parallel)
