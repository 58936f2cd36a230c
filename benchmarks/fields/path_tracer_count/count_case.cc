// The case: the paths of examples/path_tracer with numbers that count what is done with them.
#include "count_config.h"
#include "scenes.h"

namespace DIMORPH_CASE {

struct Pixel {
  uint32_t left, top, count, next;
  double sum;

  Word take(Mask) { return next++; }
  Mask has(Word job) const { return job < count; }
  Word x(Word) const { return left; }
  Word y(Word) const { return top; }
  Word sample(Word job) const { return job; }
  void add(Mask ended, Word, Vec radiance) {
    if (ended) sum += double{radiance.x.v} + double{radiance.y.v} + double{radiance.z.v};
  }
};

void count(ConstTensor camera, View<double, 1> out, int64_t samples) noexcept {
  operations = 0;
  out(1) = 0;
  const float* c = camera.data<float>();
  const Shot shot{{c[0], c[1], c[2]},
                  {c[3], c[4], c[5]},
                  {c[6], c[7], c[8]},
                  {c[9], c[10], c[11]},
                  64,
                  64,
                  0,
                  static_cast<int>(samples),
                  8,
                  1};
  for (uint32_t y = 0; y < 64; ++y)
    for (uint32_t x = 0; x < 64; ++x) {
      Pixel pixel{x, y, static_cast<uint32_t>(samples), 0, 0};
      trace<FEATURES>(CornellBox<int>(0), shot, pixel);
      out(1) += pixel.sum / (64.0 * 64.0 * static_cast<double>(samples));
    }
  out(0) = static_cast<double>(operations) / (64.0 * 64.0 * static_cast<double>(samples));
}

}  // namespace DIMORPH_CASE
