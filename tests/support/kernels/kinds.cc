#include <dimorph/entry.h>

#include "kinds_config.h"

// Writes into `facts` (int64, 16 elements) the constants of the case that was chosen.
void kinds(dimorph::DataType dtype, int64_t width, bool causal, int64_t mode, dimorph::ConstTensor sizes,
           dimorph::Str variant, dimorph::Tensor facts) {
  DIMORPH_CHECK(sizes.numel() == 9, "kinds: argument 'sizes': expected 9 elements, got %lld", (long long)sizes.numel());
  const int64_t* s = sizes.data<int64_t>();
  DISPATCH_dtype(
      dtype, DType,
      DISPATCH_width(
          width, WIDTH,
          DISPATCH_causal(
              causal, CAUSAL,
              DISPATCH_mode(
                  static_cast<Mode>(mode), MODE,
                  DISPATCH_pair(s[0], s[1], PAIR_A, PAIR_B,
                                DISPATCH_triple(s[2], s[3], s[4], T_1, T_2, T_3,
                                                DISPATCH_quad(s[5], s[6], s[7], s[8], Q_1, Q_2, Q_3, Q_4,
                                                              DISPATCH_variant(variant, KINDS_VARIANT,
                                                                               DIMORPH_CALL(kinds)(facts)))))))));
}
DIMORPH_EXPORT(kinds)
