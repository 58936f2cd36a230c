// The entry: checks the arguments, then calls the case for their dtype.
#include "nbody_config.h"

// One step of time `step` for bodies that attract each other, in place, with a gravitational constant of 1. positions
// and velocities: [bodies, 3]; masses: [bodies]. `softening` is a length that keeps forces finite.
void nbody(Tensor positions, Tensor velocities, ConstTensor masses, double step, double softening) {
  dimorph::Size bodies("bodies");
  positions.expect({bodies, 3});
  velocities.expect({bodies, 3}, positions.dtype());
  masses.expect({bodies}, positions.dtype());
  DISPATCH_dtype(positions.dtype(), DType, DIMORPH_CALL(nbody)(positions, velocities, masses, step, softening));
}
DIMORPH_EXPORT(nbody)
