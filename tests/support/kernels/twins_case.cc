#include <dimorph/case.h>

#include "twins.h"
#include "twins_config.h"

namespace DIMORPH_CASE {

int64_t twins() noexcept {
  Twin twin_object;
  Twin* volatile hidden = &twin_object;
  return int64_t{twin_variable} + Twin::counter() + twin() * 10 + twin_template(1) + hidden->answer() * 10000000;
}

}  // namespace DIMORPH_CASE
