#include <dimorph/case.h>

#include "weighted_config.h"

namespace DIMORPH_CASE {

struct Params {
  ADDITIONAL_PARAMS_DECL
};

void set_additional(Params& params ADDITIONAL_FUNC_PARAMS) { ADDITIONAL_PARAMS_SETTER }

double weighted(ConstTensor x, Extra extra) noexcept {
  Params params{};
  if (!extra.apply(set_additional, params)) return 0;
  const WEIGHTED_VARIANT<Params> variant(params);
  const auto values = x.view<DType, 1>();
  double total = 1000 * variant.given();
  for (int i = 0; i < WIDTH; ++i) total += values(i) * variant.at(i);
  return total;
}

}  // namespace DIMORPH_CASE
