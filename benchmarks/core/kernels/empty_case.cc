#include <dimorph/case.h>

#include "empty_config.h"

namespace DIMORPH_CASE {

void empty() noexcept {}

}  // namespace DIMORPH_CASE
