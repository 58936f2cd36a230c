// The header for cases. It is light on purpose: a case is compiled once for each specialization.
#pragma once
#include <setjmp.h>

#include "abi.h"
#include "check.h"
#include "convert.h"
#include "dispatch.h"
#include "expect.h"
#include "make_handle.h"
#include "tensor.h"
#include "tensor_list.h"

#define DIMORPH_HOST 1

namespace dimorph {

// The services of the process, once the case is bound; null in a case that does not use them.
inline const HostServices*& host_services() {
  static const HostServices* services = nullptr;
  return services;
}

struct Exit {
  ErrorSink* sink;
  jmp_buf place;
};

#if defined(DIMORPH_HAS_DEVICE)  // defined by the build for a kernel with device code
namespace cuda {
namespace detail {
// Where a launch leaves its error. Launches do not throw, so that a case carries no exception machinery.
inline ErrorSink*& case_sink() {
  static thread_local ErrorSink* sink = nullptr;
  return sink;
}
struct SinkOfCall {
  ErrorSink* const outer = case_sink();
  explicit SinkOfCall(ErrorSink* sink) { case_sink() = sink; }
  ~SinkOfCall() { case_sink() = outer; }
};
}  // namespace detail
}  // namespace cuda
#endif

namespace detail {

// Tells an Extra the names of its arguments and where to leave errors.
template <typename T>
inline void adopt(T&, const char*, ErrorSink*) {}
inline void adopt(Extra& extra, const char* names, ErrorSink* sink) {
  extra.names = extra.call->more = names;
  extra.call->fixed = static_cast<int32_t>(extra.args - static_cast<const TVMFFIAny*>(extra.call->args));
  extra.sink = sink;
}

// The parallel work that a thread does. In a case without any, it stays empty.
struct ThreadState {
  Exit* exit = nullptr;               // of the body that runs
  const char* function = "a kernel";  // for messages
};
inline ThreadState& thread_state() {
  static thread_local ThreadState state;
  return state;
}

inline void refuse(const Call* call, ErrorKind kind, const char* format, ...) {
  Exit* exit = thread_state().exit ? thread_state().exit : call->exit;
  va_list args;
  va_start(args, format);
  vsnprintf(exit->sink->text, sizeof exit->sink->text, format, args);
  va_end(args);
  exit->sink->kind = kind;
  _longjmp(exit->place, 1);
}

// True in a case that includes parallel.h.
template <int>
constexpr bool uses_pool = false;

// What an entry passes for a parameter of a case: for a view, the tensor that it is a view of.
template <typename T>
struct Argument {
  using type = T;
  static T& given(T& argument) { return argument; }
};
template <typename T, int N>
struct Argument<View<T, N>> {
  using type = Tensor;
  static View<T, N> given(const Tensor& tensor) { return tensor.view<T, N>(); }
};
template <typename T, int N>
struct Argument<View<const T, N>> {
  using type = ConstTensor;
  static View<const T, N> given(const ConstTensor& tensor) { return tensor.view<T, N>(); }
};
template <typename T>
using passed_t = typename Argument<value_t<T>>::type;

template <auto function>
struct CaseThunk;

template <typename R, typename... Params, bool never_throws, R (*function)(Params...) noexcept(never_throws)>
struct CaseThunk<function> {
  static constexpr uint64_t tag = signature_tag<value_t<R>, passed_t<Params>...>();
  static constexpr const char* signature = signature_text<value_t<R>, passed_t<Params>...>();

  template <const char* const* name, const char* const* names>
  static int32_t invoke(ErrorSink* sink, value_t<R>* result, passed_t<Params>... args) {
    (adopt(args, *names, sink), ...);
#if defined(DIMORPH_HAS_DEVICE)
    const cuda::detail::SinkOfCall of_call(sink);
#endif
    Exit exit{sink, {}};
    sink->call->exit = &exit;
    constexpr bool parallel = uses_pool<static_cast<int>(sizeof...(Params) * 0)>;
    if constexpr (parallel) thread_state().function = *name;
    if (_setjmp(exit.place) == 0) {
      (admit(args, sink->call), ...);
      // Without exception machinery, which a noexcept function does not need, the shared object stays small.
      if constexpr (never_throws)
        call(result, args...);
      else
        guard(*name, sink, [&] { call(result, args...); });
    }
    sink->call->exit = nullptr;
    if constexpr (parallel) host_services()->take_error(sink);
    return static_cast<int32_t>(sink->kind);
  }

 private:
  // Not inlined, because a function that calls setjmp keeps its variables in memory.
  __attribute__((noinline)) static void call(value_t<R>* result, passed_t<Params>&... args) noexcept(never_throws) {
    if constexpr (__is_same(R, void))
      (void)result, function(Argument<value_t<Params>>::given(args)...);
    else
      *result = function(Argument<value_t<Params>>::given(args)...);
  }
};

}  // namespace detail
}  // namespace dimorph

extern "C" DIMORPH_VISIBLE inline __attribute__((used)) void dimorph_case_bind(const dimorph::HostServices* services) {
  dimorph::host_services() = services;
}

// Says which case this is. The build appends the line to each case.
#define DIMORPH_CASE_IS(kernel, values)                                    \
  inline const ::dimorph::detail::CaseText& dimorph::detail::case_text() { \
    static constexpr ::dimorph::detail::CaseText text{kernel, values};     \
    return text;                                                           \
  }

// Makes DIMORPH_CASE::name callable from the entry. The build appends such a line to a case for each function.
#define DIMORPH_EXPORT_CASE(name)                                                                       \
  namespace {                                                                                           \
  constexpr const char* dimorph_name_##name = #name;                                                    \
  constexpr const char* dimorph_names_##name = DIMORPH_ADDITIONAL_NAMES;                                \
  }                                                                                                     \
  extern "C" {                                                                                          \
  extern DIMORPH_VISIBLE const ::dimorph::CaseFunction dimorph_case_##name;                             \
  const ::dimorph::CaseFunction dimorph_case_##name = {                                                 \
      ::dimorph::detail::CaseThunk<&DIMORPH_CASE::name>::tag,                                           \
      ::dimorph::detail::CaseThunk<&DIMORPH_CASE::name>::signature,                                     \
      reinterpret_cast<void*>(                                                                          \
          &::dimorph::detail::CaseThunk<&DIMORPH_CASE::name>::template invoke<&dimorph_name_##name,     \
                                                                              &dimorph_names_##name>)}; \
  }
