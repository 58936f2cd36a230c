// Converts arguments from Python to C++ and results back, over the C interface of tvm-ffi alone. Conversions of
// arguments do not throw: they leave an error in an ErrorSink and return false.
#pragma once
#include <tvm/ffi/c_api.h>

#include "check.h"
#include "dispatch.h"
#include "handle.h"
#include "tensor.h"

namespace dimorph {

struct Extra;

namespace detail {

// The argument that is being converted, for messages. `names`: the parameters' names, comma separated.
struct ArgumentPlace {
  const char* function;
  const char* names;
  int32_t index;
  Call* call;
};

// The number of the type of handles in tvm-ffi, once `dimorph_handle_index` has asked for it; before, -1.
inline int32_t& known_handle_index() {
  static int32_t index = -1;
  return index;
}
}  // namespace detail
}  // namespace dimorph

// The number of the type of handles, in an entry that uses them. Only such an entry exports it, by which Python knows
// that it has to make the type.
extern "C" DIMORPH_VISIBLE __attribute__((noinline)) inline int32_t dimorph_handle_index() {
  int32_t index = __atomic_load_n(&dimorph::detail::known_handle_index(), __ATOMIC_RELAXED);
  if (__builtin_expect(index < 0, 0)) {
    const TVMFFIByteArray name{"dimorph.Handle", 14};
    index = TVMFFITypeGetOrAllocIndex(&name, -1, 1, 0, 1, kTVMFFIObject);
    __atomic_store_n(&dimorph::detail::known_handle_index(), index, __ATOMIC_RELAXED);
  }
  return index;
}

namespace dimorph {
namespace detail {

inline const char* type_name(const TVMFFIAny& any) {
  switch (any.type_index) {
    case kTVMFFINone: return "None";
    case kTVMFFIInt: return "an int";
    case kTVMFFIBool: return "a bool";
    case kTVMFFIFloat: return "a float";
    case kTVMFFIOpaquePtr: return "a pointer";
    case kTVMFFIDataType: return "a dtype";
    case kTVMFFIDevice: return "a device";
    case kTVMFFIDLTensorPtr:
    case kTVMFFITensor: return "a tensor";
    case kTVMFFIRawStr:
    case kTVMFFISmallStr:
    case kTVMFFIStr: return "a str";
    case kTVMFFISmallBytes:
    case kTVMFFIBytes: return "bytes";
    case kTVMFFIFunction: return "a function";
    case kTVMFFIArray:
    case kTVMFFIList: return "a sequence";
    case kTVMFFIMap:
    case kTVMFFIDict: return "a mapping";
    default: return any.type_index == known_handle_index() ? "a handle" : "an object of another kind";
  }
}

// Copies name number `index` of the comma separated `names` to `out`, in quotes; the number itself if there is none.
inline void argument_name(const char* names, int32_t index, char (&out)[64]) {
  const char* name = names;
  for (int32_t i = 0; i < index && *name; ++i) {
    while (*name && *name != ',') ++name;
    name += *name == ',';
  }
  while (*name == ' ') ++name;
  size_t length = 0;
  while (name[length] && name[length] != ',' && length + 1 < sizeof out) ++length;
  if (length)
    snprintf(out, sizeof out, "'%.*s'", static_cast<int>(length), name);
  else
    snprintf(out, sizeof out, "%d", index);
}

__attribute__((cold, noinline)) inline bool wrong_type(const TVMFFIAny& any, const ArgumentPlace& place,
                                                       const char* expected, ErrorSink* sink) {
  char name[64];
  argument_name(place.names, place.index, name);
  return fail(sink, ErrorKind::type, "%s: argument %s: expected %s, got %s", place.function, name, expected,
              type_name(any));
}

__attribute__((cold, noinline)) inline bool wrong_elements(const ConstTensor& tensor, DataType expected,
                                                           const ArgumentPlace& place, ErrorSink* sink) {
  char name[64];
  ValueText want, got;
  argument_name(place.names, place.index, name);
  print_value(expected, want);
  print_value(tensor.dtype(), got);
  if (tensor.dtype() == expected)
    return fail(sink, ErrorKind::value, "%s: argument %s: expected a row-major tensor, got one with other strides",
                place.function, name);
  return fail(sink, ErrorKind::type, "%s: argument %s: expected dtype %s, got %s", place.function, name, want, got);
}

// The sizes of a shape as text. A size below 0 is any.
struct ShapeText {
  char text[160] = "";

  void add(int64_t size) {
    const size_t at = strlen(text);
    const char* comma = at ? ", " : "";
    if (size < 0)
      snprintf(text + at, sizeof text - at, "%sany", comma);
    else
      snprintf(text + at, sizeof text - at, "%s%lld", comma, static_cast<long long>(size));
  }
};

__attribute__((cold, noinline)) inline bool wrong_sizes(const ConstTensor& tensor, const char* shape,
                                                        const int64_t* sizes, int32_t count, const ArgumentPlace& place,
                                                        ErrorSink* sink) {
  char name[64];
  argument_name(place.names, place.index, name);
  ShapeText want, got;
  for (int32_t i = 0; i < count; ++i) want.add(sizes[i]);
  for (int32_t i = 0; i < tensor.ndim(); ++i) got.add(tensor.size(i));
  return fail(sink, ErrorKind::value, "%s: argument %s: expected shape [%s], here (%s), got (%s)", place.function, name,
              shape, want.text, got.text);
}

inline const DLTensor* tensor_of(const TVMFFIAny& any) {
  if (any.type_index == kTVMFFIDLTensorPtr) return static_cast<const DLTensor*>(any.v_ptr);
  if (any.type_index == kTVMFFITensor)
    return reinterpret_cast<const DLTensor*>(reinterpret_cast<const char*>(any.v_obj) + sizeof(TVMFFIObject));
  return nullptr;
}

// The name of the argument that a handle is; of the first that is None or left out, if `object` is null.
inline void argument_name(const HandleObject* object, const Call* call, char (&out)[64]) {
  const auto* args = static_cast<const TVMFFIAny*>(call->args);
  int32_t index = 0;
  while (index < call->count && (object ? args[index].v_ptr != object : args[index].type_index != kTVMFFINone)) ++index;
  argument_name(call->names, index, out);
}

__attribute__((cold, noinline)) inline bool closed_handle(const HandleObject* object, const ArgumentPlace& place,
                                                          ErrorSink* sink) {
  char name[64];
  argument_name(place.names, place.index, name);
  return fail(sink, ErrorKind::value, "%s: argument %s: expected an open handle, got %s, which was closed",
              place.function, name, HandleText(object).text);
}

// The items of a list or tuple of Python; a size of -1 for anything else.
struct Items {
  const TVMFFIAny* data;
  int64_t size;
};
inline Items items_of(const TVMFFIAny& any) {
  if (any.type_index != kTVMFFIArray) return {nullptr, -1};
  const auto* cell =
      reinterpret_cast<const TVMFFISeqCell*>(reinterpret_cast<const char*>(any.v_obj) + sizeof(TVMFFIObject));
  return {static_cast<const TVMFFIAny*>(cell->data), cell->size};
}

__attribute__((cold, noinline)) inline bool no_memory(const ArgumentPlace& place, ErrorSink* sink) {
  char name[64];
  argument_name(place.names, place.index, name);
  return fail(sink, ErrorKind::value, "%s: argument %s: expected a tensor with memory, got one whose memory was freed",
              place.function, name);
}

template <typename T>
inline bool tensor_from_any(const TVMFFIAny& any, T& out, const ArgumentPlace& place, ErrorSink* sink) {
  const DLTensor* tensor = tensor_of(any);
  if (!tensor) return wrong_type(any, place, "a tensor (any array that speaks DLPack)", sink);
  out = T(tensor, place.call);
  return !__builtin_expect(out.without_memory(), 0) || no_memory(place, sink);
}
inline bool from_any(const TVMFFIAny& any, ConstTensor& out, const ArgumentPlace& place, ErrorSink* sink) {
  return tensor_from_any(any, out, place, sink);
}
inline bool from_any(const TVMFFIAny& any, Tensor& out, const ArgumentPlace& place, ErrorSink* sink) {
  return tensor_from_any(any, out, place, sink);
}

template <typename T>
inline bool from_any(const TVMFFIAny& any, Elements<T>& out, const ArgumentPlace& place, ErrorSink* sink) {
  ConstTensor tensor;
  if (!from_any(any, tensor, place, sink)) return false;
  constexpr DataType expected = data_type<T>();
  if (tensor.dtype() != expected || !tensor.contiguous()) return wrong_elements(tensor, expected, place, sink);
  out.data = static_cast<const T*>(tensor.data());
  out.tensor = tensor;
  return true;
}

template <typename T, typename Shape>
inline bool from_any(const TVMFFIAny& any, Sized<T, Shape>& out, const ArgumentPlace& place, ErrorSink* sink) {
  if (!from_any(any, static_cast<Elements<T>&>(out), place, sink)) return false;
  constexpr int32_t count = sizeof(Shape::sizes) / sizeof(Shape::sizes[0]);
  bool fits = out.tensor.ndim() == count;
  for (int32_t i = 0; i < count && fits; ++i) fits = out.tensor.size(i) == Shape::sizes[i];
  return __builtin_expect(fits, 1) || wrong_sizes(out.tensor, Shape::text, Shape::sizes, count, place, sink);
}

// Whether the elements of a variant's tensor are on the device on which the kernel runs.
template <typename T>
inline bool lies_on(const T&, Device, const ArgumentPlace&, ErrorSink*) {
  return true;
}
template <typename T>
inline bool lies_on(const Elements<T>& elements, Device device, const ArgumentPlace& place, ErrorSink* sink) {
  const Device given = elements.tensor.device();
  if (given.device_type == device.device_type && given.device_id == device.device_id) return true;
  char name[64];
  ValueText want, got;
  argument_name(place.names, place.index, name);
  print_value(device, want);
  print_value(given, got);
  return fail(sink, ErrorKind::value, "%s: argument %s: expected a tensor on %s, got one on %s", place.function, name,
              want, got);
}
template <typename T, typename Shape>
inline bool lies_on(const Sized<T, Shape>& elements, Device device, const ArgumentPlace& place, ErrorSink* sink) {
  return lies_on(static_cast<const Elements<T>&>(elements), device, place, sink);
}
template <typename T>
inline bool lies_on(const Optional<T>& value, Device device, const ArgumentPlace& place, ErrorSink* sink) {
  return !value || lies_on(*value, device, place, sink);
}

// Registers the call with the handle, so that `close` leaves the object to the end of the call (see Slot).
inline bool from_any(const TVMFFIAny& any, Handle<>& out, const ArgumentPlace& place, ErrorSink* sink) {
  if (any.type_index != dimorph_handle_index()) return wrong_type(any, place, "a handle", sink);
  auto* object = reinterpret_cast<HandleObject*>(any.v_obj);
  if (!enter(object)) return closed_handle(object, place, sink);
  out = Handle<>(object);
  return true;
}
template <typename T>
inline bool from_any(const TVMFFIAny&, Handle<T>&, const ArgumentPlace&, ErrorSink*) {
  static_assert(__is_same(T, void),
                "an entry does not know the type of a handle's object: take dimorph::Handle<>, and name the type in "
                "the case");
  return false;
}

// Any type that has no function of its own.
template <typename T>
inline bool from_any(const TVMFFIAny&, T&, const ArgumentPlace&, ErrorSink*) {
  static_assert(__is_same(T, void),
                "an exported function has a parameter that no value from Python becomes: take ConstTensor, Tensor, "
                "dimorph::TensorList, dimorph::Str, bool, a number, dimorph::Handle<>, Optional<T> of these, or Extra "
                "at the end");
  return false;
}

inline bool from_any(const TVMFFIAny& any, bool& out, const ArgumentPlace& place, ErrorSink* sink) {
  if (any.type_index != kTVMFFIBool) return wrong_type(any, place, "a bool", sink);
  out = any.v_int64 != 0;
  return true;
}

inline bool from_any(const TVMFFIAny& any, double& out, const ArgumentPlace& place, ErrorSink* sink) {
  if (any.type_index == kTVMFFIFloat)
    out = any.v_float64;
  else if (any.type_index == kTVMFFIInt || any.type_index == kTVMFFIBool)
    out = static_cast<double>(any.v_int64);
  else
    return wrong_type(any, place, "a number", sink);
  return true;
}
inline bool from_any(const TVMFFIAny& any, float& out, const ArgumentPlace& place, ErrorSink* sink) {
  double wide = 0;
  if (!from_any(any, wide, place, sink)) return false;
  out = static_cast<float>(wide);
  return true;
}

__attribute__((cold, noinline)) inline bool out_of_range(int64_t value, const ArgumentPlace& place, int bits,
                                                         ErrorSink* sink) {
  char name[64];
  argument_name(place.names, place.index, name);
  return fail(sink, ErrorKind::value, "%s: argument %s: expected an integer of %d bits, got %lld", place.function, name,
              bits, static_cast<long long>(value));
}

template <typename T>
inline bool integer_from_any(const TVMFFIAny& any, T& out, const ArgumentPlace& place, ErrorSink* sink) {
  if (any.type_index != kTVMFFIInt && any.type_index != kTVMFFIBool) return wrong_type(any, place, "an int", sink);
  out = static_cast<T>(any.v_int64);
  if (static_cast<int64_t>(out) != any.v_int64 || (out < T(1) && any.v_int64 > 0) || (out > T(0) && any.v_int64 < 0))
    return out_of_range(any.v_int64, place, 8 * sizeof(T), sink);
  return true;
}
#define DIMORPH_INTEGER_ARGUMENT(type)                                                                 \
  inline bool from_any(const TVMFFIAny& any, type& out, const ArgumentPlace& place, ErrorSink* sink) { \
    return integer_from_any(any, out, place, sink);                                                    \
  }
DIMORPH_INTEGER_ARGUMENT(int8_t)
DIMORPH_INTEGER_ARGUMENT(int16_t)
DIMORPH_INTEGER_ARGUMENT(int32_t)
DIMORPH_INTEGER_ARGUMENT(int64_t)
DIMORPH_INTEGER_ARGUMENT(uint8_t)
DIMORPH_INTEGER_ARGUMENT(uint16_t)
DIMORPH_INTEGER_ARGUMENT(uint32_t)
DIMORPH_INTEGER_ARGUMENT(uint64_t)
#undef DIMORPH_INTEGER_ARGUMENT

inline bool from_any(const TVMFFIAny& any, Str& out, const ArgumentPlace& place, ErrorSink* sink) {
  if (any.type_index == kTVMFFIRawStr) {
    out = Str(any.v_c_str);
  } else if (any.type_index == kTVMFFISmallStr) {
    out = Str(any.v_bytes, any.small_str_len);
  } else if (any.type_index == kTVMFFIStr) {
    const auto* bytes =
        reinterpret_cast<const TVMFFIByteArray*>(reinterpret_cast<const char*>(any.v_obj) + sizeof(TVMFFIObject));
    out = Str(bytes->data, bytes->size);
  } else {
    return wrong_type(any, place, "a str", sink);
  }
  return true;
}

inline bool from_any(const TVMFFIAny& any, DataType& out, const ArgumentPlace& place, ErrorSink* sink) {
  if (any.type_index != kTVMFFIDataType) return wrong_type(any, place, "a dtype", sink);
  out = DataType{any.v_dtype.code, any.v_dtype.bits, any.v_dtype.lanes};
  return true;
}
inline bool from_any(const TVMFFIAny& any, Device& out, const ArgumentPlace& place, ErrorSink* sink) {
  if (any.type_index != kTVMFFIDevice) return wrong_type(any, place, "a device", sink);
  out = any.v_device;
  return true;
}

template <typename T>
inline bool from_any(const TVMFFIAny& any, Optional<T>& out, const ArgumentPlace& place, ErrorSink* sink) {
  if (any.type_index == kTVMFFINone) return true;
  T value{};
  if (!from_any(any, value, place, sink)) return false;
  out = Optional<T>(value);
  return true;
}

// required_count: arguments that a call must give, of the first `count` parameters. Optional ones at the end may be
// left out.
template <typename T>
constexpr bool is_optional(T*) {
  return false;
}
template <typename T>
constexpr bool is_optional(Optional<T>*) {
  return true;
}
template <typename... Params>
constexpr int32_t required_count(int32_t count = sizeof...(Params)) {
  const bool optional[] = {is_optional(static_cast<Params*>(nullptr))..., false};
  while (count > 0 && optional[count - 1]) --count;
  return count;
}

// Reports a wrong number of arguments. `names` may go on after the first `most` of them, with that of the Extra.
// `whose` follows the number, `rest` the names.
inline bool wrong_count(const char* function, const char* names, int32_t least, int32_t most, int32_t got,
                        ErrorSink* sink, const char* whose = "", const char* rest = "") {
  char expected[32];
  if (least == most)
    snprintf(expected, sizeof expected, "%d", least);
  else
    snprintf(expected, sizeof expected, "%d to %d", least, most);
  int32_t length = 0;
  for (int32_t left = most; names[length] && (names[length] != ',' || --left > 0);) ++length;
  return fail(sink, ErrorKind::type, "%s: expected %s argument%s%s (%.*s)%s, got %d", function, expected,
              most == 1 ? "" : "s", whose, most ? length : 0, names, rest, got);
}

// Indices 0..N-1 as a pack, without <utility>.
template <int... I>
struct Indices {};
template <int N, int... I>
struct MakeIndices : MakeIndices<N - 1, N - 1, I...> {};
template <int... I>
struct MakeIndices<0, I...> {
  using type = Indices<I...>;
};

// The converted arguments of one call, in slots numbered by their position.
template <int I, typename T>
struct Slot {
  T value{};
};
template <int I>
struct Slot<I, Handle<>> {
  Handle<> value;
  ~Slot() {
    if (value.object()) leave(value.object());
  }
};
template <int I>
struct Slot<I, Optional<Handle<>>> {
  Optional<Handle<>> value;
  ~Slot() {
    if (value) leave(value->object());
  }
};
template <typename Index, typename... Params>
struct Slots;
template <int... I, typename... Params>
struct Slots<Indices<I...>, Params...> : Slot<I, Params>... {
  // Fills the slots in order. Stops at the first argument that cannot be converted.
  bool fill([[maybe_unused]] const TVMFFIAny* args, [[maybe_unused]] int32_t count,
            [[maybe_unused]] const char* function, [[maybe_unused]] const char* names, [[maybe_unused]] Call* call,
            [[maybe_unused]] ErrorSink* sink) {
    return ((I >= count || from_any(args[I], static_cast<Slot<I, Params>*>(this)->value,
                                    ArgumentPlace{function, names, I, call}, sink)) &&
            ...);
  }
};

inline void to_any(double value, TVMFFIAny* out) {
  out->type_index = kTVMFFIFloat;
  out->zero_padding = 0;
  out->v_float64 = value;
}
inline void to_any(float value, TVMFFIAny* out) { to_any(static_cast<double>(value), out); }
inline void to_any(bool value, TVMFFIAny* out) {
  out->type_index = kTVMFFIBool;
  out->zero_padding = 0;
  out->v_int64 = value;
}
#define DIMORPH_INTEGER_RESULT(type)               \
  inline void to_any(type value, TVMFFIAny* out) { \
    out->type_index = kTVMFFIInt;                  \
    out->zero_padding = 0;                         \
    out->v_int64 = static_cast<int64_t>(value);    \
  }
DIMORPH_INTEGER_RESULT(signed char)
DIMORPH_INTEGER_RESULT(short)
DIMORPH_INTEGER_RESULT(int)
DIMORPH_INTEGER_RESULT(long)
DIMORPH_INTEGER_RESULT(long long)
DIMORPH_INTEGER_RESULT(unsigned char)
DIMORPH_INTEGER_RESULT(unsigned short)
DIMORPH_INTEGER_RESULT(unsigned int)
#undef DIMORPH_INTEGER_RESULT
// tvm-ffi has signed integers only: a larger number would arrive as another one.
inline void to_any(uint64_t value, TVMFFIAny* out) {
  if (value > static_cast<uint64_t>(INT64_MAX)) raise(ErrorKind::value, "a result of 2^63 or more does not fit");
  to_any(static_cast<int64_t>(value), out);
}
inline void to_any(DataType value, TVMFFIAny* out) {
  out->type_index = kTVMFFIDataType;
  out->zero_padding = 0;
  out->v_int64 = 0;
  out->v_dtype = DLDataType{value.code, value.bits, value.lanes};
}
inline void to_any(Str value, TVMFFIAny* out) {
  const TVMFFIByteArray bytes{value.data, value.size};
  TVMFFIStringFromByteArray(&bytes, out);
}
inline void to_any(const char* text, TVMFFIAny* out) { to_any(Str(text), out); }
inline void to_any(NewHandle&& handle, TVMFFIAny* out) {
  HandleObject* object = handle.release();
  *out = TVMFFIAny{};
  if (!object) raise(ErrorKind::runtime, "the case returned an empty NewHandle: return what make_handle returns");
  object->header.type_index = dimorph_handle_index();
  out->type_index = dimorph_handle_index();
  out->v_obj = &object->header;
}
// No other pointer is a result. Without this, a pointer would be converted to bool.
template <typename T>
void to_any(T*, TVMFFIAny*) = delete;
template <typename T>
inline void to_any(const Optional<T>& value, TVMFFIAny* out) {
  if (value)
    to_any(*value, out);
  else
    *out = TVMFFIAny{};
}

}  // namespace detail

// Several results: a function that returns Results<int64_t, double> returns a sequence of two to Python.
template <typename... Ts>
struct Results;
template <>
struct Results<> {};
template <typename T, typename... Ts>
struct Results<T, Ts...> {
  T first{};
  Results<Ts...> rest{};

  Results() = default;
  Results(T value, Ts... values) : first(value), rest(values...) {}
};

namespace detail {

inline void collect(const Results<>&, TVMFFIAny*) {}
template <typename T, typename... Ts>
inline void collect(const Results<T, Ts...>& results, TVMFFIAny* out) {
  to_any(results.first, out);
  collect(results.rest, out + 1);
}

template <typename... Ts>
inline void to_any(const Results<Ts...>& results, TVMFFIAny* out) {
  TVMFFIAny items[sizeof...(Ts)];
  collect(results, items);
  static const TVMFFIByteArray kArray{"ffi.Array", 9};
  TVMFFIObjectHandle make = nullptr;
  *out = TVMFFIAny{};
  if (TVMFFIFunctionGetGlobal(&kArray, &make) == 0) {
    TVMFFIFunctionCall(make, items, sizeof...(Ts), out);
    TVMFFIObjectDecRef(make);
  }
  for (TVMFFIAny& item : items)
    if (item.type_index >= kTVMFFIStaticObjectBegin) TVMFFIObjectDecRef(item.v_obj);
}

// The struct of the config header that a struct of parameters derives from.
template <typename Params, typename = void>
struct Additional {
  static_assert(sizeof(Params) == 0,
                "the struct of parameters has none of the variant's: derive it, struct Params : AdditionalParams");
};
template <typename Params>
struct Additional<Params, decltype(static_cast<void>(sizeof(typename Params::AdditionalParams)))> {
  using type = typename Params::AdditionalParams;
};

// The parameters to set, and what checks their tensors.
template <typename Params, typename Check>
struct Filling {
  Params& params;
  Check& check;

  template <typename T>
  void set(const T* Params::* field, const Elements<T>& given, const char* name, const char* shape) {
    params.*field = given.data;
    check(name, shape, given.tensor);
  }
  template <typename T, typename Given>
  void set(const T* Params::* field, const Optional<Given>& given, const char* name, const char* shape) {
    if (given) set(field, *given, name, shape);
  }
};

}  // namespace detail

// The additional arguments of the variant. The entry passes them on unread; only the case knows the variant and
// converts them. Must be the last parameter.
struct Extra {
  const TVMFFIAny* args = nullptr;
  int32_t count = 0;
  const char* function = "";
  const char* names = "";
  ErrorSink* sink = nullptr;
  Call* call = nullptr;
  Device device{kDLCPU, 0};  // where tensors among them must be: that of the call's first tensor

  // Sets the variant's parameters in `params`, a struct derived from AdditionalParams of the config header. False if an
  // argument cannot be converted: the case must return at once, and the caller gets the exception.
  template <typename Params>
  [[nodiscard]] bool fill(Params& params) const {
    static_assert(!detail::Additional<Params>::type::dimorph_own_sizes,
                  "the kernel declares sizes of its own, which nothing checks: pass a function to check them, "
                  "extra.fill(params, [&](const char* name, const char* shape, ConstTensor tensor) { ... })");
    return fill(params, [](const char*, const char*, const ConstTensor&) {});
  }
  // The same; check(name, shape, tensor) is then called for each tensor that is given, with its declared name and
  // sizes.
  template <typename Params, typename Check>
  [[nodiscard]] bool fill(Params& params, Check check) const {
    using Additional = typename detail::Additional<Params>::type;
    static_assert(Additional::template dimorph_own<Params>,
                  "the struct of parameters has a field with the name of a parameter of the variant, which it hides: "
                  "give one of them another name");
    detail::Filling<Additional, Check> to{params, check};
    return apply(&Additional::template dimorph_set<decltype(to)>, to);
  }

 private:
  template <typename First, typename... Params>
  bool apply(void (*set)(First&, Params...), First& first) const {
    return apply(set, first, typename detail::MakeIndices<sizeof...(Params)>::type{});
  }
  template <typename First, typename... Params, int... I>
  bool apply(void (*set)(First&, Params...), First& first, detail::Indices<I...> indices) const {
    constexpr int32_t most = sizeof...(Params), least = detail::required_count<detail::value_t<Params>...>();
    if (count < least || count > most)
      return detail::wrong_count(function, names, least, most, count, sink, " of the variant");
    detail::Slots<decltype(indices), detail::value_t<Params>...> slots;
    if (!slots.fill(args, count, function, names, call, sink)) return false;
    if (!(detail::lies_on(static_cast<detail::Slot<I, detail::value_t<Params>>&>(slots).value, device,
                          detail::ArgumentPlace{function, names, I, call}, sink) &&
          ...))
      return false;
    set(first, static_cast<detail::Slot<I, detail::value_t<Params>>&>(slots).value...);
    return sink->kind == ErrorKind::none;
  }
};

}  // namespace dimorph

// Names that entries and cases use without their namespace.
using dimorph::ConstTensor;
using dimorph::Extra;
using dimorph::Optional;
using dimorph::Tensor;
using dimorph::View;
