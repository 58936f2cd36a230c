#include <dimorph/entry.h>

#include "weighted_config.h"

// The sum of x[i] * weights[i], and 1000 for each optional tensor that is given; x: [width].
double weighted(ConstTensor x, int64_t rows, int64_t columns, Extra extra) {
  DISPATCH_dtype(
      x.dtype(), DType,
      DISPATCH_width(x.size(0), WIDTH,
                     DISPATCH_shape(rows, columns, ROWS, COLUMNS, return DIMORPH_CALL(weighted, double)(x, extra))));
}
DIMORPH_EXPORT(weighted)
