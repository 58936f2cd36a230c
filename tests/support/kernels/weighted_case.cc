#include <dimorph/case.h>

#include "weighted_config.h"

namespace DIMORPH_CASE {

struct Params : AdditionalParams {};

double weighted(ConstTensor x, Extra extra) noexcept {
  Params params{};
  if (!extra.fill(params)) return 0;
  const WEIGHTED_VARIANT<Params> variant(params);
  const auto values = x.view<DType, 1>();
  double total = 1000 * variant.given();
  for (int i = 0; i < WIDTH; ++i) total += values(i) * variant.at(i);
  return total;
}

}  // namespace DIMORPH_CASE
