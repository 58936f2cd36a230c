// What a call asks for. The host reads it from the arguments.
#pragma once
#include "lanes.h"

struct Shot {
  Point origin, corner, across, down;  // corner: from the origin to the first pixel's; across and down: of a pixel
  int width, height, first, samples, depth;
  uint32_t seed;
};

#if defined(DIMORPH_HOST)
#include <dimorph/case.h>

inline Shot make_shot(Tensor film, ConstTensor camera, int64_t first, int64_t samples, int64_t seed, int64_t depth) {
  const float* c = camera.data<float>();
  const auto whole = [](int64_t x) { return static_cast<int>(x); };
  return {{c[0], c[1], c[2]},  {c[3], c[4], c[5]},         {c[6], c[7], c[8]}, {c[9], c[10], c[11]},
          whole(film.size(1)), whole(film.size(0)),        whole(first),       whole(samples),
          whole(depth),        static_cast<uint32_t>(seed)};
}
#endif
