#include <dimorph/entry.h>

#include "bag_config.h"

using dimorph::Handle;
using dimorph::NewHandle;

// counts: int64 [2], how many bags were made and destroyed.
NewHandle make(ConstTensor values, Tensor counts) {
  values.expect({values.size(0)});
  DISPATCH_dtype(values.dtype(), DType,
                 DISPATCH_width(values.size(0), WIDTH, return DIMORPH_CALL(make, NewHandle)(values, counts)));
  return {};
}
double sum(Handle<> bag, double factor) { return DIMORPH_CALL_ON(bag, sum, double)(bag, factor); }
// The same of float32, by the values of the call.
double sum_as(Handle<> bag, int width) {
  DISPATCH_dtype(dimorph::data_type<float>(), DType,
                 DISPATCH_width(width, WIDTH, return DIMORPH_CALL(sum, double)(bag, 1.0)));
  return 0;
}
double sum_or_zero(Optional<Handle<>> bag) { return bag ? DIMORPH_CALL_ON(*bag, sum_or_zero, double)(bag) : 0; }
// Forgets that the handle may be None.
double sum_careless(Optional<Handle<>> bag, bool dispatched) {
  if (!dispatched) return DIMORPH_CALL_ON(*bag, sum, double)(*bag, 1.0);
  DISPATCH_dtype(dimorph::data_type<float>(), DType,
                 DISPATCH_width(3, WIDTH, return DIMORPH_CALL(sum, double)(*bag, 1.0)));
  return 0;
}
double other(Handle<> bag) { return DIMORPH_CALL_ON(bag, other, double)(bag); }
NewHandle keep(ConstTensor values, Tensor counts) {
  DISPATCH_dtype(values.dtype(), DType,
                 DISPATCH_width(values.size(0), WIDTH, return DIMORPH_CALL(keep, NewHandle)(values, counts)));
  return {};
}
// Of a copy, which ends with the call.
NewHandle keep_copy(ConstTensor values, Tensor counts) {
  const dimorph::NewTensor copy({values.size(0)}, values.dtype());
  memcpy(const_cast<void*>(copy.data()), values.data(), copy.numel() * values.dtype().bits / 8);
  DISPATCH_dtype(
      values.dtype(), DType,
      DISPATCH_width(values.size(0), WIDTH, return DIMORPH_CALL(keep, NewHandle)(ConstTensor(copy), counts)));
  return {};
}
double first(Handle<> kept) { return DIMORPH_CALL_ON(kept, first, double)(kept); }
NewHandle make_other(int width) {
  DISPATCH_dtype(dimorph::data_type<float>(), DType,
                 DISPATCH_width(width, WIDTH, return DIMORPH_CALL(make_other, NewHandle)(width)));
  return {};
}
// A handle that the case has made, and that the entry does not return.
NewHandle make_in_vain(ConstTensor values, Tensor counts) {
  const NewHandle bag = make(values, counts);
  DIMORPH_RAISE(index, "make_in_vain");
}
void wait(Handle<> bag, ConstTensor, int milliseconds) { DIMORPH_CALL_ON(bag, wait)(bag, milliseconds); }

DIMORPH_EXPORT(make)
DIMORPH_EXPORT(sum)
DIMORPH_EXPORT(sum_as)
DIMORPH_EXPORT(sum_careless)
DIMORPH_EXPORT(sum_or_zero)
DIMORPH_EXPORT(other)
DIMORPH_EXPORT(keep)
DIMORPH_EXPORT(keep_copy)
DIMORPH_EXPORT(first)
DIMORPH_EXPORT(make_other)
DIMORPH_EXPORT(make_in_vain)
DIMORPH_EXPORT(wait)
