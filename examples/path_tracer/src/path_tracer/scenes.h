// Scenes that are compiled in. A scene of your own is a struct such as these, in a header of your own.
#pragma once
#include "trace.h"

// The Cornell box (C. Goral and others, 1984), with the measures and colours of Mitsuba's `cornell_box()`.
template <typename Params>
struct CornellBox : SceneDefaults<CornellBox<Params>> {
  HD static constexpr Box small() { return {{0.335f, -0.7f, 0.38f}, {0.3f, 0.3f, 0.3f}, 0.956305f, -0.292372f}; }
  HD static constexpr Box large() { return {{-0.33f, -0.4f, -0.28f}, {0.3f, 0.61f, 0.3f}, 0.949699f, 0.313164f}; }
  HD static constexpr Point white() { return {0.885809f, 0.698859f, 0.666422f}; }
  HD static constexpr Light light() {
    return {{0, 0.99f, 0.01f}, 0.23f, 0.19f, {18.387f, 13.9873f, 6.75357f}, white()};
  }

  HD explicit CornellBox(const Params&) {}
  HD Span span(Vec o, Vec w) const { return room_span(o, w); }
  HD Span span_to_light(Vec, Vec) const { return {F{}, same(kFar), F{} > 0.0f}; }  // no wall is between
  HD F distance(Vec p) const { return least(small().distance(p), large().distance(p)); }
  HD F step(Vec o, Vec w, F t) const { return least(small().step(o, w, t), large().step(o, w, t)); }
  HD Surface surface(Vec p, Mask wall) const {
    const Mask first = small().outside(p) < large().outside(p), side = wall & (size(p.x) > 0.9999f);
    const Vec of_side =
        choose(p.x < 0.0f, Point{0.570068f, 0.0430135f, 0.0443706f}, Point{0.105421f, 0.37798f, 0.076425f});
    return {choose(wall, room_normal(p), choose(first, small().normal(p), large().normal(p))),
            choose(side, of_side, white()), F{}, F{} > 0.0f, F{} > 0.0f};
  }
};
