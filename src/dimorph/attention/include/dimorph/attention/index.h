// The index of a key on the device. A thread's keys lie constants apart, so that sums, comparisons and conversions of
// their indices cost one instruction a key where what they have in common is computed once; a compiler does not find
// that for floats, and not for integers that are first kept in range.
#pragma once
#include "host_device.h"

namespace dm {

namespace detail {
template <typename T>
struct OnlyInt;
template <>
struct OnlyInt<int> {
  using type = int;
};
}  // namespace detail

// A number base + step. `step` is known when compiling, `base` the same for many. As an int it is in range: no further
// than `last`, which is on its upper side for kSign > 0, and on its lower one otherwise. Sums and comparisons with ints
// and conversions to float take it as it is: what a hook makes of keys past the last counts for nothing.
template <int kSign>
struct Index {
  int base, step, last;

  DM_HD constexpr operator int() const {
    const int value = base + step;
    return (kSign > 0) == (value < last) ? value : last;
  }
  DM_HD explicit operator float() const { return static_cast<float>(base) + static_cast<float>(step); }
  DM_HD constexpr Index& operator+=(int b) {
    base += b;
    last += b;
    return *this;
  }
  DM_HD constexpr Index& operator-=(int b) { return *this += -b; }
};

namespace detail {
// What an index is compared with, so near that their difference is an int: indices themselves are nearer.
DM_HD constexpr int near(int b) {
  constexpr int far = (1 << 30) - 1;
  return b < -far ? -far : b < far ? b : far;
}
}  // namespace detail

template <int kSign, typename T, typename = typename detail::OnlyInt<T>::type>
DM_HD constexpr Index<kSign> operator+(Index<kSign> a, T b) {
  return {a.base + b, a.step, a.last + b};
}
template <int kSign, typename T, typename = typename detail::OnlyInt<T>::type>
DM_HD constexpr Index<kSign> operator+(T a, Index<kSign> b) {
  return b + a;
}
template <int kSign, typename T, typename = typename detail::OnlyInt<T>::type>
DM_HD constexpr Index<kSign> operator-(Index<kSign> a, T b) {
  return {a.base - b, a.step, a.last - b};
}
template <int kSign, typename T, typename = typename detail::OnlyInt<T>::type>
DM_HD constexpr Index<-kSign> operator-(T a, Index<kSign> b) {
  return {a - b.base, -b.step, a - b.last};
}
#define DM_COMPARE(op)                                                           \
  template <int kSign, typename T, typename = typename detail::OnlyInt<T>::type> \
  DM_HD constexpr bool operator op(Index<kSign> a, T b) {                        \
    return a.base - detail::near(b) op - a.step;                                 \
  }                                                                              \
  template <int kSign, typename T, typename = typename detail::OnlyInt<T>::type> \
  DM_HD constexpr bool operator op(T a, Index<kSign> b) {                        \
    return detail::near(a) - b.base op b.step;                                   \
  }
DM_COMPARE(<)
DM_COMPARE(<=)
DM_COMPARE(>)
DM_COMPARE(>=)
DM_COMPARE(==)
DM_COMPARE(!=)
#undef DM_COMPARE

namespace math {
template <int kSign>
DM_HD inline int select(bool condition, Index<kSign> yes, int no) {
  return condition ? static_cast<int>(yes) : no;
}
template <int kSign>
DM_HD inline int select(bool condition, int yes, Index<kSign> no) {
  return condition ? yes : static_cast<int>(no);
}
template <int kSign>
DM_HD inline float to_float(Index<kSign> a) {
  return static_cast<float>(a);
}
}  // namespace math

}  // namespace dm
