// Handles: C++ objects that one call makes and later calls use. Python owns them.
#pragma once
#include <tvm/ffi/c_api.h>

#include "check.h"
#include "tensor.h"

namespace dimorph {
namespace detail {

// A case, in words. The build defines the function at the end of each case.
struct CaseText {
  const char* kernel;
  const char* values;  // "dtype=float32, dim=3"
};
const CaseText& case_text();

// A type of which a case makes handles. Its address is its identity: equal types of two cases differ.
struct HandleType {
  const char* name;
  const CaseText& (*made_by)();
  void (*destroy)(void* value) noexcept;
};

// The object of tvm-ffi that owns the C++ object `value`. runtime/handle.py knows where the first fields are.
struct HandleObject {
  TVMFFIObject header;
  void (*close)(HandleObject*) noexcept;
  void (*describe)(const HandleObject*, char* text, size_t room) noexcept;
  // The number of calls that use the handle, and kClosed once it was closed. Atomic. Who brings it to kClosed alone
  // destroys the value.
  uint32_t state;
  const HandleType* type;
  void* value;
  // Where an entry found the case last: the address in `places` of entry.h that stands for its slot. Atomic.
  uintptr_t place;
};
static_assert(offsetof(HandleObject, close) == 24 && offsetof(HandleObject, describe) == 32 &&
                  offsetof(HandleObject, state) == 40,
              "runtime/handle.py must agree");
constexpr uint32_t kClosed = uint32_t{1} << 31;

// False if the handle was closed.
inline bool enter(HandleObject* object) {
  uint32_t state = __atomic_load_n(&object->state, __ATOMIC_RELAXED);
  do {
    if (state & kClosed) return false;
  } while (!__atomic_compare_exchange_n(&object->state, &state, state + 1, true, __ATOMIC_ACQUIRE, __ATOMIC_RELAXED));
  return true;
}
inline void leave(HandleObject* object) {
  if (__atomic_sub_fetch(&object->state, 1, __ATOMIC_ACQ_REL) == kClosed) object->type->destroy(object->value);
}
inline void close(HandleObject* object) noexcept {
  if (__atomic_fetch_or(&object->state, kClosed, __ATOMIC_ACQ_REL) == 0) object->type->destroy(object->value);
}

// What a message calls a handle: "knn(dim=3): Tree".
inline void describe(const HandleType& type, char* text, size_t room) {
  const CaseText& made_by = type.made_by();
  snprintf(text, room, "%s(%s): %s", made_by.kernel, made_by.values, type.name);
}
struct HandleText {
  char text[224];
  explicit HandleText(const HandleType& type) { describe(type, text, sizeof text); }
  explicit HandleText(const HandleObject* object) : HandleText(*object->type) {}
};

// The name of T without namespaces around it.
template <typename T>
struct TypeName {
  char text[64] = {};

  constexpr TypeName() {
    const char* from = __PRETTY_FUNCTION__;
    while (!starts_with(from, "T = ")) ++from;
    from += 4;
    const char* end = from;
    for (int depth = 0; *end && (depth > 0 || (*end != ']' && *end != ';')); ++end) {
      depth += (*end == '<') - (*end == '>');
      if (depth == 0 && end[0] == ':' && end[1] == ':') from = end + 2;
    }
    for (int i = 0; i < 63 && from + i < end; ++i) text[i] = from[i];
  }
};

}  // namespace detail

// A parameter that is a handle: a view of an object that Python owns, valid during one call. In a case, T is the type
// of the object. Entries do not know that type, and take a Handle<>.
template <typename T>
class Handle {
 public:
  Handle() = default;
  explicit Handle(detail::HandleObject* object) : object_(object) {}
  T& operator*() const { return *static_cast<T*>(object_->value); }
  T* operator->() const { return static_cast<T*>(object_->value); }
  detail::HandleObject* object() const { return object_; }

 private:
  detail::HandleObject* object_ = nullptr;
};
template <>
class Handle<void> {
 public:
  Handle() = default;
  explicit Handle(detail::HandleObject* object) : object_(object) {}
  detail::HandleObject* object() const { return object_; }

 private:
  detail::HandleObject* object_ = nullptr;
};

// A result that is a handle: `make_handle` makes it in a case, and Python gets it from the entry.
class NewHandle {
 public:
  NewHandle() = default;
  explicit NewHandle(detail::HandleObject* object) : object_(object) {}
  NewHandle(NewHandle&& other) noexcept : object_(other.release()) {}
  NewHandle& operator=(NewHandle&& other) noexcept {
    detail::HandleObject* before = object_;
    object_ = other.release();
    other.object_ = before;
    return *this;
  }
  ~NewHandle() {
    if (object_) object_->header.deleter(object_, kTVMFFIObjectDeleterFlagBitMaskBoth);
  }

  // Gives up ownership.
  detail::HandleObject* release() {
    detail::HandleObject* object = object_;
    object_ = nullptr;
    return object;
  }

 private:
  detail::HandleObject* object_ = nullptr;
};

}  // namespace dimorph
