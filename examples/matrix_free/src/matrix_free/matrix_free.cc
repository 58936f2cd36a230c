// The entry: checks the arguments, then calls the case for their dtype, degree and physics. Compiled once.
#include "matrix_free_config.h"

// y = A x, the operator of a physics on continuous finite elements of a degree. x and y: [unknowns].
//
// maps: [batches, 24, lanes], the coefficients of the elements' trilinear maps, where `lanes` elements make a batch; on
// a GPU one. starts: int32 [batches, blocks, lanes], the first unknown of each block of nodes (nodes.h). In host
// memory: chunks, int32 [chunks, 4], what one thread computes in a row: first batch, elements, first and last + 1 of
// the shared unknowns that it is the first to use; colours, int32 [colours + 1], where those begin that share nothing.
void apply(ConstTensor maps, ConstTensor starts, ConstTensor chunks, ConstTensor colours, ConstTensor x, Tensor y,
           int degree, dimorph::Str physics, Extra extra) {
  dimorph::Size batches("batches"), blocks("blocks"), lanes("lanes"), n("unknowns"), rows("chunks"), end("colours + 1");
  x.expect({n});
  y.expect({n}, x.dtype());
  maps.expect({batches, 24, lanes}, x.dtype());
  starts.expect<int32_t>({batches, blocks, lanes});
  chunks.expect<int32_t>({rows, 4});
  colours.expect<int32_t>({end});
  y.expect_on(x.device());
  maps.expect_on(x.device());
  starts.expect_on(x.device());
  chunks.expect_on({kDLCPU, 0});
  const int64_t apart = static_cast<const char*>(x.data()) - static_cast<const char*>(y.data());
  DIMORPH_CHECK(__builtin_llabs(apart) >= n * x.dtype().bits / 8, "apply: argument 'y': expected no memory of x");
  DISPATCH_dtype(x.dtype(), DType,
                 DISPATCH_degree(degree, DEGREE,
                                 DISPATCH_physics(physics, PHYSICS_OF_POINT,
                                                  DIMORPH_CALL(apply)(maps, starts, chunks, colours, x, y, extra))));
}
DIMORPH_EXPORT(apply)
