// The device code: a thread traces paths of one pixel, one after the other; SPLIT neighbours share the paths of theirs.
#include "render_config.h"
#include "shot.h"

namespace DIMORPH_CASE {

struct Pixel {
  uint32_t left, top, first, count, next;
  Point sum;

  HD uint32_t take(bool) { return (next += SPLIT) - SPLIT; }
  HD bool has(uint32_t job) const { return job < count; }
  HD Place place(uint32_t job) const { return {left, top, job + first}; }
  HD void add(bool ended, uint32_t, Vec radiance) {
    if (ended) sum = {sum.x + radiance.x, sum.y + radiance.y, sum.z + radiance.z};
  }
};

__device__ float of_all(float sum) {
  for (int lane = 1; lane < SPLIT; lane *= 2) sum += __shfl_xor_sync(0xffffffffu, sum, lane);
  return sum;
}

extern "C" __global__ void __launch_bounds__(BLOCK)
    render_kernel(const __grid_constant__ AdditionalParams scene, const __grid_constant__ Shot shot, float* film) {
  const uint32_t pixel = threadIdx.x / SPLIT, part = threadIdx.x % SPLIT;
  const uint32_t x = blockIdx.x * 8 + pixel % 8, y = blockIdx.y * (BLOCK / SPLIT / 8) + pixel / 8;
  const bool inside = x < shot.width && y < shot.height;
  Pixel one{x, y, shot.first, inside ? shot.samples : 0, part, {}};
  trace<FEATURES>(SCENE<AdditionalParams>(scene), shot, one);
  const Point sum{of_all(one.sum.x), of_all(one.sum.y), of_all(one.sum.z)};
  float* out = film + (static_cast<size_t>(y) * shot.width + x) * 3;
  if (inside && part == 0) out[0] += sum.x, out[1] += sum.y, out[2] += sum.z;
}

}  // namespace DIMORPH_CASE
