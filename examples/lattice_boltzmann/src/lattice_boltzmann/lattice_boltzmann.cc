// The entry: checks the arguments, then calls the case for their dtype, lattice and collision model. Compiled once.
#include "lattice_boltzmann_config.h"

/// Advances populations, [outer, middle, directions, x], by some steps. The arrays take turns; returns true where the
/// result is in `second`. kinds: of the cells, [outer, middle, x]. Moving walls and open cells have the velocity
/// (x, y, z). In two dimensions y is zero, and rows along the middle axis are flows of their own.
bool advance(Tensor first, Tensor second, ConstTensor kinds, double x, double y, double z, int64_t steps,
             dimorph::Str collision, Extra extra) {
  dimorph::Size planes("outer"), rows("middle"), directions("directions"), width("x");
  first.expect({planes, rows, directions, width});
  second.expect({planes, rows, directions, width}, first.dtype());
  kinds.expect<uint8_t>({planes, rows, width});
  second.expect_on(first.device());
  kinds.expect_on(first.device());
  first.expect_aligned(64);
  second.expect_aligned(64);
  DIMORPH_CHECK(width % 16 == 0, "advance: argument 'first': expected a multiple of 16 cells along x, got %lld",
                static_cast<long long>(width));
  const int64_t apart = static_cast<const char*>(first.data()) - static_cast<const char*>(second.data());
  const int64_t bytes = first.numel() * first.dtype().bits / 8;
  DIMORPH_CHECK(__builtin_llabs(apart) >= bytes,
                "advance: argument 'second': expected other memory than 'first', got the same in part");
  DIMORPH_CHECK(steps >= 0, "advance: argument 'steps': expected 0 or more, got %lld", static_cast<long long>(steps));
  if (first.numel() == 0) return false;
  DISPATCH_dtype(first.dtype(), DType,
                 DISPATCH_directions(directions, Q,
                                     DISPATCH_collision(collision, COLLISION,
                                                        return DIMORPH_CALL(advance, bool)(first, second, kinds, x, y,
                                                                                           z, steps, extra))));
}
DIMORPH_EXPORT(advance)
