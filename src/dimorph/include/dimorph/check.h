// Checks that raise Python exceptions. They throw, so a function that uses them must not be `noexcept`.
#pragma once
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <exception>
#include <new>

#include "abi.h"

namespace dimorph {

// The only exception type of kernel code. It becomes the Python exception of its kind.
struct Error {
  ErrorKind kind;
  char text[1020];
};

namespace detail {

__attribute__((cold, noinline, format(printf, 3, 4))) inline bool fail(ErrorSink* sink, ErrorKind kind,
                                                                       const char* format, ...) {
  va_list args;
  va_start(args, format);
  vsnprintf(sink->text, sizeof sink->text, format, args);
  va_end(args);
  sink->kind = kind;
  return false;
}

#if !defined(DIMORPH_ENTRY)  // no exported function is noexcept, so entries need not compile it
// Where this thread raised its last error by DIMORPH_RAISE.
inline const char*& raised_at() {
  static thread_local const char* place = "";
  return place;
}

// Ends the process for an error that leaves a noexcept function, with the message that would be lost.
[[noreturn]] inline void end_with_message() {
  try {
    throw;
  } catch (const Error& error) {
    const char* place = strrchr(raised_at(), '/');
    fprintf(
        stderr,
        "dimorph: %s\n  raised at %s, below a function marked noexcept, which ends the process: remove noexcept from "
        "the function of the case\n",
        error.text, place ? place + 1 : raised_at());
  } catch (...) {
  }
  abort();
}
#endif

[[noreturn]]
__attribute__((cold, noinline, format(printf, 2, 3))) inline void raise(ErrorKind kind, const char* format, ...) {
  Error error;
  error.kind = kind;
  va_list args;
  va_start(args, format);
  vsnprintf(error.text, sizeof error.text, format, args);
  va_end(args);
#if !defined(DIMORPH_ENTRY)
  // The handler of this shared object, whose C++ library is its own.
  std::set_terminate(end_with_message);
#endif
  throw error;
}

// Ends the call with an error. In an entry it throws. In a case, which may be noexcept, it returns to the caller of the
// case at once, without destructors; in the body of a parallel_for, to the caller of the body. Defined by entry.h and
// case.h.
[[noreturn]] __attribute__((cold, format(printf, 3, 4))) void refuse(const Call* call, ErrorKind kind,
                                                                     const char* format, ...);

// Runs `body` and leaves whatever it throws in `sink`, in a message that begins with `function`.
template <typename Body>
inline void guard(const char* function, ErrorSink* sink, Body&& body) {
  try {
    body();
  } catch (const Error& error) {
    sink->kind = error.kind;
    __builtin_memcpy(sink->text, error.text, sizeof sink->text);
  } catch (const std::bad_alloc&) {
    fail(sink, ErrorKind::memory, "%s: out of memory", function);
  } catch (const std::exception& error) {
    fail(sink, ErrorKind::runtime, "%s: %s", function, error.what());
  } catch (...) {
    fail(sink, ErrorKind::runtime, "%s: threw something that is not a std::exception", function);
  }
}

}  // namespace detail
}  // namespace dimorph

#define DIMORPH_TEXT(...) DIMORPH_TEXT_(__VA_ARGS__)
#define DIMORPH_TEXT_(...) #__VA_ARGS__

#if defined(DIMORPH_ENTRY)
#define DIMORPH_RAISE(kind, ...) ::dimorph::detail::raise(::dimorph::ErrorKind::kind, __VA_ARGS__)
#else
#define DIMORPH_RAISE(kind, ...)                                         \
  (::dimorph::detail::raised_at() = __FILE__ ":" DIMORPH_TEXT(__LINE__), \
   ::dimorph::detail::raise(::dimorph::ErrorKind::kind, __VA_ARGS__))
#endif

// DIMORPH_CHECK(condition, "printf format", ...) raises ValueError unless the condition holds. The message should name
// function, argument, what was expected and what was given.
#define DIMORPH_CHECK(condition, ...)                                         \
  do {                                                                        \
    if (__builtin_expect(!(condition), 0)) DIMORPH_RAISE(value, __VA_ARGS__); \
  } while (0)
// The same with TypeError, for an argument of a wrong type or dtype.
#define DIMORPH_CHECK_TYPE(condition, ...)                                   \
  do {                                                                       \
    if (__builtin_expect(!(condition), 0)) DIMORPH_RAISE(type, __VA_ARGS__); \
  } while (0)
