#include <dimorph/entry.h>

#include "read_all_config.h"

// The sum of x's 32-bit words, modulo 2^32. x: contiguous, its size a multiple of 4096 bytes for each thread.
double read_all(dimorph::ConstTensor x) {
  DIMORPH_CHECK(x.contiguous(), "read_all: argument 'x': expected a contiguous tensor");
  DISPATCH_dtype(x.dtype(), DType, return DIMORPH_CALL(read_all, double)(x));
}
DIMORPH_EXPORT(read_all)
