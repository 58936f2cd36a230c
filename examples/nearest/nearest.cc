// The entry: makes a tree of points for a metric, and asks it.
#include "nearest_config.h"

// points: [count, dim], row-major. The tree keeps them and the arrays of the metric, without copies.
dimorph::NewHandle build(ConstTensor points, dimorph::Str metric, Extra extra) {
  dimorph::Size count("count"), dim("dim");
  points.expect({count, dim});
  DISPATCH_dtype(
      points.dtype(), DType,
      DISPATCH_dim(dim, DIM,
                   DISPATCH_metric(metric, METRIC, return DIMORPH_CALL(build, dimorph::NewHandle)(points, extra))));
}
DIMORPH_EXPORT(build)

// rows, distances: [count, k], of the k points nearest to each x[i, :], the nearest first.
void query(dimorph::Handle<> tree, ConstTensor x, Tensor rows, Tensor distances) {
  dimorph::Size count("count"), k("k");
  rows.expect<int64_t>({count, k});
  distances.expect({count, k}, x.dtype());
  DIMORPH_CALL_ON(tree, query)(tree, x, rows, distances);
}
DIMORPH_EXPORT(query)
