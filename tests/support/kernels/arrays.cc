#include <dimorph/entry.h>

#include "arrays_config.h"

using dimorph::Size;

// Checks of every kind, one line for each array.
void shapes(ConstTensor x, Tensor y, ConstTensor strided) {
  Size rows("rows"), width("width");
  x.expect<float>({rows, width});
  y.expect({rows, 3}, x.dtype());
  strided.expect_strided({width});
}
DIMORPH_EXPORT(shapes)

void same_device(ConstTensor x, ConstTensor y) { y.expect_on(x.device()); }
DIMORPH_EXPORT(same_device)

void whole_vectors(ConstTensor x) { x.expect_aligned(64); }
DIMORPH_EXPORT(whole_vectors)

// The first element: read as float32 without a check, and as what the name says.
double first_raw(ConstTensor x) { return *static_cast<const float*>(x.data()); }
DIMORPH_EXPORT(first_raw)
double first_float(ConstTensor x) { return *x.data<float>(); }
DIMORPH_EXPORT(first_float)
double first_half(Tensor x) { return static_cast<float>(*x.data<half>()); }
DIMORPH_EXPORT(first_half)
int64_t first_long(ConstTensor x) { return *x.data<long long>(); }
DIMORPH_EXPORT(first_long)
double corner(ConstTensor x, int64_t i, int64_t j) { return x.view<float, 2>()(i, j); }
DIMORPH_EXPORT(corner)

// What an entry makes has no name.
double first_of_new() {
  dimorph::NewTensor made({1}, dimorph::data_type<float>());
  return *made.data<double>();
}
DIMORPH_EXPORT(first_of_new)

// The same checks in a case; `where` 0: in the function itself, 1: in a body of parallel_for, 2: in a body within one.
double quiet(ConstTensor x, ConstTensor other, int64_t width, int64_t where) {
  DISPATCH_width(width, WIDTH, return DIMORPH_CALL(quiet, double)(x, other, where));
}
DIMORPH_EXPORT(quiet)
double throwing(ConstTensor x, ConstTensor other, int64_t width, int64_t where) {
  DISPATCH_width(width, WIDTH, return DIMORPH_CALL(throwing, double)(x, other, where));
}
DIMORPH_EXPORT(throwing)
double viewed(ConstTensor x, Tensor y, int64_t width) {
  DISPATCH_width(width, WIDTH, return DIMORPH_CALL(viewed, double)(x, y));
}
DIMORPH_EXPORT(viewed)
