// The entry: checks the arguments, then calls the case for their dtype and the binning that the call names.
#include "histogram_config.h"

// counts[b] = number of elements of x in bin b.
void histogram(ConstTensor x, Tensor counts, dimorph::Str binning, Extra extra) {
  dimorph::Size count("count"), bins("bins");
  x.expect({count});
  counts.expect<int64_t>({bins});
  DISPATCH_dtype(x.dtype(), DType, DISPATCH_binning(binning, BINNING, DIMORPH_CALL(histogram)(x, counts, extra)));
}
DIMORPH_EXPORT(histogram)
