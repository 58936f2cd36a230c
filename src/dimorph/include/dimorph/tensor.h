// Views of arguments: tensors, strings, optional values. All are trivially copyable, own nothing, and are valid during
// one call.
#pragma once
#include <dlpack/dlpack.h>
#include <string.h>
#include <initializer_list>

#include "abi.h"
#include "dtype.h"

namespace dimorph {

using Device = DLDevice;

// DLPack's description of an element type, with comparison.
struct DataType {
  uint8_t code;
  uint8_t bits;
  uint16_t lanes;
};
constexpr bool operator==(DataType a, DataType b) { return a.code == b.code && a.bits == b.bits && a.lanes == b.lanes; }
constexpr bool operator!=(DataType a, DataType b) { return !(a == b); }
namespace detail {
// A dtype as a number that a switch accepts: its bytes, lowest first.
constexpr uint32_t dtype_key(DataType type) {
  return type.code | uint32_t{type.bits} << 8 | uint32_t{type.lanes} << 16;
}
// The same for one that is known at run time; without optimisation, as entries are compiled, this takes one
// instruction.
inline uint32_t dtype_bits(DataType type) {
  static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "dtype_key must agree");
  uint32_t bits;
  memcpy(&bits, &type, sizeof bits);
  return bits;
}
}  // namespace detail

// The DLPack type of a C++ element type, e.g. data_type<float>().
template <typename T>
constexpr DataType data_type() {
  static_assert(sizeof(T) == 0, "not an element type of tensors; data() without a type gives a pointer to cast");
  return {};
}
#define DIMORPH_DATA_TYPE(type, code)           \
  template <>                                   \
  constexpr DataType data_type<type>() {        \
    return DataType{code, 8 * sizeof(type), 1}; \
  }
DIMORPH_DATA_TYPE(float, kDLFloat)
DIMORPH_DATA_TYPE(double, kDLFloat)
DIMORPH_DATA_TYPE(half, kDLFloat)
DIMORPH_DATA_TYPE(bfloat16, kDLBfloat)
DIMORPH_DATA_TYPE(bool, kDLBool)
DIMORPH_DATA_TYPE(int8_t, kDLInt)
DIMORPH_DATA_TYPE(int16_t, kDLInt)
DIMORPH_DATA_TYPE(int32_t, kDLInt)
DIMORPH_DATA_TYPE(int64_t, kDLInt)
DIMORPH_DATA_TYPE(uint8_t, kDLUInt)
DIMORPH_DATA_TYPE(uint16_t, kDLUInt)
DIMORPH_DATA_TYPE(uint32_t, kDLUInt)
DIMORPH_DATA_TYPE(uint64_t, kDLUInt)
DIMORPH_DATA_TYPE(long long, kDLInt)
DIMORPH_DATA_TYPE(unsigned long long, kDLUInt)
#undef DIMORPH_DATA_TYPE

// A size that several arrays of a call share. The first `expect` that names it sets it.
class Size {
 public:
  explicit Size(const char* name) : name_(name) {}
  operator int64_t() const { return value_; }

 private:
  friend struct Dim;
  const char* name_;
  int64_t value_ = -1;
};

// A dimension that `expect` asks for: a shared size, or a number.
struct Dim {
  Dim(Size& size) : size(&size) {}
  Dim(int64_t number) : number(number) {}

  const char* name() const { return size ? size->name_ : nullptr; }
  int64_t expected() const { return size ? size->value_ : number; }
  bool admits(int64_t given) const {
    if (size && size->value_ < 0) size->value_ = given;
    return given == expected();
  }

  Size* size = nullptr;
  int64_t number;
};

class ConstTensor;
template <typename T, int N>
class View;

namespace detail {

template <typename T>
struct Plain {
  using type = T;
};
template <typename T>
struct Plain<const T> {
  using type = T;
};

// Whether this code can follow a pointer into the memory of a device. Kernels with device code pass pointers on.
inline bool reachable([[maybe_unused]] Device device) {
#if defined(DIMORPH_HAS_DEVICE)  // defined by the build
  return true;
#else
  return device.device_type == kDLCPU || device.device_type == kDLCUDAHost || device.device_type == kDLROCMHost ||
         device.device_type == kDLCUDAManaged;
#endif
}

// Each explains a check that has failed, and ends the call (expect.h). By value, because a tensor whose address is
// passed on would stay in memory, where the stores of a loop might change it.
[[noreturn]] void wrong_elements(ConstTensor tensor, DataType expected);
[[noreturn]] void wrong_shape(ConstTensor tensor, const Dim* dims, int32_t count);
[[noreturn]] void wrong_layout(ConstTensor tensor);
[[noreturn]] void wrong_device(ConstTensor tensor, Device expected);
[[noreturn]] void wrong_alignment(ConstTensor tensor, int bytes);
[[noreturn]] void wrong_index(ConstTensor tensor, int32_t dim, int64_t index);

}  // namespace detail

// A tensor that is only read. Arrays that their owner marks as read-only are accepted.
class ConstTensor {
 public:
  ConstTensor() = default;
  ConstTensor(const DLTensor* tensor, Call* call)
      : tensor_(tensor),
        data_(static_cast<char*>(tensor->data) + tensor->byte_offset),
        call_(call),
        checked_(detail::reachable(tensor->device) ? detail::dtype_bits(dtype()) : 0) {}

  // The elements, once their type is found to be T; in a kernel without device code also that they are in host memory.
  // data() without a type checks nothing.
  template <typename T = void>
  const T* data() const {
    if constexpr (!__is_same(typename detail::Plain<T>::type, void)) {
      constexpr DataType expected = data_type<typename detail::Plain<T>::type>();
      if (__builtin_expect(checked_ != detail::dtype_key(expected), 0)) detail::wrong_elements(*this, expected);
    }
    return static_cast<const T*>(data_);
  }
  // The elements of a row-major tensor of N dimensions and type T, by index: view(i, j). Debug builds check indices.
  template <typename T, int N>
  View<const T, N> view() const;

  // Refuse the call unless the tensor has this shape and, where one is named, this dtype, and is row-major. In a kernel
  // without device code it must be in host memory.
  void expect(std::initializer_list<Dim> shape) const { expect(shape, dtype()); }
  void expect(std::initializer_list<Dim> shape, DataType dtype) const { check<true>(shape, dtype); }
  template <typename T>
  void expect(std::initializer_list<Dim> shape) const {
    expect(shape, data_type<T>());
  }
  // The same with any strides.
  void expect_strided(std::initializer_list<Dim> shape) const { expect_strided(shape, dtype()); }
  void expect_strided(std::initializer_list<Dim> shape, DataType dtype) const { check<false>(shape, dtype); }
  // Refuses the call unless the tensor is on this device.
  void expect_on(Device device) const {
    const Device given = tensor_->device;
    if (__builtin_expect(given.device_type != device.device_type || given.device_id != device.device_id, 0))
      detail::wrong_device(*this, device);
  }
  // Refuses the call unless the address of the first element is a multiple of `bytes`, a power of two. Arrays are only
  // known to be aligned to their elements.
  void expect_aligned(int bytes) const {
    if (__builtin_expect((reinterpret_cast<uintptr_t>(data_) & static_cast<uintptr_t>(bytes - 1)) != 0, 0))
      detail::wrong_alignment(*this, bytes);
  }

  int32_t ndim() const { return tensor_->ndim; }
  // A negative `dim` counts from the end, as in Python.
  int64_t size(int32_t dim) const { return tensor_->shape[dim < 0 ? dim + ndim() : dim]; }
  // In elements. A missing stride array means row-major.
  int64_t stride(int32_t dim) const {
    if (dim < 0) dim += ndim();
    if (tensor_->strides) return tensor_->strides[dim];
    int64_t stride = 1;
    for (int32_t i = ndim() - 1; i > dim; --i) stride *= tensor_->shape[i];
    return stride;
  }
  // The largest int64_t where the product of the sizes is larger, as views with strides of 0 may have it.
  int64_t numel() const {
    int64_t count = 1;
    bool fits = true;
    for (int32_t i = 0; i < ndim(); ++i) {
      if (tensor_->shape[i] == 0) return 0;
      fits = fits && !__builtin_mul_overflow(count, tensor_->shape[i], &count);
    }
    return fits ? count : INT64_MAX;
  }
  bool contiguous() const {
    if (!tensor_->strides) return true;
    int64_t expected = 1;
    bool dense = true;
    for (int32_t i = ndim() - 1; i >= 0; --i) {
      if (tensor_->shape[i] == 0) return true;
      if (tensor_->shape[i] != 1 && tensor_->strides[i] != expected) dense = false;
      if (__builtin_mul_overflow(expected, tensor_->shape[i], &expected)) dense = false;
    }
    return dense;
  }
  // Whether elements lie where no memory can be: their owner has freed it, and what is left is a null pointer plus an
  // offset. On Linux, programs and what they allocate lie above the first 4 MiB.
  bool without_memory() const { return reinterpret_cast<uintptr_t>(data()) < 0x400000 && numel() != 0; }
  DataType dtype() const {
    // Field by field: a processor waits when it reads as a whole what was just written in parts.
    const DLDataType& from = tensor_->dtype;
    const uint32_t bits = from.code | uint32_t{from.bits} << 8 | uint32_t{from.lanes} << 16;
    DataType type;
    memcpy(&type, &bits, sizeof type);
    return type;
  }
  Device device() const { return tensor_->device; }
  const DLTensor* dl() const { return tensor_; }
  const Call* call() const { return call_; }

 protected:
  const DLTensor* tensor_ = nullptr;
  // Copies, because a compiler must suppose that what the kernel writes changes the DLTensor: then the checks of `data`
  // would not move out of loops, and these would not be vectorised.
  void* data_ = nullptr;
  Call* call_ = nullptr;
  uint32_t checked_ = 0;  // the dtype as a number; 0 of a tensor that is not reachable

 private:
  template <bool row_major>
  void check(std::initializer_list<Dim> shape, DataType dtype) const {
    if (__builtin_expect(checked_ != detail::dtype_bits(dtype), 0)) detail::wrong_elements(*this, dtype);
    const auto count = static_cast<int32_t>(shape.size());
    const int64_t* strides = row_major ? tensor_->strides : nullptr;
    bool fits = ndim() == count, dense = true;
    int64_t expected = 1;
    for (int32_t i = fits ? count - 1 : -1; i >= 0; --i) {
      const int64_t given = tensor_->shape[i];
      fits &= shape.begin()[i].admits(given);
      if (!strides) continue;
      if (strides[i] != expected && given != 1) dense = false;
      if (__builtin_mul_overflow(expected, given, &expected)) dense = false;
    }
    if (__builtin_expect(!fits, 0)) detail::wrong_shape(*this, shape.begin(), count);
    // Where there are no elements, or more than can be counted, the loop may be wrong.
    if (__builtin_expect(!dense && !contiguous(), 0)) detail::wrong_layout(*this);
  }
};

// A tensor that may be written. Arrays that their owner marks as read-only are refused.
class Tensor : public ConstTensor {
 public:
  using ConstTensor::ConstTensor;
  template <typename T = void>
  T* data() const {
    return const_cast<T*>(ConstTensor::data<T>());
  }
  template <typename T, int N>
  View<T, N> view() const;
};

// The elements of a row-major tensor by index. Builds under DIMORPH_DEBUG=1 check each index.
template <typename T, int N>
class View {
 public:
  View(const ConstTensor& tensor, T* data) : data_(data), tensor_(tensor) {
    if (__builtin_expect(tensor.ndim() != N, 0)) detail::wrong_shape(tensor, nullptr, N);
    if (__builtin_expect(!tensor.contiguous(), 0)) detail::wrong_layout(tensor);
    for (int32_t i = 0; i < N; ++i) sizes_[i] = tensor.size(i);
  }
  template <typename... Index>
  T& operator()(Index... index) const {
    static_assert(sizeof...(Index) == N,
                  "a view takes as many indices as it has dimensions: give one for each, view(i, j) of two");
    const int64_t indices[] = {static_cast<int64_t>(index)..., 0};
    int64_t at = 0;
    for (int32_t i = 0; i < N; ++i) {
#if defined(DIMORPH_DEBUG)
      if (indices[i] < 0 || indices[i] >= sizes_[i]) detail::wrong_index(tensor_, i, indices[i]);
#endif
      at = at * sizes_[i] + indices[i];
    }
    return data_[at];
  }
  int64_t size(int32_t dim) const { return sizes_[dim < 0 ? dim + N : dim]; }
  T* data() const { return data_; }

 private:
  T* data_;
  int64_t sizes_[N > 0 ? N : 1];
  ConstTensor tensor_;
};

template <typename T, int N>
View<const T, N> ConstTensor::view() const {
  return View<const T, N>(*this, data<T>());
}
template <typename T, int N>
View<T, N> Tensor::view() const {
  return View<T, N>(*this, data<T>());
}

// The elements of a row-major tensor of one dtype: the argument of a variant's tensor parameter.
template <typename T>
struct Elements {
  const T* data = nullptr;
  ConstTensor tensor;
};

// The same of a tensor whose sizes are known when the case is compiled. Shape: a type of the config header.
template <typename T, typename Shape>
struct Sized : Elements<T> {};

// A string argument. It does not end with a zero.
struct Str {
  const char* data = "";
  size_t size = 0;

  Str() = default;
  Str(const char* text) : data(text), size(strlen(text)) {}
  Str(const char* text, size_t length) : data(text), size(length) {}
};
inline bool operator==(const Str& a, const Str& b) { return a.size == b.size && memcmp(a.data, b.data, a.size) == 0; }
inline bool operator!=(const Str& a, const Str& b) { return !(a == b); }

// An argument or result that may be None.
template <typename T>
class Optional {
 public:
  Optional() = default;
  Optional(const T& value) : value_(value), has_(true) {}
  explicit operator bool() const { return has_; }
  const T& operator*() const { return value_; }
  const T* operator->() const { return &value_; }

 private:
  T value_{};
  bool has_ = false;
};

}  // namespace dimorph
