// The entry: checks the arguments, then calls the case for their scene and features. Compiled once.
#include "render_config.h"

/// Adds paths to an image: film[y, x] += the radiance of the paths first to first + samples - 1 of this pixel.
/// film: float32 [height, width, 3], row-major. camera: float32 [4, 3] in host memory: where it is, and in the frame of
/// the scene the direction of the first pixel's corner and the vectors from a pixel to the next, across and down.
/// depth: surfaces that a path meets at most. The paths depend on seed, pixel and number alone.
void render(Tensor film, ConstTensor camera, int64_t first, int64_t samples, int64_t seed, int64_t depth, int features,
            dimorph::Str scene, Extra extra) {
  dimorph::Size height("height"), width("width");
  film.expect<float>({height, width, 3});
  camera.expect<float>({4, 3});
  camera.expect_on({kDLCPU, 0});
  DIMORPH_CHECK(samples > 0 && samples <= 1 << 20, "render: argument samples: expected 1 to 1048576, got %lld",
                static_cast<long long>(samples));
  DIMORPH_CHECK(first >= 0 && first + samples <= int64_t{1} << 32,
                "render: argument first: expected 0 to 4294967296 - samples, got %lld", static_cast<long long>(first));
  DIMORPH_CHECK(depth > 0 && depth <= 1 << 20, "render: argument depth: expected 1 to 1048576, got %lld",
                static_cast<long long>(depth));
  DISPATCH_features(
      features, FEATURES,
      DISPATCH_scene(scene, SCENE, DIMORPH_CALL(render)(film, camera, first, samples, seed, depth, extra)));
}
DIMORPH_EXPORT(render)
