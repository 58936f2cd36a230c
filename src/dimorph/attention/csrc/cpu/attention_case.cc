// The CPU family's case: attention for one element type, one pair of head dims, one variant, and few or many queries.
#include <dimorph/case.h>

#include "../param_checks.h"
#include "../problem.h"
#include "few_queries.h"
#include "forward.h"
#include "params.h"

namespace DIMORPH_CASE {

void attention(dimorph::attention::Problem problem, dimorph::attention::Tokens tokens, dimorph::Extra extra) noexcept {
  Params params;
  static_cast<dimorph::attention::Problem&>(params) = problem;
  dimorph::attention::ParamChecks checks(params, tokens, extra.device, extra.sink);
  if (!checks.fill<Variant>(params, extra, HEAD_DIM_VO)) return;
  if constexpr (FEW_QUERIES)
    forward_few_queries(params);
  else
    forward(params);
}

}  // namespace DIMORPH_CASE
