#include <dimorph/case.h>

#include "pick_config.h"

namespace DIMORPH_CASE {

int64_t pick() noexcept { return int64_t{WIDTH} * 1000 + DEPTH; }

}  // namespace DIMORPH_CASE
