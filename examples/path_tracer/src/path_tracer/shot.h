// What a call asks for. The host reads it from the arguments.
#pragma once
#include "lanes.h"

struct Shot {
  Point camera[4];  // its origin, the direction of the first pixel's corner, and the vectors from pixel to pixel
  uint32_t width, height, first, samples, depth, seed;
};

#if defined(DIMORPH_HOST)
#include <dimorph/case.h>

inline Shot make_shot(Tensor film, ConstTensor camera, int64_t first, int64_t samples, int64_t seed, int64_t depth) {
  const auto word = [](int64_t x) { return static_cast<uint32_t>(x); };
  Shot shot{{}, word(film.size(1)), word(film.size(0)), word(first), word(samples), word(depth), word(seed)};
  __builtin_memcpy(shot.camera, camera.data(), sizeof shot.camera);
  return shot;
}
#endif
