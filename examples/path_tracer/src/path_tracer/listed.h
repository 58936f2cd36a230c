// The scene that is read from tables, one shape after the other: slower than a scene that is compiled in, but there at
// once for every list of shapes.
#pragma once
#include "trace.h"

enum Kind { kRoom, kFloor, kBox, kSphere };
constexpr int kShapeRow = 10;    // kind, material, centre, half sides or radius, cosine and sine of the turn
constexpr int kMaterialRow = 6;  // albedo, roughness, 1 for metal, 1 for glass

template <typename Params>
struct Listed : SceneDefaults<Listed<Params>> {
  const Params& p;

  HD explicit Listed(const Params& params) : p(params) {}
  HD Point lamp(int at) const { return {p.lamp[at], p.lamp[at + 1], p.lamp[at + 2]}; }
  HD Light light() const { return {lamp(0), p.lamp[3], p.lamp[4], lamp(5), lamp(8)}; }
  HD Vec sky(Vec w) const {
    const F up = least(most(w.y, F{}), same(1));
    return Vec(lamp(11)) * (1.0f - up) + Vec(lamp(14)) * up;
  }
  HD const float* row(int i) const { return p.shapes + i * kShapeRow; }
  HD int kind(int i) const { return static_cast<int>(row(i)[0]); }
  HD Box box(int i) const {
    const float* r = row(i);
    return {{r[2], r[3], r[4]}, {r[5], r[6], r[7]}, r[8], r[9]};
  }
  HD Sphere sphere(int i) const { return {box(i).centre, row(i)[5]}; }

  HD Span span(Vec o, Vec w) const {
    Span all{F{}, same(kFar), F{} > 0.0f};
    for (int i = 0; i < p.count; ++i) {
      if (kind(i) == kRoom) all = room_span(o, w);
      if (kind(i) == kFloor) all = floor_span(o, w, row(i)[3], all);
    }
    return all;
  }
  HD F shape(int i, Vec at) const {
    return kind(i) == kBox ? box(i).distance(at) : kind(i) == kSphere ? sphere(i).distance(at) : same(kFar);
  }
  HD F distance(Vec at) const {
    F nearest = same(kFar);
    for (int i = 0; i < p.count; ++i) nearest = blended(nearest, shape(i, at), p.blend);
    return nearest;
  }
  HD F step(Vec o, Vec w, F t) const {
    if (p.blend > 0) return size(distance(o + w * t));
    F step = same(kFar);
    for (int i = 0; i < p.count; ++i) {
      if (kind(i) == kBox) step = least(step, box(i).step(o, w, t));
      if (kind(i) == kSphere) step = least(step, sphere(i).step(o, w, t));
    }
    return step;
  }
  HD Surface surface(Vec at, Mask flat) const {
    F nearest = same(kFar);
    Surface found{{}, {}, F{}, flat, flat};
    for (int i = 0; i < p.count; ++i) {
      const float* material = p.materials + static_cast<int>(row(i)[1]) * kMaterialRow;
      if (kind(i) == kRoom) {  // three materials: of the side at x = -1, of that at x = 1, and of the others
        const Mask side = flat & (size(at.x) > 0.9999f);
        put(found, material, side & (at.x < 0.0f));
        put(found, material + kMaterialRow, side & (at.x > 0.0f));
        put(found, material + 2 * kMaterialRow, flat & !side);
        found.normal = room_normal(at);
      } else if (kind(i) == kFloor) {
        put(found, material, flat);
        found.normal = Point{0, 1, 0};
      } else {
        const F d = size(shape(i, at));
        put(found, material, (d < nearest) & !flat);
        nearest = least(d, nearest);
      }
    }
    found.normal = choose(flat, found.normal, this->gradient(at));
    return found;
  }
  HD static void put(Surface& found, const float* m, Mask where) {
    const F one = same(1), zero{};
    found.albedo = choose(where, Point{m[0], m[1], m[2]}, found.albedo);
    found.roughness = where ? m[3] - zero : found.roughness;
    found.metal = where ? one * m[4] > zero : found.metal;
    found.glass = where ? one * m[5] > zero : found.glass;
  }
};
