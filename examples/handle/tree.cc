// The entry: one function makes a tree of points, the other asks it.
#include "tree_config.h"

// points: [count, dim], row-major. The tree keeps them, without a copy.
dimorph::NewHandle build(ConstTensor points) {
  dimorph::Size count("count"), dim("dim");
  points.expect({count, dim});
  DISPATCH_dtype(points.dtype(), DType, DISPATCH_dim(dim, DIM, return DIMORPH_CALL(build, dimorph::NewHandle)(points)));
}
DIMORPH_EXPORT(build)

// nearest[i] = the row of the point that is nearest to x[i, :]. x: [rows, dim], of the dtype of the points.
void query(dimorph::Handle<> tree, ConstTensor x, Tensor nearest) {
  dimorph::Size rows("rows");
  nearest.expect<int64_t>({rows});
  DIMORPH_CALL_ON(tree, query)(tree, x, nearest);
}
DIMORPH_EXPORT(query)
