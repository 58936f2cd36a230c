#include <dimorph/entry.h>

#include "wide_config.h"

int wide(int value) { DISPATCH_value(value, VALUE, return DIMORPH_CALL(wide, int)()); }
DIMORPH_EXPORT(wide)
