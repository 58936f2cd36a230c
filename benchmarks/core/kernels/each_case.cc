#include <dimorph/case.h>
#include <dimorph/parallel.h>

#include "each_config.h"

namespace DIMORPH_CASE {

void in_loop(dimorph::Tensor x) noexcept {
  DType* data = x.data<DType>();
  const int64_t count = x.size(0);
  for (int64_t i = 0; i < count; ++i) data[i] = 2 * data[i] + 1;
}

void in_parallel(dimorph::Tensor x, int64_t grain) noexcept {
  DType* data = x.data<DType>();
  dimorph::parallel_for(x.size(0), [&](int64_t i) { data[i] = 2 * data[i] + 1; }, grain);
}

}  // namespace DIMORPH_CASE
