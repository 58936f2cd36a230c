// Paths of light, by one function for vectors of paths and for single ones (J. Kajiya, "The rendering equation", 1986).
#pragma once
#include "shapes.h"
#include "shot.h"

enum Features { kMetal = 1, kGlass = 2 };

constexpr float kClose = 2e-4f;  // so near, a ray has met a surface
constexpr float kSure = 1e9f;    // the density of a direction that is not spread, or that the light is not sampled for
constexpr int kSteps = 256;      // of one ray
constexpr uint32_t kRoulette = 2;  // after so many surfaces, paths end by chance
constexpr float kPi = 3.14159265f;

struct Place {
  Word x, y, sample;
};

struct Surface {
  Vec normal, albedo;  // the normal points outward
  F roughness;         // of metal
  Mask metal, glass;   // else it is diffuse
};

// A level rectangle that shines downward, and is black above. It is no part of the distance.
struct Light {
  Point centre;
  float x, z;  // half of its sides
  Point radiance, albedo;

  HD float area() const { return 4 * x * z; }
  HD F meet(Vec o, Vec w) const {
    const F t = (centre.y - o.y) / w.y;
    const Mask inside = (size(o.x + t * w.x - centre.x) < x) & (size(o.z + t * w.z - centre.z) < z);
    return ((t > 0.0f) & inside) ? t : same(kFar);
  }
};

// What scenes have unless they say otherwise.
template <typename Scene>
struct SceneDefaults {
  HD const Scene& scene() const { return *static_cast<const Scene*>(this); }
  HD Span span(Vec, Vec) const { return {F{}, same(kFar), F{} > 0.0f}; }
  HD Span span_to_light(Vec o, Vec w) const { return scene().span(o, w); }
  // How far the ray may go from o + w * t.
  HD F step(Vec o, Vec w, F t) const { return size(scene().distance(o + w * t)); }
  HD Vec sky(Vec) const { return Vec{}; }
  // The gradient of the distance, by differences in the four directions of a tetrahedron.
  HD Vec gradient(Vec p) const {
    constexpr float e = 5e-4f;
    const F a = scene().distance(p + Point{e, -e, -e}), b = scene().distance(p + Point{-e, -e, e});
    const F c = scene().distance(p + Point{-e, e, -e}), d = scene().distance(p + Point{e, e, e});
    return unit({a - b - c + d, c + d - a - b, b + d - a - c});
  }
};

struct Ray {
  Vec o, w;
  F t, end;
  Mask closed;  // a surface is at `end`

  HD void begin(Span span, Mask active, F limit) {
    t = span.near;
    end = active ? least(span.far, limit) : same(-kFar);
    closed = span.closed & (span.far <= limit);
  }
  // Goes as far as the scene allows; true where the ray has neither met a surface nor come to its end.
  template <typename Scene>
  HD Mask advance(const Scene& scene) {
    const F step = least(scene.step(o, w, t), same(kFar));
    const Mask apart = step > kClose;
    t = apart ? t + step : t;
    return apart & (t < end);
  }
};

// Traces the paths that `film` hands out, in each lane one after the other: take(lanes), has(job), place(job),
// add(lanes, job, radiance).
template <int FEATURES, typename Scene, typename Film>
HD void trace(const Scene& scene, const Shot& shot, Film& film) {
  const Light light = scene.light();
  const F zero{}, one = same(1);
  const Mask none = zero > 0.0f;
  Mask fresh = !none, ended = none, lit = none;
  Word job = film.take(fresh), done = job, key{}, depth{};
  Mask open = film.has(job);
  Vec radiance{}, weight{}, pending{};  // pending: what arrives if the light is not hidden
  F density{}, hidden{};                // hidden: the distance at which the light is
  Ray ray{}, shadow{};
  for (;;) {
    if (any_lane(fresh)) {  // a new path from the camera
      const Place place = film.place(job);
      const Word start =
          scatter((place.y * shot.width + place.x) ^ scatter(place.sample ^ scatter(shot.seed + Word{})));
      const Pair in_pixel = chances(start, 0);
      const F u = real(place.x) + in_pixel.u, v = real(place.y) + in_pixel.v;
      ray.o = choose(fresh, shot.camera[0], ray.o);
      ray.w = choose(fresh, unit(shot.camera[1] + Vec(shot.camera[2]) * u + Vec(shot.camera[3]) * v), ray.w);
      weight = choose(fresh, {one, one, one}, weight);
      density = fresh ? same(kSure) : density;
      depth = fresh ? Word{} : depth;
      key = fresh ? start : key;
    }
    const F shining = light.meet(ray.o, ray.w);
    ray.begin(scene.span(ray.o, ray.w), open, shining);
    shadow.begin(scene.span_to_light(shadow.o, shadow.w), lit, hidden);
    for (int n = 0; n < kSteps && any_lane(ray.advance(scene) | shadow.advance(scene)); ++n) continue;

    // The shadow ray belongs to the bounce before; where that was the last of its path, the path is complete now.
    const Mask clear = lit & (shadow.t >= shadow.end) & !shadow.closed;
    radiance = radiance + choose(clear, pending, Vec{});
    film.add(ended, done, radiance);
    radiance = choose(ended, Vec{}, radiance);
    if (!any_lane(open)) break;

    const Mask flat = ray.t >= ray.end;  // at the end of the span
    const Mask on_light = flat & !ray.closed & (ray.end >= shining) & (shining < kFar),
               met = on_light | ray.closed | !flat;
    const F t = least(ray.t, ray.end);
    const Vec p = ray.o + ray.w * t;
    Surface s = scene.surface(p, flat);
    const Mask below = ray.w.y > 0.0f;
    s.normal = choose(on_light, Point{0, -1, 0}, s.normal);
    s.albedo = choose(on_light, Vec(light.albedo) * (below ? one : zero), s.albedo);
    if (FEATURES) s.metal = s.metal & !on_light, s.glass = s.glass & !on_light;
    // Of two ways to find a point of the light, each counts by its density (E. Veach, 1997: balance heuristic).
    const F aimed = t * t / (ray.w.y * light.area());
    radiance = radiance + weight * light.radiance * ((on_light & below) ? density / (density + aimed) : zero);
    radiance = radiance + weight * choose(met, Vec{}, scene.sky(ray.w));

    // Sample the light.
    key += 0x9e3779b9u * 4;
    depth += 1u;
    const Mask last = depth >= shot.depth;
    const F facing = dot(ray.w, s.normal);
    const Vec n = choose(facing > 0.0f, s.normal * -one, s.normal), above = p + n * same(3 * kClose);
    const Pair on_it = chances(key, 1);
    const F x = light.centre.x - light.x + 2 * light.x * on_it.u, z = light.centre.z - light.z + 2 * light.z * on_it.v;
    const Vec to = Vec{x, same(light.centre.y), z} - above;
    const F far = root(dot(to, to));
    weight = weight * s.albedo;
    shadow.o = above;
    shadow.w = to * (1.0f / far);
    hidden = far * 0.9999f - kClose;
    const F cosine = dot(shadow.w, n), diffuse = cosine * (1 / kPi);
    pending = weight * light.radiance * (diffuse / (far * far / (shadow.w.y * light.area()) + diffuse));
    lit = open & met & !last & (cosine > 0.0f) & (shadow.w.y > 0.0f);
    if (FEATURES) lit = lit & !(s.metal | s.glass);

    // Sample the surface: a diffuse one by the cosine, as the normal plus a point of the unit sphere is distributed.
    const Vec point = on_sphere(chances(key, 2));
    const Pair fate = chances(key, 3);
    const F length = root(most(dot(n + point, n + point), same(1e-12f)));
    Vec next = (n + point) * (1.0f / length);
    density = length * (0.5f / kPi);
    ray.o = above;
    if (FEATURES & kMetal) {
      const Vec mirrored = unit(ray.w - n * (2.0f * dot(ray.w, n)) + point * s.roughness);
      next = choose(s.metal, mirrored, next);
      weight = weight * ((s.metal & (dot(mirrored, n) < 0.0f)) ? zero : one);
      density = s.metal ? same(kSure) : density;
    }
    if (FEATURES & kGlass) {  // Fresnel's equations, for an index of refraction of 1.5
      const F eta = facing < 0.0f ? same(1 / 1.5f) : same(1.5f), c = size(facing);
      const F inside = 1.0f - eta * eta * (1.0f - c * c), e = root(most(inside, zero));
      const F across = (c - eta * e) / (c + eta * e), along = (e - eta * c) / (e + eta * c);
      const F mirror = inside > 0.0f ? 0.5f * (across * across + along * along) : one;
      const Mask through = s.glass & (fate.u >= mirror);
      const Vec bent = choose(through, ray.w * eta + n * (eta * c - e), ray.w + n * (2.0f * c));
      next = choose(s.glass, bent, next);
      ray.o = choose(through, p - n * same(3 * kClose), ray.o);
      density = s.glass ? same(kSure) : density;
    }
    ray.w = next;

    const F brightest = most(most(weight.x, weight.y), weight.z);
    const F survival = depth > kRoulette ? least(brightest, one) : one;
    const Mask goes_on = met & !last & (brightest > 0.0f) & (fate.v < survival);
    weight = weight * (1.0f / survival);
    ended = open & !goes_on;
    done = job;
    fresh = none;
    if (any_lane(ended)) {
      job = ended ? film.take(ended) : job;
      open = open & (goes_on | film.has(job));
      fresh = ended & open;
    }
  }
}
