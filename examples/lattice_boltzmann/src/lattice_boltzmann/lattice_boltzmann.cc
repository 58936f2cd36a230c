// The entry: checks the arguments, then calls the case for their dtype, lattice and collision model. Compiled once.
#include "lattice_boltzmann_config.h"

/// Advances the populations, [outer, middle, directions, x], by some steps. The arrays take turns; returns true where
/// the result is in `second`. cells: the kinds of cells, [outer, middle, x]. The velocity, in cells a step along x, the
/// middle and the outer axis, is that of moving walls and open cells.
bool advance(Tensor first, Tensor second, ConstTensor cells, double vx, double vm, double vo, int64_t steps,
             dimorph::Str collision, Extra extra) {
  dimorph::Size planes("outer"), rows("middle"), directions("directions"), width("x");
  first.expect({planes, rows, directions, width});
  second.expect({planes, rows, directions, width}, first.dtype());
  cells.expect<uint8_t>({planes, rows, width});
  second.expect_on(first.device());
  cells.expect_on(first.device());
  const long long wide = width, deep = rows, count = steps;
  DIMORPH_CHECK(wide % 16 == 0, "advance: argument 'first': expected a multiple of 16 cells along x, got %lld", wide);
  DIMORPH_CHECK(directions != 9 || deep == 1, "advance: argument 'first': expected 1 cell in the middle, got %lld",
                deep);
  DIMORPH_CHECK(count >= 0, "advance: argument 'steps': expected 0 or more, got %lld", count);
  const auto address = reinterpret_cast<uintptr_t>(first.data()), other = reinterpret_cast<uintptr_t>(second.data());
  DIMORPH_CHECK(address % 64 == 0, "advance: argument 'first': expected memory at a multiple of 64 bytes");
  DIMORPH_CHECK(other % 64 == 0, "advance: argument 'second': expected memory at a multiple of 64 bytes");
  DIMORPH_CHECK(address != other, "advance: argument 'second': expected other memory than that of 'first'");
  if (first.numel() == 0 || steps == 0) return false;
  DISPATCH_dtype(first.dtype(), DType,
                 DISPATCH_directions(directions, Q,
                                     DISPATCH_collision(collision, COLLISION,
                                                        return DIMORPH_CALL(advance, bool)(first, second, cells, vx, vm,
                                                                                           vo, steps, extra))));
  return false;
}
DIMORPH_EXPORT(advance)
