#include <dimorph/case.h>

#include "wide_config.h"

namespace DIMORPH_CASE {

void wide(dimorph::Tensor facts) noexcept { facts.data<int64_t>()[0] = WIDTH * DEPTH; }

}  // namespace DIMORPH_CASE
