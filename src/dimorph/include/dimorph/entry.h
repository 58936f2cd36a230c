// What an entry includes: argument conversion, dispatch to cases, and the one export line a function.
#pragma once
#include "abi.h"
#include "check.h"
#include "convert.h"
#include "dispatch.h"
#include "tensor.h"

#define DIMORPH_HOST 1
#define DIMORPH_ENTRY 1

namespace dimorph {
namespace detail {

// What Python gives to an entry when it is loaded.
struct EntryHost {
  // resolve(handle, function, slot, axis, value) -> address, where `handle` is the one the call came with. With a
  // slot: the CaseFunction of a case that is not bound yet. With an axis and value that no table holds: a Wider.
  TVMFFIObjectHandle resolve;
  int (*gil_held)();
  void* (*gil_release)();
  void (*gil_take)(void*);
};

// The same export of an entry that has one more value.
struct Wider {
  TVMFFISafeCallType call;
  void* handle;
};

inline EntryHost& entry_host() {
  static EntryHost host{};
  return host;
}

// The call that this thread is in.
struct CallState {
  void* handle;
  int cases_run;
};

inline CallState& call_state() {
  static thread_local CallState state{};
  return state;
}

// Thrown when the error is already set on tvm-ffi's side.
struct Raised {};

__attribute__((cold, noinline)) inline void* resolve(const char* function, int64_t slot, const char* axis,
                                                     const char* value) {
  if (!entry_host().resolve) raise(ErrorKind::runtime, "%s: this entry was loaded without a host", function);
  TVMFFIAny args[5] = {}, result = {};
  to_any(reinterpret_cast<int64_t>(call_state().handle), &args[0]);
  to_any(Str(function), &args[1]);
  to_any(slot, &args[2]);
  if (axis) {
    to_any(Str(axis), &args[3]);
    to_any(Str(value), &args[4]);
  }
  const int status = TVMFFIFunctionCall(entry_host().resolve, args, 5, &result);
  for (TVMFFIAny& arg : args)
    if (arg.type_index >= kTVMFFIStaticObjectBegin) TVMFFIObjectDecRef(arg.v_obj);
  if (status != 0) throw Raised{};
  return reinterpret_cast<void*>(result.v_int64);
}

// Lets other Python threads run while a case works.
struct GilReleased {
  void* state = nullptr;
  GilReleased() {
    const EntryHost& host = entry_host();
    if (host.gil_held && host.gil_held()) state = host.gil_release();
  }
  ~GilReleased() {
    if (state) entry_host().gil_take(state);
  }
};

// One function of the cases: what is bound for each slot, null until its first use.
template <int64_t slots>
struct CaseTable {
  const char* function;
  const CaseFunction* bound[slots];
};

template <typename R>
struct CaseCall {
  const char* function;
  const CaseFunction** bound;
  int64_t slot;

  // Not inlined: an entry with hundreds of combinations repeats the call, and only that.
  template <typename... Args>
  __attribute__((noinline)) R operator()(Args... args) const {
    const CaseFunction* target = __atomic_load_n(bound, __ATOMIC_ACQUIRE);
    if (__builtin_expect(!target, 0)) {
      target = static_cast<const CaseFunction*>(resolve(function, slot, nullptr, nullptr));
      __atomic_store_n(bound, target, __ATOMIC_RELEASE);
    }
    if (__builtin_expect(target->tag != signature_tag<R, Args...>(), 0))
      raise(ErrorKind::type, "%s: the entry calls a case with another signature\n  entry: %s\n  case:  %s", function,
            signature_text<R, Args...>(), target->signature);
    ++call_state().cases_run;
    auto invoke = reinterpret_cast<int32_t (*)(ErrorSink*, R*, Args...)>(target->invoke);
    ErrorSink sink;
    if constexpr (__is_same(R, void)) {
      {
        GilReleased released;
        invoke(&sink, nullptr, args...);
      }
      if (__builtin_expect(sink.kind != ErrorKind::none, 0)) rethrow(sink);
    } else {
      R result{};
      {
        GilReleased released;
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

template <typename R = void, int64_t slots>
inline CaseCall<R> case_call(CaseTable<slots>& table, int64_t slot) {
  return CaseCall<R>{table.function, table.bound + slot, slot};
}

inline void set_error(const char* function, ErrorKind kind, const char* text) {
  const char* kinds[] = {"RuntimeError", "ValueError", "TypeError", "IndexError", "MemoryError",
                         "NotImplementedError", "RuntimeError", "dimorph.SpecializationMismatch"};
  const char* parts[] = {text};
  if (kind == ErrorKind::mismatch) {
    const char* named[] = {function, ": ", text};
    TVMFFIErrorSetRaisedFromCStrParts(kinds[static_cast<int32_t>(kind)], named, 3);
  } else {
    TVMFFIErrorSetRaisedFromCStrParts(kinds[static_cast<int32_t>(kind)], parts, 1);
  }
}

inline bool from_any(const TVMFFIAny&, Extra&, const ArgumentPlace&, ErrorSink*) { return true; }

template <typename T>
inline void receive(T&, const TVMFFIAny*, int32_t, const char*) {}
inline void receive(Extra& extra, const TVMFFIAny* args, int32_t count, const char* function) {
  extra.args = args;
  extra.count = count > 0 ? count : 0;
  extra.function = function;
}

template <typename T>
constexpr bool is_extra(T*) { return false; }
constexpr bool is_extra(Extra*) { return true; }

// Which parameters take a tensor without writing it, one bit each.
template <typename T>
constexpr bool is_read_only(T*) { return false; }
constexpr bool is_read_only(ConstTensor*) { return true; }
constexpr bool is_read_only(Optional<ConstTensor>*) { return true; }

template <auto function>
struct Exported;

template <typename R, typename... Params, R (*function)(Params...)>
struct Exported<function> {
  static constexpr int32_t extras = (0 + ... + is_extra(static_cast<value_t<Params>*>(nullptr)));
  static constexpr int32_t fixed = sizeof...(Params) - extras;
  static_assert(extras <= 1, "Extra can stand once, as the last parameter");

  // What a variant takes is never written, so the bits from an Extra on are all set.
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
    constexpr int32_t least = extras ? fixed : required_count<value_t<Params>...>();
    ErrorSink sink;
    if (count < least || (!extras && count > fixed)) {
      wrong_count(name, names, least, fixed, count, &sink);
      set_error(name, sink.kind, sink.text);
      return -1;
    }
    Slots<decltype(indices), value_t<Params>...> slots;
    if (!slots.fill(args, count < fixed ? count : fixed, name, names, &sink)) {
      set_error(name, sink.kind, sink.text);
      return -1;
    }
    (receive(static_cast<Slot<I, value_t<Params>>&>(slots).value, args + fixed, count - fixed, name), ...);
    const CallState outer = call_state();
    call_state() = CallState{handle, 0};
    const int status = run(name, args, count, result, slots, indices);
    call_state() = outer;
    return status;
  }

  template <typename Filled, int... I>
  static int run(const char* name, const TVMFFIAny* args, int32_t count, TVMFFIAny* result, Filled& slots,
                 Indices<I...>) {
    try {
      try {
        if constexpr (__is_same(R, void)) {
          function(static_cast<Slot<I, value_t<Params>>&>(slots).value...);
          *result = TVMFFIAny{};
        } else {
          to_any(function(static_cast<Slot<I, value_t<Params>>&>(slots).value...), result);
        }
        return 0;
      } catch (const Missing& missing) {
        // A wider entry starts the call anew, so no case may have run.
        if (call_state().cases_run)
          raise(ErrorKind::runtime, "%s: axis %s has no value %s, found out after a case had run", name, missing.axis,
                missing.value);
        const auto* wider = static_cast<const Wider*>(resolve(name, -1, missing.axis, missing.value));
        return wider->call(wider->handle, args, count, result);
      }
    } catch (const Error& error) {
      set_error(name, error.kind, error.text);
    } catch (const Raised&) {
    } catch (...) {
      set_error(name, ErrorKind::runtime, "a C++ exception that is not a dimorph::Error");
    }
    return -1;
  }
};

}  // namespace detail
}  // namespace dimorph

// Called once by Python when the entry is loaded.
extern "C" DIMORPH_VISIBLE inline __attribute__((used)) void dimorph_entry_host(
    const dimorph::detail::EntryHost* host) {
  dimorph::detail::entry_host() = *host;
}

// DIMORPH_CALL(function)(arguments...) calls that function of the case for the values bound here. The arguments'
// types are the parameters' types; a result needs its type: DIMORPH_CALL(function, double)(...).
#define DIMORPH_CALL(...) DIMORPH_CALL_PICK(__VA_ARGS__, DIMORPH_CALL_RESULT, DIMORPH_CALL_VOID, )(__VA_ARGS__)
#define DIMORPH_CALL_PICK(_1, _2, chosen, ...) chosen
#define DIMORPH_CALL_VOID(name) ::dimorph::detail::case_call<void>(dimorph_table_##name, DIMORPH_SLOT)
#define DIMORPH_CALL_RESULT(name, result) ::dimorph::detail::case_call<result>(dimorph_table_##name, DIMORPH_SLOT)

#define DIMORPH_TEXT(...) DIMORPH_TEXT_(__VA_ARGS__)
#define DIMORPH_TEXT_(...) #__VA_ARGS__

// Makes a function of the entry callable from Python. DIMORPH_ARGUMENTS_name is defined by the build: the
// parameters' names as the entry spells them, for error messages.
#define DIMORPH_EXPORT(name)                                                                                     \
  extern "C" DIMORPH_VISIBLE int __tvm_ffi_##name(void* handle, const TVMFFIAny* args, int32_t count,            \
                                                  TVMFFIAny* result) {                                           \
    return ::dimorph::detail::Exported<&name>::call(#name, DIMORPH_TEXT(DIMORPH_ARGUMENTS_##name), handle, args, \
                                                    count, result);                                              \
  }                                                                                                              \
  extern "C" DIMORPH_VISIBLE uint64_t dimorph_read_only_##name() {                                               \
    return ::dimorph::detail::Exported<&name>::read_only();                                                      \
  }
