// A scene whose image is known: a ball of one material under a sky that shines 1 from everywhere.
#pragma once
#include "trace.h"

template <typename Params>
struct Furnace : SceneDefaults<Furnace<Params>> {
  const Params& params;

  HD explicit Furnace(const Params& p) : params(p) {}
  HD static constexpr Light light() { return {{0, 9, 0}, 1, 1, {0, 0, 0}, {0, 0, 0}}; }
  HD F distance(Vec p) const { return Sphere{{0, 0, 0}, 1}.distance(p); }
  HD Vec sky(Vec) const { return Point{1, 1, 1}; }
  HD Surface surface(Vec p, Mask) const {
    const F kind = same(static_cast<float>(params.kind));
    return {this->gradient(p), Point{params.albedo, params.albedo, params.albedo}, F{}, kind == 1.0f, kind == 2.0f};
  }
};
