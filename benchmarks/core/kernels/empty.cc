#include <dimorph/entry.h>

#include "empty_config.h"

void empty(int a, int b, int c) {
  DISPATCH_first(a, FIRST, DISPATCH_second(b, SECOND, DISPATCH_third(c, THIRD, DIMORPH_CALL(empty)())));
}
DIMORPH_EXPORT(empty)
