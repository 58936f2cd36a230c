#include <dimorph/entry.h>

#include "wide_config.h"

void wide(int64_t width, int64_t depth, dimorph::Tensor facts) {
  DISPATCH_width(width, WIDTH, DISPATCH_depth(depth, DEPTH, DIMORPH_CALL(wide)(facts)));
}
DIMORPH_EXPORT(wide)
