// The case: a thread traces a tile of the image at a time, in each lane of its vectors one path after the other.
#include <dimorph/parallel.h>

#include "render_config.h"
#include "shot.h"

namespace DIMORPH_CASE {

constexpr uint32_t kTile = 16, kPixels = kTile * kTile;

// The paths of a tile: job / kPixels is the sample, the rest the pixel.
struct Tile {
  uint32_t left, top, first, count, next;
  Point sums[kPixels];

  HD Word take(Mask lanes) {
    Word job{};
    for (unsigned rest = bits(lanes); rest; rest &= rest - 1) job[__builtin_ctz(rest)] = next++;
    return job;
  }
  HD Mask has(Word job) const { return job < count; }
  HD Place place(Word job) const { return {job % kTile + left, job / kTile % kTile + top, job / kPixels + first}; }
  HD void add(Mask lanes, Word job, Vec radiance) {
    for (unsigned rest = bits(lanes); rest; rest &= rest - 1) {
      const int lane = __builtin_ctz(rest);
      Point& sum = sums[job[lane] % kPixels];
      sum = {sum.x + radiance.x[lane], sum.y + radiance.y[lane], sum.z + radiance.z[lane]};
    }
  }
};

void render(Tensor film, ConstTensor camera, int64_t first, int64_t samples, int64_t seed, int64_t depth,
            Extra extra) noexcept {
  AdditionalParams params{};
  if (!extra.fill(params)) return;
  const SCENE<AdditionalParams> scene(params);
  const Shot shot = make_shot(film, camera, first, samples, seed, depth);
  const uint32_t across = (shot.width + kTile - 1) / kTile, down = (shot.height + kTile - 1) / kTile;
  dimorph::parallel_for(int64_t{across} * down, [&](int64_t i) {
    const uint32_t at = static_cast<uint32_t>(i), left = at % across * kTile, top = at / across * kTile;
    Tile tile{left, top, shot.first, shot.samples * kPixels, 0, {}};
    trace<FEATURES>(scene, shot, tile);
    for (uint32_t y = top; y < shot.height && y < top + kTile; ++y)
      for (uint32_t x = left; x < shot.width && x < left + kTile; ++x) {
        float* out = film.data<float>() + (int64_t{y} * shot.width + x) * 3;
        const Point& sum = tile.sums[(y - top) * kTile + x - left];
        out[0] += sum.x, out[1] += sum.y, out[2] += sum.z;
      }
  });
}

}  // namespace DIMORPH_CASE
