// The entry: checks the arguments, then calls the case for their dtype, degree and physics. Compiled once.
#include "matrix_free_config.h"

// y = A x, the operator of a physics on continuous finite elements of a degree. E is the number of lanes, elements that
// are computed together.
//
// maps: [batches, 24, E], the coefficients of each element's trilinear map, starts: int32 [batches, blocks, E], where
// the unknowns of its vertices, edges, faces and interior begin; chunks: int32 [chunks, 4], of elements that one thread
// computes in a row: first batch, elements, first and last + 1 of the unknowns that no chunk before it has; colours:
// int32 [colours + 1], where those begin that may be computed at the same time. x and y: [unknowns].
void apply(ConstTensor maps, ConstTensor starts, ConstTensor chunks, ConstTensor colours, ConstTensor x, Tensor y,
           int degree, dimorph::Str physics, Extra extra) {
  dimorph::Size batches("batches"), blocks("blocks"), lanes("lanes"), unknowns("unknowns"), rows("chunks"),
      ends("colours + 1");
  x.expect({unknowns});
  y.expect({unknowns}, x.dtype());
  maps.expect({batches, 24, lanes}, x.dtype());
  starts.expect<int32_t>({batches, blocks, lanes});
  chunks.expect<int32_t>({rows, 4});
  colours.expect<int32_t>({ends});
  y.expect_on(x.device());
  DIMORPH_CHECK(x.data() != y.data(), "apply: arguments x and y: expected two arrays, got one");
  DISPATCH_dtype(x.dtype(), DType,
                 DISPATCH_degree(degree, DEGREE,
                                 DISPATCH_physics(physics, PHYSICS_OF_POINT,
                                                  DIMORPH_CALL(apply)(maps, starts, chunks, colours, x, y, extra))));
}
DIMORPH_EXPORT(apply)
