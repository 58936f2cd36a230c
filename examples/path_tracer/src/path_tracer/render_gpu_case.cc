// The case for the GPU, on the host: launches the device code over blocks of pixels.
#include <dimorph/cuda.h>

#include "render_config.h"
#include "shot.h"

namespace DIMORPH_CASE {

static_assert(BLOCK % (8 * SPLIT) == 0, "a block has rows of 8 pixels: expected block to be a multiple of 8 * split");

void render(Tensor film, ConstTensor camera, int64_t first, int64_t samples, int64_t seed, int64_t depth,
            Extra extra) noexcept {
  AdditionalParams scene{};
  if (!extra.fill(scene)) return;
  const Shot shot = make_shot(film, camera, first, samples, seed, depth);
  constexpr unsigned kDown = BLOCK / SPLIT / 8;  // a block has 8 x kDown pixels
  dimorph::cuda::Config config;
  config.grid.x = (shot.width + 7) / 8;
  config.grid.y = (shot.height + kDown - 1) / kDown;
  config.block.x = BLOCK;
  DIMORPH_LAUNCH(render_kernel, film.device(), config, scene, shot, film.data<float>());
}

}  // namespace DIMORPH_CASE
