// What a case does with handles: it makes them, checks those it gets, and keeps arrays in them.
#pragma once
#include "convert.h"
#include "handle.h"

namespace dimorph {
namespace detail {

template <typename T, typename = void>
constexpr bool is_complete = false;
template <typename T>
constexpr bool is_complete<T, decltype(void(sizeof(T)))> = true;

template <typename T>
struct HandleTypeOf {
  static_assert(is_complete<T>, "the type of a handle is not defined in the case: define it above the function");
  static_assert(noexcept(static_cast<T*>(nullptr)->~T()),
                "the object of a handle has a destructor that may throw: make it noexcept, because Python frees it "
                "where nothing catches");
  static constexpr TypeName<T> name{};
  static constexpr HandleType type{name.text, case_text, [](void* value) noexcept { static_cast<T*>(value)->~T(); }};
};

template <typename T>
struct HandleObjectOf : HandleObject {
  alignas(T) unsigned char room[sizeof(T)];
};

// tvm-ffi calls it when no strong reference is left, and when no reference is left at all.
template <typename T>
inline void drop(void* self, int flags) {
  auto* object = static_cast<HandleObjectOf<T>*>(static_cast<HandleObject*>(self));
  if (flags & kTVMFFIObjectDeleterFlagBitMaskStrong) close(object);
  if (flags & kTVMFFIObjectDeleterFlagBitMaskWeak) delete object;
}

__attribute__((cold, noinline)) inline void wrong_handle(const HandleObject* object, const HandleType& expected,
                                                         Call* call) {
  char name[64];
  argument_name(object, call, name);
  const HandleText want(expected), got(*object->type);
  refuse(call, ErrorKind::type, "%s: argument %s: expected a handle %s, got %s%s", call->function, name, want.text,
         got.text, strcmp(want.text, got.text) ? "" : ", made by another build");
}

// Refuses arguments that are handles of other objects than the parameter's.
template <typename T>
inline void admit(const T&, Call*) {}
template <typename T>
inline void admit(const Handle<T>& handle, Call* call) {
  static_assert(!__is_same(T, void), "a case takes a handle of no type: name the type, Handle<Tree>");
  const HandleType& expected = HandleTypeOf<value_t<T>>::type;
  if (__builtin_expect(handle.object()->type != &expected, 0)) wrong_handle(handle.object(), expected, call);
}
template <typename T>
inline void admit(const Optional<Handle<T>>& handle, Call* call) {
  if (handle) admit(*handle, call);
}

}  // namespace detail

// A new T, made of `args`, for Python: to be returned from the case.
template <typename T, typename... Args>
NewHandle make_handle(Args&&... args) {
  struct Memory {
    detail::HandleObjectOf<T>* object;
    ~Memory() { delete object; }
  } memory{new detail::HandleObjectOf<T>};
  detail::HandleObjectOf<T>* object = memory.object;
  if constexpr (__is_constructible(T, Args...))
    object->value = new (object->room) T(static_cast<Args&&>(args)...);
  else
    object->value = new (object->room) T{static_cast<Args&&>(args)...};
  object->header = TVMFFIObject{};
  object->header.combined_ref_count = (uint64_t{1} << 32) | 1;  // a strong reference, which holds a weak one
  object->header.deleter = detail::drop<T>;
  object->type = &detail::HandleTypeOf<T>::type;
  object->close = detail::close;
  object->place = 0;
  object->state = 0;
  memory.object = nullptr;
  return NewHandle(object);
}

}  // namespace dimorph
