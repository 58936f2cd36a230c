// The parameters of the CPU family's case: the problem, and the variant's additional parameters.
#pragma once
#include <dimorph/attention/variants.h>
#include <dimorph/case.h>
#include <dimorph/dtype.h>

#include "../kv_dtype.h"
#include "../problem.h"
#include "attention_config.h"  // IWYU pragma: export

namespace DIMORPH_CASE {

using dimorph::attention::KvDtype;
using DTypeKV = dimorph::attention::KvElement<KV_DTYPE, DType>::type;
constexpr bool kFloat8 = KV_DTYPE != KvDtype::as_q;

struct Params : dimorph::attention::BaseParams<DType, DTypeKV, DType, PAGED>, AdditionalParams {};
using Variant = ATTENTION_VARIANT<Params>;
using Traits = dm::Traits<Variant>;

}  // namespace DIMORPH_CASE
