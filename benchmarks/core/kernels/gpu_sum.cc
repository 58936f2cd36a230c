#include <dimorph/entry.h>

#include "gpu_sum_config.h"

// out = a + b + c; float32 on a GPU, of one length.
void gpu_sum(ConstTensor a, ConstTensor b, ConstTensor c, Tensor out) {
  const int64_t count = out.numel();
  DIMORPH_CHECK(a.numel() == count && b.numel() == count && c.numel() == count,
                "gpu_sum: argument 'out': expected as many elements as in 'a', 'b' and 'c'");
  DIMORPH_CHECK(a.contiguous() && b.contiguous() && c.contiguous() && out.contiguous(),
                "gpu_sum: expected row-major tensors");
  DIMORPH_CHECK_TYPE(a.dtype() == out.dtype() && b.dtype() == out.dtype() && c.dtype() == out.dtype(),
                     "gpu_sum: expected one dtype");
  DISPATCH_dtype(out.dtype(), DType, DIMORPH_CALL(gpu_sum)(a, b, c, out));
}
DIMORPH_EXPORT(gpu_sum)
