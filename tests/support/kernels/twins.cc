#include <dimorph/entry.h>

#include "twins_config.h"

int64_t twins(int64_t width) { DISPATCH_width(width, WIDTH, return DIMORPH_CALL(twins, int64_t)()); }
DIMORPH_EXPORT(twins)
