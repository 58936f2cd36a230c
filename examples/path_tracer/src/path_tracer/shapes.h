// Shapes: the signed distance of a point, and how far a ray may go from there without passing through the surface.
#pragma once
#include "lanes.h"

// Distances of convex shapes are convex functions along a ray, which lie above their tangents. So a step of Newton's
// method never passes the surface, and where the distance does not fall the ray has left the shape behind: the step is
// then very long.
constexpr float kFar = 1e9f;
HD F newton(F distance, F fall) { return distance / most(fall, same(1e-20f)); }

// The axis along which |p| is largest, with the sign of `q` there.
HD Vec largest(Vec p, Vec q) {
  const Mask x = (p.x > p.y) & (p.x > p.z), y = (p.y > p.z) & !x;
  const F zero{}, one = same(1);
  return {x ? (q.x < 0.0f ? -one : one) : zero, y ? (q.y < 0.0f ? -one : one) : zero,
          (x | y) ? zero : (q.z < 0.0f ? -one : one)};
}

// An upright box, turned about the y axis.
struct Box {
  Point centre, half;
  float cosine, sine;

  HD Vec turned(Vec p) const { return {p.x * cosine - p.z * sine, p.y, p.x * sine + p.z * cosine}; }
  HD Vec beyond(Vec q) const { return Vec{size(q.x), size(q.y), size(q.z)} - half; }  // outside of each side
  HD F outside(Vec p) const {                                                         // of the side that is farthest in
    const Vec d = beyond(turned(p - centre));
    return most(most(d.x, d.y), d.z);
  }
  HD Vec inside(Vec q) const {  // the point of the box that is nearest
    return {most(least(q.x, same(half.x)), same(-half.x)), most(least(q.y, same(half.y)), same(-half.y)),
            most(least(q.z, same(half.z)), same(-half.z))};
  }
  HD F distance(Vec p) const {
    const Vec q = turned(p - centre), out = q - inside(q);
    return root(dot(out, out)) + least(outside(p), F{});
  }
  HD F step(Vec o, Vec w, F t) const {
    const Vec v = turned(w), q = turned(o - centre) + v * t, in = inside(q) - q;
    return newton(dot(in, in), dot(in, v));  // both times the distance
  }
  HD Vec normal(Vec p) const {
    const Vec q = turned(p - centre), n = largest(beyond(q), q);
    return {n.x * cosine + n.z * sine, n.y, n.z * cosine - n.x * sine};
  }
};

struct Sphere {
  Point centre;
  float radius;

  HD F distance(Vec p) const { return root(dot(p - centre, p - centre)) - radius; }
  HD F step(Vec o, Vec w, F t) const {
    const Vec q = o - centre + w * t;
    const F r = root(dot(q, q)), d = r - radius;
    return d > 0.0f ? newton(d * r, -dot(q, w)) : -d;  // inside it is not convex, but may be glass
  }
};

// The smaller of two distances, rounded where they differ by less than `width` (I. Quilez, "Smooth minimum", 2013).
HD F blended(F a, F b, float width) {
  const F near = most(width - size(a - b), F{});
  return width > 0 ? least(a, b) - near * near * (0.25f / width) : least(a, b);
}

// The stretch of a ray in which surfaces are sought by steps; `closed` where an opaque surface is at its end.
struct Span {
  F near, far;
  Mask closed;
};
// In the room, the cube from -1 to 1, which is open at z = 1. Rays begin inside, or in front of it.
HD Span room_span(Vec o, Vec w) {
  const F one = same(1), up = 1.0f / w.z;
  const F x = ((w.x < 0.0f ? -one : one) - o.x) / w.x, y = ((w.y < 0.0f ? -one : one) - o.y) / w.y;
  const F front = (one - o.z) * up, back = (-one - o.z) * up, z = most(front, back);
  const F near = most(least(front, back), F{}), far = least(least(x, y), z);
  const Mask closed = (near < far) & ((w.z < 0.0f) | (far < z));
  return {near, far, closed};
}
HD Vec room_normal(Vec p) { return largest({size(p.x), size(p.y), size(p.z)}, Vec{} - p); }
// Above the level y = height, if the ray falls to it before the end of `span`.
HD Span floor_span(Vec o, Vec w, float height, Span span) {
  const F t = (height - o.y) / w.y;
  const Mask falls = (w.y < 0.0f) & (t > 0.0f) & (t < span.far), closed = span.closed | falls;
  return {span.near, falls ? t : span.far, closed};
}
