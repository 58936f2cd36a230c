#include <dimorph/entry.h>

#include "bag_config.h"

using dimorph::Handle;
using dimorph::NewHandle;

// counts: int64 [2], how many bags were made and destroyed; it must outlive them.
NewHandle make(ConstTensor values, Tensor counts) {
  values.expect({values.size(0)});
  DISPATCH_dtype(values.dtype(), DType,
                 DISPATCH_width(values.size(0), WIDTH, return DIMORPH_CALL(make, NewHandle)(values, counts)));
  return {};
}
double sum(Handle<> bag, double factor) { return DIMORPH_CALL_ON(bag, sum, double)(bag, factor); }
// The same by the values of the call.
double sum_as(Handle<> bag, int width, dimorph::DataType dtype) {
  DISPATCH_dtype(dtype, DType, DISPATCH_width(width, WIDTH, return DIMORPH_CALL(sum, double)(bag, 1.0)));
  return 0;
}
double sum_or_zero(Optional<Handle<>> bag) { return bag ? DIMORPH_CALL_ON(*bag, sum_or_zero, double)(bag) : 0; }
double other(Handle<> bag) { return DIMORPH_CALL_ON(bag, other, double)(bag); }
NewHandle make_other(int width) {
  DISPATCH_dtype(dimorph::data_type<float>(), DType,
                 DISPATCH_width(width, WIDTH, return DIMORPH_CALL(make_other, NewHandle)(width)));
  return {};
}
void wait(Handle<> bag, int milliseconds) { DIMORPH_CALL_ON(bag, wait)(bag, milliseconds); }

DIMORPH_EXPORT(make)
DIMORPH_EXPORT(sum)
DIMORPH_EXPORT(sum_as)
DIMORPH_EXPORT(sum_or_zero)
DIMORPH_EXPORT(other)
DIMORPH_EXPORT(make_other)
DIMORPH_EXPORT(wait)
