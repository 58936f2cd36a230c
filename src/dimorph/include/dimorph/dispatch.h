// The macros that the DISPATCH_ macros of a config header are made of, and their checks.
#pragma once
#include "check.h"
#include "tensor.h"

namespace dimorph {
namespace detail {

// Thrown for a value that an axis' table does not hold, before anything was done; the export catches it.
struct Missing {
  const char* axis;
  char value[64];
};

// Values as text, for messages.
using ValueText = char[64];
inline void print_value(long long value, ValueText& out) { snprintf(out, sizeof out, "%lld", value); }
inline void print_value(DataType type, ValueText& out) {
  const char* names[] = {"int", "uint", "float", "handle", "bfloat", "complex", "bool"};
  const char* float8[] = {"e3m4", "e4m3", "e4m3b11fnuz", "e4m3fn", "e4m3fnuz", "e5m2", "e5m2fnuz", "e8m0fnu"};
  const char* name = type.code < 7 ? names[type.code] : "dtype";
  if (type.code == kDLBool)
    snprintf(out, sizeof out, "%s", name);
  else if (type.code >= kDLFloat8_e3m4 && type.code <= kDLFloat8_e8m0fnu)
    snprintf(out, sizeof out, "float8_%s", float8[type.code - kDLFloat8_e3m4]);
  else if (type.code > kDLBool)  // floats of fewer bits
    snprintf(out, sizeof out, "dtype (DLPack code %d, %d bits)", type.code, type.bits);
  else
    snprintf(out, sizeof out, "%s%d", name, type.bits);
}
inline void print_value(Device device, ValueText& out) {
  const char* type = device.device_type == kDLCPU ? "cpu" : device.device_type == kDLCUDA ? "cuda" : "device";
  snprintf(out, sizeof out, "%s:%d", type, device.device_id);
}
inline void print_value(const Str& value, ValueText& out) {
  snprintf(out, sizeof out, "%.*s", static_cast<int>(value.size), value.data);
}

[[noreturn]] __attribute__((cold, noinline)) inline void mismatch(const char* axis, const ValueText& given,
                                                                  const ValueText& compiled) {
  raise(ErrorKind::mismatch, "axis %s: the call has %s, this module was compiled for %s", axis, given, compiled);
}
template <typename T>
[[noreturn]] __attribute__((cold, noinline)) void missing(const char* axis, const T& value) {
  Missing error{axis, {}};
  print_value(value, error.value);
  throw error;
}

// Checks of an axis with one value: they refuse a call that would compute with a wrong constant.
__attribute__((noinline)) inline void expect(const char* axis, long long given, long long compiled) {
  if (__builtin_expect(given == compiled, 1)) return;
  ValueText left, right;
  print_value(given, left);
  print_value(compiled, right);
  mismatch(axis, left, right);
}
inline void expect(const char* axis, DataType given, DataType compiled) {
  if (__builtin_expect(given == compiled, 1)) return;
  ValueText left, right;
  print_value(given, left);
  print_value(compiled, right);
  mismatch(axis, left, right);
}
inline void expect(const char* axis, const Str& given, const char* compiled) {
  if (__builtin_expect(given == Str(compiled), 1)) return;
  ValueText left, right;
  print_value(given, left);
  print_value(Str(compiled), right);
  mismatch(axis, left, right);
}

// The index of a value among those of its axis.
template <typename T, typename... Ts>
constexpr int64_t index_of(T value, Ts... values) {
  int64_t index = 0;
  (void)(... && (value != values && ++index));
  return index;
}
template <typename T, typename... Ts>
constexpr int64_t index_of_type() {
  int64_t index = 0;
  (void)(... && (!__is_same(T, Ts) && ++index));
  return index;
}

// A value of a tuple axis, which compares and prints as one.
struct Tuple {
  long long values[4];
  int count;
};
template <typename... Ts>
constexpr Tuple tuple(Ts... values) {
  return Tuple{{static_cast<long long>(values)...}, sizeof...(Ts)};
}
constexpr bool operator==(const Tuple& a, const Tuple& b) {
  for (int i = 0; i < a.count; ++i)
    if (a.values[i] != b.values[i]) return false;
  return a.count == b.count;
}
constexpr bool operator!=(const Tuple& a, const Tuple& b) { return !(a == b); }
inline void print_value(const Tuple& value, ValueText& out) {
  int at = 0;
  for (int i = 0; i < value.count && at < 56; ++i)
    at += snprintf(out + at, sizeof out - at, i ? "x%lld" : "%lld", value.values[i]);
}
inline void expect(const char* axis, const Tuple& given, const Tuple& compiled) {
  if (__builtin_expect(given == compiled, 1)) return;
  ValueText left, right;
  print_value(given, left);
  print_value(compiled, right);
  mismatch(axis, left, right);
}

}  // namespace detail
}  // namespace dimorph

// A table is a switch, so that the compiler checks its rows. A `break` in a body would leave the switch.
#define _DISPATCH_SWITCH(axis, expr, ...)                                               \
  do {                                                                                  \
    const auto dimorph_value = (expr);                                                  \
    switch (dimorph_value) {                                                            \
      __VA_ARGS__                                                                       \
      default: ::dimorph::detail::missing(axis, static_cast<long long>(dimorph_value)); \
    }                                                                                   \
  } while (0)
#define _DISPATCH_CASE(value, case_var, ...)          \
  case value: {                                       \
    [[maybe_unused]] constexpr auto case_var = value; \
    __VA_ARGS__;                                      \
    break;                                            \
  }

#define _DISPATCH_TYPE_SWITCH(axis, expr, ...)                  \
  do {                                                          \
    const ::dimorph::DataType dimorph_value = (expr);           \
    switch (::dimorph::detail::dtype_key(dimorph_value)) {      \
      __VA_ARGS__                                               \
      default: ::dimorph::detail::missing(axis, dimorph_value); \
    }                                                           \
  } while (0)
#define _DISPATCH_TYPE_CASE(type, case_var, ...)                     \
  case ::dimorph::detail::dtype_key(::dimorph::data_type<type>()): { \
    using case_var [[maybe_unused]] = type;                          \
    __VA_ARGS__;                                                     \
    break;                                                           \
  }

// Tables of tuples and names are chains of ifs, because C++ has no switch over them.
#define _DISPATCH_CHAIN(axis, expr, ...)                         \
  do {                                                           \
    const auto dimorph_value = (expr);                           \
    __VA_ARGS__ ::dimorph::detail::missing(axis, dimorph_value); \
  } while (0)
#define _DISPATCH_NAME_CASE(name, index, case_var, ...) \
  if (dimorph_value == ::dimorph::Str(name)) {          \
    [[maybe_unused]] constexpr int case_var = index;    \
    __VA_ARGS__;                                        \
    break;                                              \
  }
#define _DISPATCH_CASE_2(value1, value2, case_var1, case_var2, ...) \
  if (dimorph_value == ::dimorph::detail::tuple(value1, value2)) {  \
    [[maybe_unused]] constexpr auto case_var1 = value1;             \
    [[maybe_unused]] constexpr auto case_var2 = value2;             \
    __VA_ARGS__;                                                    \
    break;                                                          \
  }
#define _DISPATCH_CASE_3(value1, value2, value3, case_var1, case_var2, case_var3, ...) \
  if (dimorph_value == ::dimorph::detail::tuple(value1, value2, value3)) {             \
    [[maybe_unused]] constexpr auto case_var1 = value1;                                \
    [[maybe_unused]] constexpr auto case_var2 = value2;                                \
    [[maybe_unused]] constexpr auto case_var3 = value3;                                \
    __VA_ARGS__;                                                                       \
    break;                                                                             \
  }
#define _DISPATCH_CASE_4(value1, value2, value3, value4, case_var1, case_var2, case_var3, case_var4, ...) \
  if (dimorph_value == ::dimorph::detail::tuple(value1, value2, value3, value4)) {                        \
    [[maybe_unused]] constexpr auto case_var1 = value1;                                                   \
    [[maybe_unused]] constexpr auto case_var2 = value2;                                                   \
    [[maybe_unused]] constexpr auto case_var3 = value3;                                                   \
    [[maybe_unused]] constexpr auto case_var4 = value4;                                                   \
    __VA_ARGS__;                                                                                          \
    break;                                                                                                \
  }
