// What a case does with handles: it makes them, checks those it gets, and keeps arrays in them.
#pragma once
#include "convert.h"
#include "expect.h"
#include "handle.h"

namespace dimorph {
namespace detail {

template <typename T, typename = void>
constexpr bool is_complete = false;
template <typename T>
constexpr bool is_complete<T, decltype(void(sizeof(T)))> = true;

// Only named, never called: any T, where a null pointer would bring a warning.
template <typename T>
T& some() noexcept;

template <typename T>
struct HandleTypeOf {
  static_assert(is_complete<T>, "the type of a handle is not defined in the case: define it above the function");
  static_assert(noexcept(some<T>().~T()),
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
  const HandleText want(expected);
  if (!object)
    refuse(call, ErrorKind::type, "%s: argument %s: expected a handle %s, got None", call->function, name, want.text);
  const HandleText got(object);
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
  const HandleObject* object = handle.object();
  if (__builtin_expect(!object || object->type != &expected, 0)) wrong_handle(object, expected, call);
}
template <typename T>
inline void admit(const Optional<Handle<T>>& handle, Call* call) {
  if (handle) admit(*handle, call);
}

// The object that owns the memory of an argument. Errors are thrown, because others may be under construction.
inline TVMFFIObject* owner_of(const ConstTensor& tensor, DataType expected) {
  if (tensor.dtype() != expected || !reachable(tensor.device())) {
    ValueText want, got, where;
    print_value(expected, want);
    print_value(tensor.dtype(), got);
    print_value(tensor.device(), where);
    raise(ErrorKind::type, "%s: expected dtype %s in memory of the host, got %s on %s", TensorText(tensor).text, want,
          got, where);
  }
  const Call* call = tensor.call();
  const auto* args = call ? static_cast<const TVMFFIAny*>(call->args) : nullptr;
  for (int32_t i = 0; args && i < call->count; ++i)
    if (args[i].type_index == kTVMFFITensor && tensor_of(args[i]) == tensor.dl()) return args[i].v_obj;
  raise(ErrorKind::type, "%s: expected an array of the caller's, to be kept, got one that ends with the call",
        TensorText(tensor).text);
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
  object->describe = [](const detail::HandleObject* self, char* text, size_t room) noexcept {
    detail::describe(*self->type, text, room);
  };
  object->place = 0;
  object->state = 0;
  memory.object = nullptr;
  return NewHandle(object);
}

// An array of a call, for the object of a handle to keep: its memory stays there as long as this object lives. It is no
// copy, so what others write into the array shows. KeptTensor<const float> is made of a ConstTensor, KeptTensor<float>
// of a Tensor.
template <typename T>
class KeptTensor {
  using Element = typename detail::Plain<T>::type;

 public:
  template <typename Given>
  explicit KeptTensor(const Given& tensor)
      : owner_(detail::owner_of(tensor, data_type<Element>())), tensor_(tensor.dl(), nullptr) {
    static_assert(__is_same(T, const Element) || __is_same(Given, Tensor),
                  "a KeptTensor of elements that may be written is made of a ConstTensor: take a Tensor, or keep "
                  "const elements");
    TVMFFIObjectIncRef(owner_);
  }
  KeptTensor(KeptTensor&& other) noexcept : owner_(other.owner_), tensor_(other.tensor_) { other.owner_ = nullptr; }
  KeptTensor& operator=(KeptTensor&&) = delete;
  ~KeptTensor() {
    if (owner_) TVMFFIObjectDecRef(owner_);
  }

  T* data() const { return static_cast<T*>(tensor_.data()); }
  int32_t ndim() const { return tensor_.ndim(); }
  int64_t size(int32_t dim) const { return tensor_.size(dim); }
  int64_t stride(int32_t dim) const { return tensor_.stride(dim); }
  int64_t numel() const { return tensor_.numel(); }
  bool contiguous() const { return tensor_.contiguous(); }
  Device device() const { return tensor_.device(); }

 private:
  TVMFFIObject* owner_;
  Tensor tensor_;
};

}  // namespace dimorph
