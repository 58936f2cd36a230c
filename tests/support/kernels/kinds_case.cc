#include <dimorph/case.h>

#include "kinds_config.h"

namespace DIMORPH_CASE {

struct Params : AdditionalParams {};

void kinds(dimorph::Tensor facts) noexcept {
  static_assert(__is_same(decltype(MODE), const Mode), "an enum axis binds its own type");
  const int64_t found[] = {sizeof(DType),
                           WIDTH,
                           CAUSAL,
                           static_cast<int64_t>(MODE),
                           PAIR_A,
                           PAIR_B,
                           T_1,
                           T_2,
                           T_3,
                           Q_1,
                           Q_2,
                           Q_3,
                           Q_4,
                           UNROLL,
                           KINDS_VARIANT<Params>::tag,
                           dimorph::data_type<DType>().code};
  for (int i = 0; i < 16; ++i) facts.data<int64_t>()[i] = found[i];
}

}  // namespace DIMORPH_CASE
