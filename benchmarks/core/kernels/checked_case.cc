#include <dimorph/case.h>

#include "checked_config.h"

namespace DIMORPH_CASE {

void nothing(ConstTensor, ConstTensor, ConstTensor, Tensor) noexcept {}

}  // namespace DIMORPH_CASE
