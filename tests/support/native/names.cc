#include <dimorph/entry.h>

#include "names_config.h"

int64_t cuda(int64_t result, int64_t status) { return result + status; }
DIMORPH_EXPORT(cuda)

int64_t text_of(int64_t got, int64_t args, int64_t code) { return got + args + code; }
DIMORPH_EXPORT(text_of)

int64_t outcome(int64_t result0, int64_t ffi, Optional<int64_t> support) {
  return result0 + ffi + (support ? *support : 0);
}
DIMORPH_EXPORT(outcome)
