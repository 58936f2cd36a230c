#include <dimorph/parallel.h>

#include "reduce.h"
#include "row_dot_config.h"

namespace DIMORPH_CASE {

void row_dot(dimorph::ConstTensor x, dimorph::ConstTensor y, dimorph::Tensor out) noexcept {
  const int64_t width = x.size(1);
  dimorph::parallel_for(x.size(0), [&](int64_t row) {
    out.data<DType>()[row] = dot(x.data<DType>() + row * width, y.data<DType>() + row * width, width);
  });
}

}  // namespace DIMORPH_CASE
