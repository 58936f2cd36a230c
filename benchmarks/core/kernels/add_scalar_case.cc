#include <dimorph/case.h>

#include "add_scalar_config.h"

namespace DIMORPH_CASE {

void add_scalar(dimorph::Tensor x, float value) noexcept {
  DType* data = x.data<DType>();
  const int64_t count = x.size(0);
  for (int64_t i = 0; i < count; ++i) data[i] += static_cast<DType>(value);
}

}  // namespace DIMORPH_CASE
