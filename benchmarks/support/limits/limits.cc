// The entries: what a machine can do at most, by loops that do nothing else.
#include "limits_config.h"

// target[i] = source[i], past the caches; both: [threads, elements], a multiple of 64 elements, aligned to 64 bytes.
void copy(ConstTensor source, Tensor target) {
  dimorph::Size threads("threads"), elements("elements");
  source.expect({threads, elements});
  target.expect({threads, elements}, source.dtype());
  DISPATCH_dtype(source.dtype(), DType, DIMORPH_CALL(copy)(source, target));
}
DIMORPH_EXPORT(copy)

// out[i] = the sum of row i of source: [threads, elements], as in `copy`; out: [threads].
void sums(ConstTensor source, Tensor out) {
  dimorph::Size threads("threads"), elements("elements");
  source.expect({threads, elements});
  out.expect({threads}, source.dtype());
  DISPATCH_dtype(source.dtype(), DType, DIMORPH_CALL(sums)(source, out));
}
DIMORPH_EXPORT(sums)

// For each thread, `rounds` rounds of 16 independent vectors x = x * a + b; out: [threads, 64], which keeps the work
// alive.
void fma(Tensor out, int64_t rounds) {
  dimorph::Size threads("threads");
  out.expect({threads, 64});
  DISPATCH_dtype(out.dtype(), DType, DIMORPH_CALL(fma)(out, rounds));
}
DIMORPH_EXPORT(fma)
