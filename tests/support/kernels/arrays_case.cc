#include <dimorph/case.h>
#include <dimorph/parallel.h>

#include "arrays_config.h"

namespace DIMORPH_CASE {

double first(ConstTensor x, int64_t where) {
  double result = 0;
  if (where == 0) return x.view<float, 1>()(0);
  dimorph::parallel_for(100, [&](int64_t i) {
    if (where == 1)
      result = x.data<float>()[0];
    else if (i == 7)
      dimorph::parallel_for(10, [&](int64_t) { result = x.view<float, 1>()(0); });
  });
  return result;
}

double quiet(ConstTensor x, ConstTensor other, int64_t where) noexcept { return first(x, where) + first(other, where); }

double throwing(ConstTensor x, ConstTensor other, int64_t where) {
  DIMORPH_CHECK(WIDTH > 0, "throwing: never");
  return first(x, where) + first(other, where);
}

double viewed(View<const double, 2> x, const View<float, 1>& y) noexcept {
  y(0) = static_cast<float>(x(1, 0));
  return x(0, 0);
}

}  // namespace DIMORPH_CASE
