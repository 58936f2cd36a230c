// The index of a key on the device. The keys of a thread lie constant distances apart, so sums, comparisons and
// conversions of their indices can cost one instruction a key if the part that they share is computed once. Compilers
// do not find that for floats, nor for integers that are first kept in range.
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

// The number base + step. `step` is a constant when the kernel is compiled, `base` is the same for many keys. Converted
// to int it is kept in range: it does not go past `last`, upwards for kSign > 0 and downwards otherwise. Sums and
// comparisons with ints and the conversion to float use base + step as it is, because the result of a hook for keys
// past the last is not used.
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
// b, or the nearest number whose difference to any index still fits an int. No index is that far away, so comparisons
// with the result are the same.
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
