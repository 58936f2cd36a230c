// What a step reads and writes, and the loop over the steps, for both cases.
#pragma once
#include "lattice_boltzmann_config.h"

namespace DIMORPH_CASE {
struct Params : AdditionalParams {};
struct Domain {
  const DType* from;
  DType* to;
  const uint8_t* kinds;
  int64_t planes, rows, width;
  DType outside[3];
  COLLISION<Params> collision;
};

#if defined(DIMORPH_HOST)
// Advances by some of the steps that are left, and returns how many: 0 where it fails.
int64_t pass(const Domain& domain, int64_t left, dimorph::Device device) noexcept;

inline bool advance(Tensor first, Tensor second, ConstTensor kinds, double x, double y, double z, int64_t steps,
                    Extra extra) noexcept {
  Params params{};
  if (!extra.fill(params)) return false;
  DType* const arrays[] = {static_cast<DType*>(first.data()), static_cast<DType*>(second.data())};
  Domain domain{nullptr,
                nullptr,
                static_cast<const uint8_t*>(kinds.data()),
                first.size(0),
                first.size(1),
                first.size(3),
                {DType(x), DType(y), DType(z)},
                COLLISION<Params>(params)};
  bool swapped = false;
  for (int64_t done = 1; steps > 0 && done > 0; steps -= done, swapped = !swapped) {
    domain.from = arrays[swapped], domain.to = arrays[!swapped];
    done = pass(domain, steps, first.device());
  }
  return swapped;
}
#endif
}  // namespace DIMORPH_CASE
