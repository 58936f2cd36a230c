// The arithmetic of all paths: F is one float on a GPU, and a vector of floats on a CPU, where each lane has a path of
// its own. Code that is written with F, Word and Mask, `choose` and `? :` is the same for both.
#pragma once
#include <dimorph/dtype.h>

#define HD DM_HD DM_INLINE

#if defined(__CUDACC__)
using F = float;
using Word = uint32_t;
using Mask = bool;

HD bool any_lane(bool mask) { return mask; }
HD F root(F x) { return sqrtf(x); }
HD F real(Word x) { return static_cast<float>(x); }
#else
#if defined(__AVX512F__)
constexpr int kLanes = 16;
#elif defined(__AVX__)
constexpr int kLanes = 8;
#else
constexpr int kLanes = 4;
#endif
typedef float F __attribute__((vector_size(4 * kLanes)));
typedef uint32_t Word __attribute__((vector_size(4 * kLanes)));
typedef int32_t Mask __attribute__((vector_size(4 * kLanes)));  // -1 where true

// A bit for each lane.
HD unsigned bits(Mask mask) {
#if defined(__AVX512DQ__)
  return static_cast<uint16_t>(__builtin_ia32_cvtd2mask512(mask));
#else
  unsigned found = 0;
  for (int lane = 0; lane < kLanes; ++lane) found |= (static_cast<unsigned>(mask[lane]) & 1u) << lane;
  return found;
#endif
}
HD bool any_lane(Mask mask) { return bits(mask) != 0; }
HD F root(F x) {
  for (int lane = 0; lane < kLanes; ++lane) x[lane] = __builtin_sqrtf(x[lane]);
  return x;
}
HD F real(Word x) { return __builtin_convertvector(reinterpret_cast<Mask>(x), F); }
#endif

HD F same(float x) { return x - F{}; }
HD F least(F a, F b) { return a < b ? a : b; }
HD F most(F a, F b) { return a > b ? a : b; }
HD F size(F x) { return most(x, -x); }

struct Vec {
  F x, y, z;
};
// A vector of constants, which all lanes share.
struct Point {
  float x, y, z;
  HD operator Vec() const { return {same(x), same(y), same(z)}; }
};
HD Vec operator+(Vec a, Vec b) { return {a.x + b.x, a.y + b.y, a.z + b.z}; }
HD Vec operator-(Vec a, Vec b) { return {a.x - b.x, a.y - b.y, a.z - b.z}; }
HD Vec operator*(Vec a, Vec b) { return {a.x * b.x, a.y * b.y, a.z * b.z}; }
HD Vec operator*(Vec a, F b) { return {a.x * b, a.y * b, a.z * b}; }
HD F dot(Vec a, Vec b) { return a.x * b.x + a.y * b.y + a.z * b.z; }
HD Vec unit(Vec a) { return a * (1.0f / root(dot(a, a) + 1e-30f)); }
HD Vec choose(Mask mask, Vec a, Vec b) { return {mask ? a.x : b.x, mask ? a.y : b.y, mask ? a.z : b.z}; }

// A hash in which each bit of x changes each bit of the result half of the time (C. Wellons, "Prospecting for hash
// functions", 2018: lowbias32).
HD Word scatter(Word x) {
  x = (x ^ (x >> 16)) * 0x7feb352du;
  x = (x ^ (x >> 15)) * 0x846ca68bu;
  return x ^ (x >> 16);
}
// Two numbers of the path `key`, for each `dimension`: the middles of 65536 parts of [0, 1]. They depend on nothing
// else, so neither on lanes nor on threads.
struct Pair {
  F u, v;
};
HD Pair chances(Word key, uint32_t dimension) {
  const Word both = scatter(key + dimension * 0x9e3779b9u);
  return {real(both & 0xffffu) * 0x1p-16f + 0x1p-17f, real(both >> 16) * 0x1p-16f + 0x1p-17f};
}

// A point of the unit sphere, uniformly, for two numbers between 0 and 1. Sine and cosine of half the angle are
// polynomials that were fitted to 4e-9 and 5e-8.
HD Vec on_sphere(Pair p) {
  const F t = p.v - 0.5f, tt = t * t, radius = 2.0f * root(p.u * (1.0f - p.u));
  const F sine = t * (3.1415926f + tt * (-5.1677069f + tt * (2.5500310f + tt * (-0.5980452f + tt * 0.0772201f))));
  const F cosine = 1.0f + tt * (-4.9347929f + tt * (4.0584119f + tt * (-1.3318801f + tt * 0.2196968f)));
  return {radius * 2.0f * sine * cosine, radius * (1.0f - 2.0f * sine * sine), 1.0f - 2.0f * p.u};
}
