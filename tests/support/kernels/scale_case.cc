#include <dimorph/case.h>

#include "scale_config.h"

namespace DIMORPH_CASE {

double scale(dimorph::ConstTensor x, dimorph::Tensor y, double factor) noexcept {
  float sum = 0;
  for (int64_t row = 0; row < x.size(0); ++row)
    for (int i = 0; i < WIDTH; ++i) {
      const float in = static_cast<float>(x.data<DType>()[row * x.stride(0) + i * x.stride(1)]);
      DType& out = y.data<DType>()[row * y.stride(0) + i * y.stride(1)];
      out = static_cast<DType>(in * static_cast<float>(factor));
      sum += static_cast<float>(out) * in;
    }
  return sum;
}

}  // namespace DIMORPH_CASE
