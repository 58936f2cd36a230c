// A float that counts its operations: additions, multiplications, divisions and roots are one each.
#pragma once
#include <dimorph/dtype.h>
#define HD inline

inline int64_t operations = 0;

struct F {
  float v = 0;
  F() = default;
  F(float x) : v(x) {}
};
using Word = uint32_t;
using Mask = bool;

inline F counted(float x) {
  ++operations;
  return x;
}
inline F operator+(F a, F b) { return counted(a.v + b.v); }
inline F operator-(F a, F b) { return counted(a.v - b.v); }
inline F operator*(F a, F b) { return counted(a.v * b.v); }
inline F operator/(F a, F b) { return counted(a.v / b.v); }
inline F operator-(F a) { return -a.v; }
inline bool operator<(F a, F b) { return a.v < b.v; }
inline bool operator>(F a, F b) { return a.v > b.v; }
inline bool operator<=(F a, F b) { return a.v <= b.v; }
inline bool operator>=(F a, F b) { return a.v >= b.v; }

inline bool any_lane(bool mask) { return mask; }
inline F root(F x) { return counted(__builtin_sqrtf(x.v)); }
inline F real(Word x) { return static_cast<float>(x); }
inline F same(float x) { return x; }
