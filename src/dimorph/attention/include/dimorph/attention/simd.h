// SIMD values on the host: FloatV, IntV and MaskV hold one number, or one truth value, a lane. They are thin wrappers
// around the compilers' vector types. Hooks may mix them with scalars, with the same meaning for every compiler.
#pragma once
#include <dimorph/host_device.h>  // IWYU pragma: export
#include <stdint.h>

#if defined(__clang__)
#define DM_NO_UNROLL _Pragma("nounroll")
#pragma clang fp contract(fast)  // a * b + c is one instruction, as it is for GCC
#else
#define DM_NO_UNROLL _Pragma("GCC unroll 1")
#endif

namespace dm {

// Lanes of the widest vector that the target computes with in one instruction.
#if defined(__AVX512F__)
constexpr int kLanes = 16;
#elif defined(__AVX__)
constexpr int kLanes = 8;
#else
constexpr int kLanes = 4;
#endif

typedef float RawFloat __attribute__((vector_size(4 * kLanes)));
typedef int32_t RawInt __attribute__((vector_size(4 * kLanes)));

// One truth value a lane, stored as -1 or 0. `&&`, `||` and `!` work as on `bool`, but always evaluate both sides.
struct MaskV {
  RawInt raw;
  MaskV() = default;
  DM_INLINE MaskV(bool value) : raw(RawInt{} - value) {}
  DM_INLINE explicit MaskV(RawInt value) : raw(value) {}
  friend DM_INLINE MaskV operator&&(MaskV a, MaskV b) { return MaskV(a.raw & b.raw); }
  friend DM_INLINE MaskV operator||(MaskV a, MaskV b) { return MaskV(a.raw | b.raw); }
  friend DM_INLINE MaskV operator&(MaskV a, MaskV b) { return MaskV(a.raw & b.raw); }
  friend DM_INLINE MaskV operator|(MaskV a, MaskV b) { return MaskV(a.raw | b.raw); }
  friend DM_INLINE MaskV operator!(MaskV a) { return MaskV(~a.raw); }
};

// Whether at least one lane is true.
DM_INLINE bool any(MaskV mask) {
  uint64_t words[kLanes / 2], found = 0;
  __builtin_memcpy(words, &mask, sizeof words);
  for (uint64_t word : words) found |= word;
  return found != 0;
}

// clang-format off
#define DM_ARITHMETIC(V, op) friend DM_INLINE V operator op(V a, V b) { return V(a.raw op b.raw); }
#define DM_COMPARISON(V, op) friend DM_INLINE MaskV operator op(V a, V b) { return MaskV(RawInt(a.raw op b.raw)); }
#define DM_COMMON(V)                                                        \
  DM_ARITHMETIC(V, +) DM_ARITHMETIC(V, -) DM_ARITHMETIC(V, *)               \
  DM_COMPARISON(V, <) DM_COMPARISON(V, <=) DM_COMPARISON(V, ==)             \
  DM_COMPARISON(V, >) DM_COMPARISON(V, >=) DM_COMPARISON(V, !=)             \
  friend DM_INLINE V operator-(V a) { return V(-a.raw); }                   \
  friend DM_INLINE V& operator+=(V& a, V b) { return a = a + b; }           \
  friend DM_INLINE V& operator-=(V& a, V b) { return a = a - b; }           \
  friend DM_INLINE V& operator*=(V& a, V b) { return a = a * b; }
// clang-format on

struct IntV {
  RawInt raw;
  IntV() = default;
  DM_INLINE IntV(int32_t value) : raw(RawInt{} + value) {}
  DM_INLINE explicit IntV(RawInt value) : raw(value) {}
  DM_COMMON(IntV)
  DM_ARITHMETIC(IntV, &)
  DM_ARITHMETIC(IntV, |)
  friend DM_INLINE IntV operator<<(IntV a, int bits) { return IntV(a.raw << bits); }
  friend DM_INLINE IntV operator>>(IntV a, int bits) { return IntV(a.raw >> bits); }
  // base, base + 1, base + 2 and so on.
  static DM_INLINE IntV sequence(int32_t base) {
    RawInt lane;
    DM_UNROLL
    for (int i = 0; i < kLanes; ++i) lane[i] = i;
    return IntV(lane + base);
  }
};

struct FloatV {
  RawFloat raw;
  FloatV() = default;
  DM_INLINE FloatV(float value) : raw(value - RawFloat{}) {}  // x - 0 is x, also for -0: no instruction
  DM_INLINE explicit FloatV(RawFloat value) : raw(value) {}
  DM_COMMON(FloatV)
  DM_ARITHMETIC(FloatV, /)
  static DM_INLINE FloatV load(const float* from) { return FloatV(*reinterpret_cast<const RawFloat*>(from)); }
  DM_INLINE void store(float* to) const { *reinterpret_cast<RawFloat*>(to) = raw; }
};

// Access to one lane; lanewise makes a value lane by lane. A scalar is the same in every lane.
DM_INLINE float lane(FloatV value, int i) { return value.raw[i]; }
DM_INLINE int lane(IntV value, int i) { return value.raw[i]; }
DM_INLINE float lane(float value, int) { return value; }
DM_INLINE int lane(int value, int) { return value; }
DM_INLINE void set_lane(FloatV& value, int i, float x) { value.raw[i] = x; }
DM_INLINE void set_lane(IntV& value, int i, int x) { value.raw[i] = x; }
DM_INLINE void set_lane(MaskV& value, int i, bool x) { value.raw[i] = -static_cast<int32_t>(x); }
template <typename V, typename F>
DM_INLINE V lanewise(F f) {
  V value;
  for (int i = 0; i < kLanes; ++i) set_lane(value, i, f(i));
  return value;
}

// Sums of neighbouring lanes: those of a in the lower half, those of b in the upper half.
DM_INLINE FloatV add_neighbours(FloatV a, FloatV b) {
#if defined(__clang__)
#define DM_SHUFFLE(...) FloatV(__builtin_shufflevector(a.raw, b.raw, __VA_ARGS__))
#else
#define DM_SHUFFLE(...) FloatV(__builtin_shuffle(a.raw, b.raw, RawInt{__VA_ARGS__}))
#endif
#if defined(__AVX512F__)
  return DM_SHUFFLE(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30) +
         DM_SHUFFLE(1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23, 25, 27, 29, 31);
#elif defined(__AVX__)
  return DM_SHUFFLE(0, 2, 4, 6, 8, 10, 12, 14) + DM_SHUFFLE(1, 3, 5, 7, 9, 11, 13, 15);
#else
  return DM_SHUFFLE(0, 2, 4, 6) + DM_SHUFFLE(1, 3, 5, 7);
#endif
#undef DM_SHUFFLE
}

#undef DM_COMMON
#undef DM_COMPARISON
#undef DM_ARITHMETIC

}  // namespace dm
