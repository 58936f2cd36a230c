#include <dimorph/case.h>

#include "functor_config.h"

namespace DIMORPH_CASE {

struct Params : AdditionalParams {};

void functor(dimorph::Tensor values, dimorph::Extra extra) noexcept {
  Params params{};
  if (!extra.fill(params)) return;
  const FUNCTOR<Params> function(params);
  for (int64_t i = 0; i < values.numel(); ++i)
    values.data<double>()[i] = function.transform(values.data<double>()[i], static_cast<int>(i));
}

}  // namespace DIMORPH_CASE
