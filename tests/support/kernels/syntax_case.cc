#include <dimorph/case.h>

#include "syntax_config.h"

namespace DIMORPH_CASE {

void syntax() noexcept {}

}  // namespace DIMORPH_CASE
