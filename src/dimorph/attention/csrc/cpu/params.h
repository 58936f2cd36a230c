// The parameters of the CPU family's case: the problem, and the variant's additional parameters.
#pragma once
#include <dimorph/attention/variants.h>
#include <dimorph/case.h>
#include <dimorph/dtype.h>

#include "../problem.h"
#include "attention_config.h"  // IWYU pragma: export

namespace DIMORPH_CASE {

struct Params : dimorph::attention::BaseParams<DType, DType, DType, PAGED>, AdditionalParams {};
using Variant = ATTENTION_VARIANT<Params>;
using Traits = dm::Traits<Variant>;

}  // namespace DIMORPH_CASE
