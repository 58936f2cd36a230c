// A scene of a user's own: a Mandelbulb between a ball of glass and a ball of metal, on a dark mirror under an evening
// sky.
#pragma once
#include "trace.h"

// The natural logarithm: the exponent, and a series for the rest, which is exact to 1e-4.
HD F logarithm(F x) {
#if defined(__CUDACC__)
  return logf(x);
#else
  const Word bits = reinterpret_cast<Word>(x);
  const F exponent = real(bits >> 23) - 127.0f, rest = reinterpret_cast<F>((bits & 0x7fffffu) | 0x3f800000u);
  const F y = (rest - 1.0f) / (rest + 1.0f), yy = y * y;
  return 0.69314718f * exponent + 2.0f * y * (1.0f + yy * (1.0f / 3 + yy * (0.2f + yy * (1.0f / 7))));
#endif
}

// What a point becomes when its angles double and its radius is squared.
HD Vec squared(Vec p) {
  const F flat = p.x * p.x + p.z * p.z + 1e-12f, a = 1.0f - p.y * p.y / flat;
  return {(p.x * p.x - p.z * p.z) * a, 2.0f * p.y * root(flat), 2.0f * p.x * p.z * a};
}

template <typename Params>
struct Gallery : SceneDefaults<Gallery<Params>> {
  float lamp;

  HD static constexpr Sphere glass() { return {{-0.62f, -0.66f, 1.18f}, 0.36f}; }
  HD static constexpr Sphere metal() { return {{1.24f, -0.60f, 0.52f}, 0.42f}; }
  HD explicit Gallery(const Params& p) : lamp(p.lamp) {}
  HD Light light() const { return {{-1.4f, 3.6f, 1.7f}, 1.8f, 1.4f, {lamp, lamp * 0.86f, lamp * 0.66f}, {0, 0, 0}}; }
  HD Vec sky(Vec w) const {
    const F up = least(most(2.2f * w.y, F{}), same(1)), turn = least(most(0.35f + 0.7f * w.x, F{}), same(1)),
            side = turn * turn * (3.0f - 2.0f * turn);
    const F low = (1.0f - up) * (1.0f - up) * (1.0f - up);
    const Vec warm = Point{0.95f, 0.36f, 0.11f}, cold = Point{0.10f, 0.22f, 0.36f}, high = Point{0.02f, 0.06f, 0.15f};
    return (warm * side + cold * (1.0f - side)) * low + high * (1.0f - low);
  }
  HD Span span(Vec o, Vec w) const {
    constexpr float kRadius = 1.9f;  // around all shapes
    Span span = floor_span(o, w, -1.02f, {F{}, same(kFar), F{} > 0.0f});
    const F b = dot(o, w), inside = b * b - dot(o, o) + kRadius * kRadius;
    const F near = most(-b - root(most(inside, F{})), F{});
    span.near = ((inside > 0.0f) & (root(most(inside, F{})) > b)) ? near : span.far;
    return span;
  }
  // The distance is estimated by the derivative of the orbit (J. Hart and others, 1989); `trap` is its least radius.
  HD F bulb(Vec p, F& trap) const {
    p.y = p.y + 0.2f;
    Vec z = p;
    F slope = same(1), r2 = dot(p, p);
    trap = r2;
    for (int n = 0; n < 5; ++n) {
      const Mask inside = r2 < 4.0f;
      if (!any_lane(inside)) break;
      const F r7 = r2 * r2 * r2 * root(r2);
      const Vec next = squared(squared(squared(z))) + p;
      slope = inside ? 8.0f * r7 * slope + 1.0f : slope;
      z = choose(inside, next, z);
      r2 = dot(z, z);
      trap = least(trap, r2);
    }
    const F r = root(r2);
    return 0.5f * logarithm(r) * r / slope;
  }
  HD F distance(Vec p) const {
    F trap;
    return least(least(bulb(p, trap), glass().distance(p)), metal().distance(p));
  }
  HD Surface surface(Vec p, Mask floor) const {
    F trap;
    const F d = bulb(p, trap);
    const Mask on_glass = (glass().distance(p) < least(d, metal().distance(p))) & !floor;
    const Mask on_metal = (metal().distance(p) < d) & !(floor | on_glass);
    const F t = least(most((trap - 0.30f) * 1.5f, F{}), same(1));
    const Vec deep = Point{0.55f, 0.10f, 0.06f}, high = Point{0.96f, 0.78f, 0.52f};
    Vec albedo = deep * (1.0f - t) + high * t;
    albedo = choose(floor, Point{0.42f, 0.44f, 0.50f}, albedo);
    albedo = choose(on_metal, Point{0.98f, 0.80f, 0.46f}, choose(on_glass, Point{0.97f, 0.99f, 0.99f}, albedo));
    const Mask metallic = floor | on_metal;
    return {choose(floor, Point{0, 1, 0}, this->gradient(p)), albedo, floor ? same(0.015f) : same(0.02f), metallic,
            on_glass};
  }
};
