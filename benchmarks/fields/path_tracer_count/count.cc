// The entry: out holds the operations of one path for each pixel of a 64 x 64 image, and the sum of the radiances.
#include "count_config.h"

void count(ConstTensor camera, Tensor out, int64_t samples) {
  camera.expect<float>({4, 3});
  out.expect<double>({2});
  DISPATCH_features(0, FEATURES, DIMORPH_CALL(count)(camera, out, samples));
}
DIMORPH_EXPORT(count)
