// The case: a step of symplectic Euler, the bodies side by side.
#include <dimorph/parallel.h>

#include "nbody_config.h"

namespace DIMORPH_CASE {

void nbody(View<DType, 2> positions, View<DType, 2> velocities, View<const DType, 1> masses, double step,
           double softening) noexcept {
  const int64_t bodies = masses.size(0);
  const DType time = static_cast<DType>(step), soft = static_cast<DType>(softening * softening);
  const bool done = dimorph::parallel_for(bodies, [&](int64_t i) {
    DType pull[3] = {};
    for (int64_t j = 0; j < bodies; ++j) {
      DType away[3], square = soft;
      for (int k = 0; k < 3; ++k) away[k] = positions(j, k) - positions(i, k), square += away[k] * away[k];
      const DType weight = j == i ? 0 : masses(j) / (square * static_cast<DType>(__builtin_sqrt(square)));
      for (int k = 0; k < 3; ++k) pull[k] += weight * away[k];
    }
    for (int k = 0; k < 3; ++k) velocities(i, k) += time * pull[k];
  });
  if (!done) return;
  for (int64_t i = 0; i < bodies; ++i)
    for (int k = 0; k < 3; ++k) positions(i, k) += time * velocities(i, k);
}

}  // namespace DIMORPH_CASE
