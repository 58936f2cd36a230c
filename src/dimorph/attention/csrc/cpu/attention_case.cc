// The CPU family's case: attention for one element type, one pair of head dims, one variant, and few or many queries.
#include <dimorph/case.h>

#include "../param_checks.h"
#include "../problem.h"
#include "few_queries.h"
#include "forward.h"
#include "params.h"

namespace DIMORPH_CASE {

using dimorph::attention::ParamChecks;
using Receiver = dimorph::attention::Receiver<Params>;

void set_extra([[maybe_unused]] Receiver& receiver ADDITIONAL_FUNC_PARAMS) {
  [[maybe_unused]] Params& params = receiver.params;
  ADDITIONAL_PARAMS_SETTER
  ADDITIONAL_TENSORS(receiver.checks.add)
  receiver.checks.run<Variant>(params, HEAD_DIM_VO);
}

void attention(dimorph::attention::Problem problem, dimorph::attention::Tokens tokens, dimorph::Extra extra) noexcept {
  Params params;
  static_cast<dimorph::attention::Problem&>(params) = problem;
  Receiver receiver{params, ParamChecks(params, tokens, extra.device, extra.sink)};
  if (!extra.apply(set_extra, receiver)) return;
  if constexpr (FEW_QUERIES)
    forward_few_queries(params);
  else
    forward(params);
}

}  // namespace DIMORPH_CASE
