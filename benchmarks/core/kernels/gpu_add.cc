#include <dimorph/entry.h>

#include "gpu_add_config.h"

// x[i] += value, in place; float32 on a GPU.
void gpu_add(Tensor x, float value) {
  DIMORPH_CHECK(x.ndim() == 1 && x.contiguous(), "gpu_add: argument 'x': expected a row of elements");
  DISPATCH_dtype(x.dtype(), DType, DIMORPH_CALL(gpu_add)(x, value));
}
DIMORPH_EXPORT(gpu_add)
