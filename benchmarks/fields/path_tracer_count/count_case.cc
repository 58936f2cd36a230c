// The case: the paths of examples/path_tracer with numbers that count what is done with them.
#include "count_config.h"
#include "scenes.h"

namespace DIMORPH_CASE {

struct Pixel {
  uint32_t left, top, count, next;
  double sum;

  Word take(Mask) { return next++; }
  Mask has(Word job) const { return job < count; }
  Place place(Word job) const { return {left, top, job}; }
  void add(Mask ended, Word, Vec radiance) {
    if (ended) sum += double{radiance.x.v} + double{radiance.y.v} + double{radiance.z.v};
  }
};

void count(ConstTensor camera, View<double, 1> out, int64_t samples) noexcept {
  operations = 0;
  out(1) = 0;
  Shot shot{{}, 64, 64, 0, static_cast<uint32_t>(samples), 8, 1};
  __builtin_memcpy(shot.camera, camera.data(), sizeof shot.camera);
  for (uint32_t y = 0; y < 64; ++y)
    for (uint32_t x = 0; x < 64; ++x) {
      Pixel pixel{x, y, static_cast<uint32_t>(samples), 0, 0};
      trace<FEATURES>(CornellBox<int>(0), shot, pixel);
      out(1) += pixel.sum / (64.0 * 64.0 * static_cast<double>(samples));
    }
  out(0) = static_cast<double>(operations) / (64.0 * 64.0 * static_cast<double>(samples));
}

}  // namespace DIMORPH_CASE
