// The interface between an entry, its cases and Python. It consists of plain data and C functions only, because the two
// sides are separate shared objects and may come from different compilers.
#pragma once
#include <stddef.h>
#include <stdint.h>

#define DIMORPH_ABI_VERSION 3
#define DIMORPH_VISIBLE __attribute__((visibility("default")))

namespace dimorph {

// The kind of an error, which decides the Python exception. `raised`: tvm-ffi already holds the exception;
// `interrupted`: Python does, since a signal handler raised it.
enum class ErrorKind : int32_t {
  none,
  value,
  type,
  index,
  memory,
  not_implemented,
  runtime,
  mismatch,
  raised,
  interrupted
};

template <typename T>
class Optional;
template <typename T = void>
class Handle;
class NewHandle;

// The place in a running case to which a check that fails returns (case.h).
struct Exit;

// The running call of an exported function, as messages describe it. Views of its tensors refer to it.
struct Call {
  const char* function;
  const char* names;  // of the parameters, comma separated
  const void* args;   // as tvm-ffi passes them
  int32_t count;
  Exit* exit;  // while a case runs
  // Of the arguments of a variant, in a case that has them: their names, and how many others come first.
  const char* more = nullptr;
  int32_t fixed = 0;
};

// Where a called function leaves its error. Errors travel as data, never as C++ exceptions.
struct ErrorSink {
  ErrorKind kind = ErrorKind::none;
  char text[1020];
  Call* call = nullptr;  // given to a case
};

// Services of the process that a case may ask for (parallel.h).
struct HostServices {
  // All noexcept: otherwise every case that uses them would carry the machinery of exceptions.
  int32_t (*num_threads)() noexcept;
  bool (*parallel_for)(int64_t count, int64_t grain, void (*body)(void* context, int64_t begin, int64_t end),
                       void* context) noexcept;
  void* (*thread_scratch)(size_t bytes) noexcept;
  // Ends the work that the calling thread does, a body of parallel_for, with an error. The first error counts.
  void (*fail)(const ErrorSink* error) noexcept;
  // Moves the error that work on the calling thread has left, if any, into `sink`.
  void (*take_error)(ErrorSink* sink) noexcept;
};

// Device code for one architecture: a cubin, or PTX. `library` is the driver's handle, once a case has loaded the
// image.
struct DeviceImage {
  const char* arch;
  const void* data;
  void* library;
};

// The device code of a case, from which it launches kernels (cuda.h).
struct DeviceCode {
  void* get_proc_address;  // cuGetProcAddress_v2 of the driver; null if there is no driver
  const char* label;       // which case it is, for messages
  const char* problem;     // why an image is missing, for messages
  DeviceImage** images;    // one for each GPU; null if none fits
  int32_t gpu_count;
};

// A function that a case exports. `tag` stands for the type of `invoke`: int32_t(ErrorSink*, R* result, Args...).
struct CaseFunction {
  uint64_t tag;
  const char* signature;
  void* invoke;
};

namespace detail {

constexpr uint64_t kTagSeed = 1469598103934665603ull;

constexpr uint64_t mix(uint64_t tag, uint64_t value) { return (tag ^ value) * 1099511628211ull; }

constexpr bool starts_with(const char* text, const char* prefix) {
  while (*prefix)
    if (*text++ != *prefix++) return false;
  return true;
}

// Hash of a class type: its name, which GCC and Clang spell alike, its size and its alignment.
template <typename T>
constexpr uint64_t type_tag(T*) {
  static_assert(__is_trivially_copyable(T),
                "what is passed to a case must be trivially copyable: pass a view, e.g. ConstTensor or a pointer");
  const char* name = __PRETTY_FUNCTION__;
  while (!starts_with(name, "T = ")) ++name;
  uint64_t tag = mix(mix(kTagSeed, sizeof(T)), alignof(T));
  int depth = 0;
  for (name += 4; *name && (depth > 0 || (*name != ']' && *name != ';')); ++name) {
    depth += (*name == '<') - (*name == '>');
    if (*name != ' ') tag = mix(tag, static_cast<unsigned char>(*name));
  }
  return tag;
}
// Arithmetic types are hashed by kind and size, because compilers spell their names differently.
template <typename T>
constexpr uint64_t type_tag(T**) {
  return mix(type_tag(static_cast<T*>(nullptr)), '*');
}
constexpr uint64_t type_tag(void*) { return mix(kTagSeed, 'v'); }
constexpr uint64_t type_tag(bool*) { return mix(kTagSeed, 'b'); }
// A case knows the type of a handle's object, an entry does not.
template <typename T>
constexpr uint64_t type_tag(Handle<T>*) {
  return mix(kTagSeed, 'h');
}
template <typename T>
constexpr uint64_t type_tag(Optional<Handle<T>>*) {
  return mix(kTagSeed, 'o');
}
constexpr uint64_t type_tag(NewHandle*) { return mix(kTagSeed, 'n'); }
#define DIMORPH_ARITHMETIC_TAG(type, kind) \
  constexpr uint64_t type_tag(type*) { return mix(mix(kTagSeed, kind), sizeof(type)); }
DIMORPH_ARITHMETIC_TAG(char, 'c')
DIMORPH_ARITHMETIC_TAG(signed char, 'i')
DIMORPH_ARITHMETIC_TAG(short, 'i')
DIMORPH_ARITHMETIC_TAG(int, 'i')
DIMORPH_ARITHMETIC_TAG(long, 'i')
DIMORPH_ARITHMETIC_TAG(long long, 'i')
DIMORPH_ARITHMETIC_TAG(unsigned char, 'u')
DIMORPH_ARITHMETIC_TAG(unsigned short, 'u')
DIMORPH_ARITHMETIC_TAG(unsigned int, 'u')
DIMORPH_ARITHMETIC_TAG(unsigned long, 'u')
DIMORPH_ARITHMETIC_TAG(unsigned long long, 'u')
DIMORPH_ARITHMETIC_TAG(float, 'f')
DIMORPH_ARITHMETIC_TAG(double, 'f')
#undef DIMORPH_ARITHMETIC_TAG

template <typename T>
struct RemoveConst {
  using type = T;
};
template <typename T>
struct RemoveConst<const T> {
  using type = T;
};
template <typename T>
struct Value {
  using type = typename RemoveConst<T>::type;
};
template <typename T>
struct Value<T&> : Value<T> {};
template <typename T>
struct Value<T&&> : Value<T> {};

template <typename T>
struct RemoveReference {
  using type = T;
};
template <typename T>
struct RemoveReference<T&> : RemoveReference<T> {};
template <typename T>
struct RemoveReference<T&&> : RemoveReference<T> {};

// The type in which an argument is passed by value.
template <typename T>
using value_t = typename Value<T>::type;

}  // namespace detail

// The tag of a case function's type, compared when the function is bound to an entry.
template <typename R, typename... Args>
constexpr uint64_t signature_tag() {
  uint64_t tag = detail::mix(detail::kTagSeed, DIMORPH_ABI_VERSION);
  tag = detail::mix(tag, detail::type_tag(static_cast<R*>(nullptr)));
  ((tag = detail::mix(tag, detail::type_tag(static_cast<Args*>(nullptr)))), ...);
  return tag;
}

// The type in the compiler's words, for messages.
template <typename R, typename... Args>
constexpr const char* signature_text() {
  return __PRETTY_FUNCTION__;
}

}  // namespace dimorph
