#include <dimorph/case.h>

#include "reduce.h"
#include "rms_norm_config.h"

namespace DIMORPH_CASE {

void rms_norm(dimorph::ConstTensor x, dimorph::Tensor y, double eps) noexcept {
  for (int64_t row = 0; row < x.size(0); ++row) {
    const DType* in = x.data<DType>() + row * WIDTH;
    DType* out = y.data<DType>() + row * WIDTH;
    const DType mean = dot(in, in, WIDTH) / WIDTH;
    const DType scale = 1 / static_cast<DType>(__builtin_sqrt(mean + eps));
    for (int i = 0; i < WIDTH; ++i) out[i] = in[i] * scale;
  }
}

}  // namespace DIMORPH_CASE
