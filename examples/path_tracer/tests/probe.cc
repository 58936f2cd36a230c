// Rays through a scene: how far they go, and the distance where they begin.
#include "probe_config.h"

void probe(ConstTensor rays, Tensor out, dimorph::Str scene, Extra extra) {
  dimorph::Size count("count");
  rays.expect<float>({count, 6});
  out.expect<float>({count, 2});
  DISPATCH_scene(scene, SCENE, DIMORPH_CALL(probe)(rays, out, extra));
}
DIMORPH_EXPORT(probe)
