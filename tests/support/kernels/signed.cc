#include <dimorph/entry.h>

#include "signed_config.h"

/// Write scale * x + shift into out.
///
/// Args:
///   shift: added where it is given.
void affine(ConstTensor in, Tensor out, double scale = 2.0, Optional<ConstTensor> shift = {},
            dimorph::Str mode = "plain, quiet", bool twice = false, int64_t from = -0x10) {
  dimorph::Size count("count");
  in.expect<double>({count});
  out.expect<double>({count});
  if (shift) shift->expect<double>({count});
  for (int64_t i = 0; i < count; ++i)
    out.data<double>()[i] = scale * (twice ? 2 : 1) * in.data<double>()[i] + (shift ? shift->data<double>()[i] : 0) +
                            (mode == dimorph::Str("with from") ? from : 0);
}
DIMORPH_EXPORT(affine)

/** The larger of two.
 *
 * And no more.
 */
static inline double larger(const double first, double second = 1.5e1) { return first > second ? first : second; }
DIMORPH_EXPORT(larger)

// No words for Python.
void silent() {}
DIMORPH_EXPORT(silent)

#define LIST int64_t a, int64_t b
int64_t by_macro(LIST) { return a + b; }
#undef LIST
DIMORPH_EXPORT(by_macro)

// Names that others use inside of the macro.
int64_t count(int64_t args) { return args + 1; }
DIMORPH_EXPORT(count)
int64_t handle(int64_t result) { return result + 2; }
DIMORPH_EXPORT(handle)
int64_t args() { return 3; }
DIMORPH_EXPORT(args)
int64_t result() { return 4; }
DIMORPH_EXPORT(result)
int64_t own(int64_t self) { return self; }
DIMORPH_EXPORT(own)

// Adds the sum of float64 tensors, each of the size of `out`, to `out`; returns their number.
int64_t add_all(dimorph::ConstTensorList xs, Tensor out) {
  dimorph::Size count("count");
  out.expect<double>({count});
  for (const ConstTensor x : xs) {
    x.expect<double>({count});
    for (int64_t i = 0; i < count; ++i) out.data<double>()[i] += x.data<double>()[i];
  }
  return xs.size();
}
DIMORPH_EXPORT(add_all)

// Fills each float64 tensor with its position in the list.
void number_all(dimorph::TensorList outs, [[maybe_unused]] Optional<dimorph::ConstTensorList> maybe_unused = {}) {
  for (int64_t i = 0; i < outs.size(); ++i)
    for (int64_t k = 0; k < outs[i].numel(); ++k) outs[i].data<double>()[k] = i;
}
DIMORPH_EXPORT(number_all)
