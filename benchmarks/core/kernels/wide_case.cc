#include <dimorph/case.h>

#include "wide_config.h"

namespace DIMORPH_CASE {

int wide() noexcept { return VALUE; }

}  // namespace DIMORPH_CASE
