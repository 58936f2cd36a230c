// The CPU family's case: attention for one element type, one pair of head dims and one variant.
#include <dimorph/case.h>

#include "../problem.h"
#include "forward.h"
#include "params.h"
#include "rows.h"

namespace DIMORPH_CASE {

void set_extra([[maybe_unused]] Params& params ADDITIONAL_FUNC_PARAMS) { ADDITIONAL_PARAMS_SETTER }

void attention(dimorph::attention::Problem problem, dimorph::Extra extra) noexcept {
  Params params;
  static_cast<dimorph::attention::Problem&>(params) = problem;
  if (!extra.apply(set_extra, params)) return;
  if constexpr (FEW_QUERIES)
    forward_rows(params);
  else
    forward(params);
}

}  // namespace DIMORPH_CASE
