// The case: one pass over the data, for one dtype and one binning.
#include "histogram_config.h"

namespace DIMORPH_CASE {

struct Params : AdditionalParams {
  using Element = DType;
  int64_t bins;
};

void histogram(View<const DType, 1> x, View<int64_t, 1> counts, Extra extra) noexcept {
  Params params{};
  params.bins = counts.size(0);
  // The length of a table follows from this call, so the case checks it.
  const auto check = [&](const char*, const char*, const ConstTensor& edges) { edges.expect({params.bins + 1}); };
  if (!extra.fill(params, check)) return;
  const BINNING<Params> binning(params);
  for (int64_t b = 0; b < params.bins; ++b) counts(b) = 0;
  for (int64_t i = 0; i < x.size(0); ++i) {
    const int64_t b = binning.bin(x(i));
    if (b >= 0) ++counts(b);
  }
}

}  // namespace DIMORPH_CASE
