#include <dimorph/case.h>

#include "functor_config.h"

namespace DIMORPH_CASE {

struct Params {
  ADDITIONAL_PARAMS_DECL
};

void set_additional(Params& params ADDITIONAL_FUNC_PARAMS) {
  (void)params;
  ADDITIONAL_PARAMS_SETTER
}

void functor(dimorph::Tensor values, dimorph::Extra extra) noexcept {
  Params params{};
  if (!extra.apply(set_additional, params)) return;
  const FUNCTOR<Params> function(params);
  for (int64_t i = 0; i < values.numel(); ++i)
    values.data<double>()[i] = function.transform(values.data<double>()[i], static_cast<int>(i));
}

}  // namespace DIMORPH_CASE
