// The header for entries: conversion of arguments, dispatch to cases, and the line that exports a function.
#pragma once
#define DIMORPH_HOST 1
#define DIMORPH_ENTRY 1

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "abi.h"
#include "call.h"
#include "check.h"
#include "convert.h"
#include "dispatch.h"
#include "expect.h"
#include "result.h"
#include "tensor.h"
#include "tensor_list.h"

namespace dimorph {
namespace detail {

// How an entry releases Python's lock (the GIL); set once, when the entry is loaded. `push` and `pop` are the functions
// behind pthread_cleanup_push and pthread_cleanup_pop in C; null where the C library has none.
struct PythonLock {
  int (*held)();
  void* (*release)();
  void (*take)(void*);
  void (*push)(void* buffer, void (*handler)(void*), void* argument);
  void (*pop)(void* buffer, int execute);
};

inline PythonLock& python_lock() {
  static PythonLock lock{};
  return lock;
}

// The state of one load of an entry: the case functions bound so far, null until their first use, and a function that
// finds others. Functions made for Python carry their instance as handle, so that two loads of one shared object do not
// share state.
struct Instance {
  // resolve(function, slot, axis, value) -> address. Given a slot: the CaseFunction of a case that is not bound yet.
  // Given an axis and a value that its table does not hold: a Wider. A negative result is the negated number of an
  // exception that Python keeps.
  int64_t (*resolve)(const char*, int64_t, const char*, const char*);
  TVMFFIObjectHandle keeper;  // keeps `resolve` alive, and the memory of `calls` where Python gave it
  int64_t users;
  int64_t* calls;  // how often each case function was called
  const CaseFunction* bound[1];
};

// The same function, exported by an entry whose tables hold one more value.
struct Wider {
  TVMFFISafeCallType call;
  void* instance;
};

// Releasing Python's lock takes as long as a few hundred additions, so like NumPy we keep it for so few elements. A
// call without tensors, or with a handle, does not tell how long it takes, and releases it.
constexpr int64_t kBriefElements = 500;
inline void count_elements(const ConstTensor* tensor, int64_t* count) {
  *count = (*count < 0 ? 0 : *count) + tensor->numel();
}
template <typename T>
inline void count_elements(const ListOf<T>* list, int64_t* count) {
  for (const T tensor : *list) count_elements(&tensor, count);
}
inline void count_elements(const void*, int64_t*) {}
template <typename T>
constexpr bool is_handle(T*) {
  return false;
}
constexpr bool is_handle(Handle<>*) { return true; }
constexpr bool is_handle(Optional<Handle<>>*) { return true; }

inline void refuse(const Call*, ErrorKind kind, const char* format, ...) {
  Error error;
  error.kind = kind;
  va_list args;
  va_start(args, format);
  vsnprintf(error.text, sizeof error.text, format, args);
  va_end(args);
  throw error;
}

// Calls `function` such that a thread which Python ends meanwhile sleeps until the process ends, as it does from Python
// 3.14 on. While the interpreter shuts down, CPython before 3.14 ends any other thread that asks for its lock by
// pthread_exit, whose unwinding functions of C++ do not survive: the process would abort. The handler that is pushed
// here runs before the unwinding comes to the caller. So this function must not be inlined, and must hold no object
// with a destructor.
template <typename Function, typename... Args>
__attribute__((noinline)) auto surviving_shutdown(Function function, Args... args) {
  const PythonLock& lock = python_lock();
  void* buffer[8];  // of four words in glibc, three in musl
  if (lock.push) {
    lock.push(
        buffer,
        [](void*) {
          for (;;) pause();
        },
        nullptr);
  }
  if constexpr (__is_same(decltype(function(args...)), void)) {
    function(args...);
    if (lock.pop) lock.pop(buffer, 0);
  } else {
    const auto result = function(args...);
    if (lock.pop) lock.pop(buffer, 0);
    return result;
  }
}

// Makes an error the one that the call ends with. It has no backtrace: tvm-ffi would show each C++ function, Dimorph's
// own among them, as a frame of an unknown file.
inline void set_raised(const char* kind, const char* text) {
  const TVMFFIByteArray name{kind, strlen(kind)}, message{text, strlen(text)}, none{"", 0};
  TVMFFIObjectHandle error = nullptr;
  if (TVMFFIErrorCreate(&name, &message, &none, &error) != 0) return TVMFFIErrorSetRaisedFromCStr(kind, text);
  TVMFFIErrorSetRaised(error);
  TVMFFIObjectDecRef(error);
}

__attribute__((cold, noinline)) inline void* resolve(const char* function, int64_t slot, const char* axis,
                                                     const char* value) {
  const Instance* instance = call_state().instance;
  if (!instance) raise(ErrorKind::runtime, "%s: loaded by something other than dimorph", function);
  const int64_t result = surviving_shutdown(instance->resolve, function, slot, axis, value);
  if (result <= 0) {
    char number[24];
    snprintf(number, sizeof number, "%lld", static_cast<long long>(-result));
    // 0: a signal handler has raised before Python came to the function. Python has printed its exception.
    set_raised(result ? "dimorph.carried" : "KeyboardInterrupt", result ? number : "");
    raise(ErrorKind::raised, "set on the side of tvm-ffi");
  }
  return reinterpret_cast<void*>(result);
}

// Lets other Python threads run while a case works.
struct GilReleased {
  void* state = nullptr;
  explicit GilReleased(bool wanted) {
    const PythonLock& lock = python_lock();
    if (wanted && lock.held && lock.held()) state = lock.release();
  }
  ~GilReleased() {
    if (state) surviving_shutdown(python_lock().take, state);
  }
};

// What a case gets for an argument: a view of a new tensor, which the entry keeps; the number that a shared size has; a
// copy of anything else.
template <typename T>
inline T passed(T argument) {
  return argument;
}
inline Tensor passed(const NewTensor& tensor) { return tensor; }
inline int64_t passed(const Size& size) { return size; }

// Raises the error for a call with other types than the case's function has. `call`: see CaseCall.
[[noreturn]] __attribute__((cold, noinline)) inline void other_signature(const char* call, const char* entry,
                                                                         const char* case_text) {
  const char* file = call + strlen(call) + 1;
  if (const char* slash = strrchr(file, '/')) file = slash + 1;
  const char *ours = strstr(entry, "R = "), *theirs = strstr(case_text, "R = ");
  raise(ErrorKind::type,
        "%s: DIMORPH_CALL at %s has another signature than the case's function\n  entry: [%s\n  case:  [%s\n"
        "  pass arguments of exactly the types of the case's parameters",
        call, file, ours ? ours : entry, theirs ? theirs : case_text);
}

// A call of a function of the case at `slot`. `function`: its name and, behind the zero at its end, the file and line
// of the call. `place`: index of the bound function in Instance::bound.
template <typename R>
struct CaseCall {
  const char* function;
  int64_t slot;
  int64_t place;

  template <typename... Args>
  R operator()(Args&&... args) const {
    return call(passed(static_cast<Args&&>(args))...);
  }

 private:
  // Not inlined, because an entry with hundreds of combinations repeats the call.
  template <typename... Args>
  __attribute__((noinline)) R call(Args... args) const {
    CallState& state = call_state();
    Instance* const instance = state.instance;
    const CaseFunction* target = instance ? __atomic_load_n(instance->bound + place, __ATOMIC_ACQUIRE) : nullptr;
    if (__builtin_expect(!target, 0)) {
      target = static_cast<const CaseFunction*>(resolve(function, slot, nullptr, nullptr));
      __atomic_store_n(instance->bound + place, target, __ATOMIC_RELEASE);
    }
    if (__builtin_expect(target->tag != signature_tag<R, Args...>(), 0))
      other_signature(function, signature_text<R, Args...>(), target->signature);
    ++state.cases_run;
    // Counted without a locked instruction, which would take as long as a small case: where threads call without
    // Python's lock, a few calls may be lost.
    int64_t* calls = instance->calls + place;
    __atomic_store_n(calls, __atomic_load_n(calls, __ATOMIC_RELAXED) + 1, __ATOMIC_RELAXED);
    auto invoke = reinterpret_cast<int32_t (*)(ErrorSink*, R*, Args...)>(target->invoke);
    ErrorSink sink;
    sink.call = state.call;
    if constexpr (__is_same(R, void)) {
      {
        GilReleased released(!state.brief);
        invoke(&sink, nullptr, args...);
      }
      if (__builtin_expect(sink.kind != ErrorKind::none, 0)) rethrow(sink);
    } else {
      R result{};
      {
        GilReleased released(!state.brief);
        invoke(&sink, &result, args...);
      }
      if (__builtin_expect(sink.kind != ErrorKind::none, 0)) rethrow(sink);
      return result;
    }
  }

  [[noreturn]] __attribute__((cold, noinline)) static void rethrow(const ErrorSink& sink) {
    Error error;
    error.kind = sink.kind;
    __builtin_memcpy(error.text, sink.text, sizeof error.text);
    throw error;
  }
};

// The value of an axis in the values of a case, "dtype=float32, dim=3"; empty if there is no such axis.
inline Str value_of(const char* values, const char* axis) {
  const size_t length = strlen(axis);
  while (*values) {
    const char* end = strstr(values, ", ");
    if (!end) end = values + strlen(values);
    if (strncmp(values, axis, length) == 0 && values[length] == '=')
      return Str(values + length + 1, static_cast<size_t>(end - values) - length - 1);
    values = *end ? end + 2 : end;
  }
  return Str();
}

// Stand for the slots of this entry in handles: entries number their cases each in its own way.
template <int64_t slots>
inline constexpr char places[slots] = {};

// The slot of the case that made a handle, found by its values. `axes`: see config_header.
__attribute__((cold, noinline)) inline int64_t slot_of(const HandleObject* object, const char* function,
                                                       const char* const* axes) {
  const CaseText& made_by = object->type->made_by();
  char name[64];
  argument_name(object, call_state().call, name);
  if (strcmp(made_by.kernel, *axes) != 0)
    raise(ErrorKind::type, "%s: argument %s: expected a handle of kernel %s, got %s", function, name, *axes,
          HandleText(object).text);
  int64_t slot = 0;
  for (++axes; *axes; ++axes) {
    const char* axis = *axes;
    const Str made_for = value_of(made_by.values, axis);
    int64_t count = 0, found = -1;
    for (++axes; *axes; ++axes, ++count)
      if (made_for == Str(*axes)) found = count;
    if (found < 0 && count == 1)
      raise(ErrorKind::mismatch, "argument %s: axis %s: the handle has %.*s, this module was compiled for %s", name,
            axis, static_cast<int>(made_for.size), made_for.data, axes[-1]);
    if (found < 0) missing(axis, made_for);
    slot = slot * count + found;
  }
  return slot;
}

[[noreturn]] __attribute__((cold, noinline)) inline void no_handle(const char* function) {
  char name[64];
  argument_name(static_cast<const HandleObject*>(nullptr), call_state().call, name);
  raise(ErrorKind::type, "%s: argument %s: expected a handle, got None", function, name);
}

template <typename R, int64_t slots>
inline CaseCall<R> call_on(Handle<> handle, const char* function, int64_t first, const char* const* axes) {
  HandleObject* object = handle.object();
  if (__builtin_expect(!object, 0)) no_handle(function);
  const auto here = reinterpret_cast<uintptr_t>(places<slots>);
  uint64_t slot = __atomic_load_n(&object->place, __ATOMIC_RELAXED) - here;
  if (__builtin_expect(slot >= slots, 0)) {
    slot = slot_of(object, function, axes);
    __atomic_store_n(&object->place, here + slot, __ATOMIC_RELAXED);
  }
  return CaseCall<R>{function, static_cast<int64_t>(slot), first + static_cast<int64_t>(slot)};
}

inline void set_error(const char* function, ErrorKind kind, const char* text) {
  const char* kinds[] = {"RuntimeError", "ValueError",          "TypeError",    "IndexError",
                         "MemoryError",  "NotImplementedError", "RuntimeError", "dimorph.SpecializationMismatch",
                         "RuntimeError", "EnvErrorAlreadySet"};
  char named[2 * sizeof(ErrorSink::text)];
  snprintf(named, sizeof named, "%s: %s", function, text);
  set_raised(kinds[static_cast<int32_t>(kind)], kind == ErrorKind::mismatch ? named : text);
}

inline bool from_any(const TVMFFIAny&, Extra&, const ArgumentPlace&, ErrorSink*) { return true; }

template <typename T>
inline void receive(T&, const TVMFFIAny*, int32_t, Call*, Device) {}
inline void receive(Extra& extra, const TVMFFIAny* args, int32_t count, Call* call, Device device) {
  extra.args = args;
  extra.count = count > 0 ? count : 0;
  extra.function = call->function;
  extra.call = call;
  extra.device = device;
}

// Whether an argument lies on a device, which is then set. Kernels without device code take no others than the host.
template <typename T>
inline bool lies_on_device([[maybe_unused]] const T& value, [[maybe_unused]] Device& device) {
#if defined(DIMORPH_HAS_DEVICE)
  if constexpr (__is_base_of(ConstTensor, T)) {
    device = value.device();
    return true;
  }
#endif
  return false;
}
template <typename T>
inline bool lies_on_device(const Optional<T>& value, Device& device) {
  return value && lies_on_device(*value, device);
}

template <typename T>
constexpr bool is_extra(T*) {
  return false;
}
constexpr bool is_extra(Extra*) { return true; }

// Parameters that take a tensor without writing it.
template <typename T>
constexpr bool is_read_only(T*) {
  return false;
}
constexpr bool is_read_only(ConstTensor*) { return true; }
constexpr bool is_read_only(ConstTensorList*) { return true; }
template <typename T>
constexpr bool is_read_only(Optional<T>*) {
  return is_read_only(static_cast<T*>(nullptr));
}

// Whether results of type T go to Python.
template <typename T, typename = void>
constexpr bool goes = false;
template <typename T>
constexpr bool goes<T, decltype(to_any(static_cast<T (*)()>(nullptr)(), static_cast<TVMFFIAny*>(nullptr)))> = true;
template <typename T>
constexpr bool is_result = goes<T>;
template <>
constexpr bool is_result<void> = true;
// New tensors and handles cannot be copied into others.
template <typename T>
constexpr bool is_part = is_result<T> && __is_trivially_copyable(T);
template <typename T>
constexpr bool is_result<Optional<T>> = is_part<T>;
template <typename... Ts>
constexpr bool is_result<Results<Ts...>> = (... && is_part<Ts>);

template <typename T>
constexpr bool is_written = false;
template <typename T>
constexpr bool is_written<T&> = !__is_base_of(ConstTensor, T);
template <typename T>
constexpr bool is_written<const T&> = false;

// The checks of a signature. Their texts are "cause: cure"; compilers name the type of the parameter or result.
template <typename T>
struct Parameter {
  static_assert(!is_written<T>,
                "what an exported function writes into a parameter T& is lost: take it by value, and "
                "return the result");
  static constexpr bool valid = true;
};
template <typename T>
struct Result {
  static_assert(is_result<T>,
                "an exported function has a result that Python cannot get: return a number, bool, dimorph::Str, "
                "NewTensor, NewHandle, Optional<T> or dimorph::Results<A, B> of these but the new ones");
  static constexpr bool valid = true;
};

template <auto function>
struct Exported;

template <typename R, typename... Params, bool never_throws, R (*function)(Params...) noexcept(never_throws)>
struct Exported<function> {
  static_assert((Result<R>::valid && ... && Parameter<Params>::valid));
  static_assert(!never_throws, "an exported function is noexcept: remove noexcept, because checks and DISPATCH_ throw");
  static constexpr int32_t extras = (0 + ... + is_extra(static_cast<value_t<Params>*>(nullptr)));
  static constexpr int32_t fixed = sizeof...(Params) - extras;

  static constexpr bool extra_is_last() {
    const bool extra[] = {false, is_extra(static_cast<value_t<Params>*>(nullptr))...};
    for (int32_t i = 0; i <= fixed; ++i)
      if (extra[i]) return false;
    return extras <= 1;
  }
  static_assert(extra_is_last(), "Extra stands twice, or before another parameter: make it the last parameter");

  // Whether comma separated names stand for all parameters. No names, or the name of a macro that is not defined, say
  // nothing.
  static constexpr bool named_by(const char* names) {
    int32_t count = 1;
    for (const char* at = names; *at; ++at) count += *at == ',';
    return !*names || starts_with(names, "DIMORPH_ARGUMENTS_") || count == sizeof...(Params);
  }

  // A bit for each parameter. A variant's tensors are never written, so the bits from an Extra on are all set.
  static constexpr uint64_t read_only() {
    uint64_t mask = 0, bit = 1;
    ((mask |= is_read_only(static_cast<value_t<Params>*>(nullptr)) ? bit : 0, bit <<= 1), ...);
    return extras ? mask | ~((uint64_t{1} << fixed) - 1) : mask;
  }

  static int call(const char* name, const char* names, void* handle, const TVMFFIAny* args, int32_t count,
                  TVMFFIAny* result) {
    return call(name, names, handle, args, count, result, typename MakeIndices<sizeof...(Params)>::type{});
  }

 private:
  template <int... I>
  static int call(const char* name, const char* names, void* handle, const TVMFFIAny* args, int32_t count,
                  TVMFFIAny* result, Indices<I...> indices) {
    constexpr int32_t least = required_count<value_t<Params>...>(fixed);
    ErrorSink sink;
    if (count < least || (!extras && count > fixed)) {
      wrong_count(name, names, least, fixed, count, &sink, "", extras ? ", then those of the variant" : "");
      set_error(name, sink.kind, sink.text);
      return -1;
    }
    Slots<decltype(indices), value_t<Params>...> slots;
    Call running{name, names, args, count, nullptr};
    if (!slots.fill(args, count < fixed ? count : fixed, name, names, &running, &sink)) {
      set_error(name, sink.kind, sink.text);
      return -1;
    }
    Device device{kDLCPU, 0};  // that of the first tensor, where those of the variant must be, too
    (void)(lies_on_device(static_cast<Slot<I, value_t<Params>>&>(slots).value, device) || ...);
    (receive(static_cast<Slot<I, value_t<Params>>&>(slots).value, args + fixed, count - fixed, &running, device), ...);
    CallState& state = call_state();
    const CallState outer = state;
    int64_t elements = -1;
    constexpr bool handles = (false || ... || is_handle(static_cast<value_t<Params>*>(nullptr)));
    (count_elements(&static_cast<Slot<I, value_t<Params>>&>(slots).value, &elements), ...);
    const bool brief = !handles && elements >= 0 && elements < kBriefElements;
    state = CallState{static_cast<Instance*>(handle), 0, brief, &running};
    const int status = run(name, args, count, result, slots, indices);
    state = outer;
    return status;
  }

  template <typename Filled, int... I>
  static int run(const char* name, const TVMFFIAny* args, int32_t count, TVMFFIAny* result, Filled& slots,
                 Indices<I...>) {
    ErrorSink sink;
    int status = -1;
    guard(name, &sink, [&] {
      try {
        if constexpr (__is_same(R, void)) {
          function(static_cast<Slot<I, value_t<Params>>&>(slots).value...);
          *result = TVMFFIAny{};
        } else {
          to_any(function(static_cast<Slot<I, value_t<Params>>&>(slots).value...), result);
        }
        status = 0;
      } catch (const Missing& missing) {
        // The wider entry runs the call from its beginning, so no case may have run yet.
        if (call_state().cases_run)
          raise(ErrorKind::runtime, "%s: axis %s has no value %s, found out after a case had run", name, missing.axis,
                missing.value);
        const auto* wider = static_cast<const Wider*>(resolve(name, -1, missing.axis, missing.value));
        status = wider->call(wider->instance, args, count, result);
      }
    });
    if (sink.kind != ErrorKind::none && sink.kind != ErrorKind::raised) set_error(name, sink.kind, sink.text);
    return status;
  }
};

}  // namespace detail

// Says that this call takes long however few elements its tensors have, as where they hold addresses: other threads of
// Python run while its cases work. To stand before the call of the case.
inline void long_call() { detail::call_state().brief = false; }

}  // namespace dimorph

extern "C" {

DIMORPH_VISIBLE inline __attribute__((used)) void dimorph_python_lock(const dimorph::detail::PythonLock* lock) {
  dimorph::detail::python_lock() = *lock;
}

// A new instance with room for `places` case functions and one user; null if there is no memory. `calls`: where to
// count calls, zeros that `keeper` keeps alive; null: in memory of the instance.
DIMORPH_VISIBLE inline __attribute__((used)) void* dimorph_instance_new(void* keeper, void* resolve, int64_t places,
                                                                        int64_t* calls) {
  using dimorph::detail::Instance;
  const size_t size = sizeof(Instance) + places * sizeof(void*);
  auto* instance = static_cast<Instance*>(calloc(1, size + (calls ? 0 : places * sizeof(int64_t))));
  if (!instance) return nullptr;
  TVMFFIObjectIncRef(keeper);
  instance->keeper = keeper;
  instance->resolve = reinterpret_cast<decltype(instance->resolve)>(resolve);
  instance->users = 1;
  instance->calls = calls ? calls : reinterpret_cast<int64_t*>(reinterpret_cast<char*>(instance) + size);
  return instance;
}

DIMORPH_VISIBLE inline __attribute__((used)) void dimorph_instance_drop(void* self) {
  auto* instance = static_cast<dimorph::detail::Instance*>(self);
  if (__atomic_sub_fetch(&instance->users, 1, __ATOMIC_ACQ_REL)) return;
  TVMFFIObjectDecRef(instance->keeper);
  free(instance);
}

// (instance, address of an exported function) -> the function object that Python calls.
DIMORPH_VISIBLE inline __attribute__((used)) int __tvm_ffi_dimorph_function(void*, const TVMFFIAny* args, int32_t,
                                                                            TVMFFIAny* result) {
  auto* instance = reinterpret_cast<dimorph::detail::Instance*>(args[0].v_int64);
  TVMFFIObjectHandle made = nullptr;
  __atomic_add_fetch(&instance->users, 1, __ATOMIC_RELAXED);
  const int status = TVMFFIFunctionCreate(instance, reinterpret_cast<TVMFFISafeCallType>(args[1].v_int64),
                                          dimorph_instance_drop, &made);
  if (status != 0) {
    dimorph_instance_drop(instance);
    return status;
  }
  *result = TVMFFIAny{};
  result->type_index = kTVMFFIFunction;
  result->v_obj = static_cast<TVMFFIObject*>(made);
  return 0;
}

}  // extern "C"

// DIMORPH_CALL(function)(arguments...) calls the function of the case for the values that the DISPATCH_ macros around
// it have bound. The arguments must have the types of the parameters. A function with a result needs its type:
// DIMORPH_CALL(function, double)(...).
#define DIMORPH_CALL(...) DIMORPH_CALL_PICK(__VA_ARGS__, DIMORPH_CALL_RESULT, DIMORPH_CALL_VOID, )(__VA_ARGS__)
#define DIMORPH_CALL_PICK(_1, _2, chosen, ...) chosen
#define DIMORPH_CALL_VOID(name) DIMORPH_CALL_RESULT(name, void)
#define DIMORPH_CALL_RESULT(name, result)                                                             \
  ::dimorph::detail::CaseCall<result> {                                                               \
    #name "\0" __FILE__ ":" DIMORPH_TEXT(__LINE__), DIMORPH_SLOT, DIMORPH_PLACE_##name + DIMORPH_SLOT \
  }

// DIMORPH_CALL_ON(handle, function)(arguments...) calls the function of the case that made the handle, without any
// DISPATCH_. A function with a result needs its type: DIMORPH_CALL_ON(handle, function, double)(...).
#define DIMORPH_CALL_ON(...) \
  DIMORPH_CALL_ON_PICK(__VA_ARGS__, DIMORPH_CALL_ON_RESULT, DIMORPH_CALL_ON_VOID, )(__VA_ARGS__)
#define DIMORPH_CALL_ON_PICK(_1, _2, _3, chosen, ...) chosen
#define DIMORPH_CALL_ON_VOID(handle, name) DIMORPH_CALL_ON_RESULT(handle, name, void)
#define DIMORPH_CALL_ON_RESULT(handle, name, result)                                                        \
  ::dimorph::detail::call_on<result, DIMORPH_SLOTS>(handle, #name "\0" __FILE__ ":" DIMORPH_TEXT(__LINE__), \
                                                    DIMORPH_PLACE_##name, dimorph_axes)

// Makes a function of the entry callable from Python. The build reads its definition and defines
// DIMORPH_ARGUMENTS_name: the names of the parameters, as the entry spells them.
#define DIMORPH_EXPORT(name)                                                                                       \
  static_assert(::dimorph::detail::Exported<&name>::named_by(DIMORPH_TEXT(DIMORPH_ARGUMENTS_##name)),              \
                "the build read other parameters than the compiler, and Python takes those: define the function "  \
                "once, without macros in its list of parameters");                                                 \
  extern "C" DIMORPH_VISIBLE int __tvm_ffi_##name(void* dimorph_handle, const TVMFFIAny* dimorph_args,             \
                                                  int32_t dimorph_count, TVMFFIAny* dimorph_result) {              \
    return ::dimorph::detail::Exported<&name>::call(#name, DIMORPH_TEXT(DIMORPH_ARGUMENTS_##name), dimorph_handle, \
                                                    dimorph_args, dimorph_count, dimorph_result);                  \
  }                                                                                                                \
  extern "C" DIMORPH_VISIBLE uint64_t dimorph_read_only_##name() {                                                 \
    return ::dimorph::detail::Exported<&name>::read_only();                                                        \
  }
