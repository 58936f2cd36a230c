// The case: the march of the path tracer, for one ray in each lane.
#include "probe_config.h"
#include "trace.h"

namespace DIMORPH_CASE {

void probe(View<const float, 2> rays, View<float, 2> out, Extra extra) noexcept {
  AdditionalParams params{};
  if (!extra.fill(params)) return;
  const SCENE<AdditionalParams> scene(params);
  for (int64_t first = 0; first < rays.size(0); first += kLanes) {
    F in[6]{};
    Mask used{};
    const int64_t lanes = rays.size(0) - first < kLanes ? rays.size(0) - first : kLanes;
    for (int64_t lane = 0; lane < lanes; ++lane) {
      used[lane] = -1;
      for (int i = 0; i < 6; ++i) in[i][lane] = rays(first + lane, i);
    }
    Ray ray{};
    ray.o = {in[0], in[1], in[2]};
    ray.w = {in[3], in[4], in[5]};
    ray.begin(scene.span(ray.o, ray.w), used, F{} + kFar);
    for (int n = 0; n < kSteps && any_lane(ray.advance(scene)); ++n) continue;
    const F t = ray.t < ray.end ? ray.t : ray.closed ? ray.end : F{} + kFar;
    const F distance = scene.distance(ray.o);
    for (int64_t lane = 0; lane < lanes; ++lane) out(first + lane, 0) = t[lane], out(first + lane, 1) = distance[lane];
  }
}

}  // namespace DIMORPH_CASE
