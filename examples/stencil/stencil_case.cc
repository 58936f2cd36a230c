// The case: both functions, for one dtype, one order and one edge.
#include "stencil_config.h"

namespace DIMORPH_CASE {

struct Params : AdditionalParams {};

// Samples by index, beyond the ends as well.
struct Samples {
  dimorph::View<const DType, 1> inner;
  EDGE<Params> edge;

  DType operator()(int64_t i) const {
    const int64_t last = inner.size(0) - 1;
    return i < 0 ? edge.beyond(inner(0)) : i > last ? edge.beyond(inner(last)) : inner(i);
  }
};

void slope(ConstTensor u, Tensor out, double step, Extra extra) noexcept {
  Params params{};
  if (!extra.fill(params)) return;
  const Samples at{u.view<DType, 1>(), EDGE<Params>(params)};
  const auto result = out.view<DType, 1>();
  for (int64_t i = 0; i < result.size(0); ++i) {
    DType difference = at(i + 1) - at(i - 1);
    if (ORDER == 4) difference = (8 * difference - (at(i + 2) - at(i - 2))) / 6;
    result(i) = difference / static_cast<DType>(2 * step);
  }
}

void smooth(ConstTensor u, Tensor out, Extra extra) noexcept {
  Params params{};
  if (!extra.fill(params)) return;
  const Samples at{u.view<DType, 1>(), EDGE<Params>(params)};
  const auto result = out.view<DType, 1>();
  for (int64_t i = 0; i < result.size(0); ++i) {
    DType sum = 0;
    for (int k = -ORDER / 2; k <= ORDER / 2; ++k) sum += at(i + k);
    result(i) = sum / (ORDER + 1);
  }
}

}  // namespace DIMORPH_CASE
