#include <dimorph/entry.h>

#include "planted_config.h"

void planted(dimorph::Tensor x, int64_t bug) { DISPATCH_bug(bug, BUG, DIMORPH_CALL(planted)(x)); }
DIMORPH_EXPORT(planted)
