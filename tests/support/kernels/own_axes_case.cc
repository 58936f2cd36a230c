#include <dimorph/case.h>

#include "own_axes_config.h"

namespace DIMORPH_CASE {

void scaled(ConstTensor x, Tensor y) noexcept {
  for (int i = 0; i < WIDTH; ++i) y.data<DType>()[i] = x.data<DType>()[i] * WIDTH * PAIR_A * (TWICE ? 2 : 1);
}

double total(dimorph::ConstTensorList xs) noexcept {
  double sum = 0;
  for (const ConstTensor x : xs)
    for (int64_t i = 0; i < x.numel(); ++i) sum += static_cast<double>(x.data<DType>()[i]);
  return sum;
}

}  // namespace DIMORPH_CASE
