// Views of arguments: tensors, strings, optional values. All are trivially copyable, own nothing, and are valid during
// one call.
#pragma once
#include <dlpack/dlpack.h>
#include <string.h>

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

// The DLPack type of a C++ element type, e.g. data_type<float>().
template <typename T>
constexpr DataType data_type();
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
#undef DIMORPH_DATA_TYPE

// A tensor that is only read. Arrays that their owner marks as read-only are accepted.
class ConstTensor {
 public:
  ConstTensor() = default;
  explicit ConstTensor(const DLTensor* tensor) : tensor_(tensor) {}

  template <typename T = void>
  const T* data() const {
    return reinterpret_cast<const T*>(static_cast<const char*>(tensor_->data) + tensor_->byte_offset);
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
  DataType dtype() const { return DataType{tensor_->dtype.code, tensor_->dtype.bits, tensor_->dtype.lanes}; }
  Device device() const { return tensor_->device; }
  const DLTensor* dl() const { return tensor_; }

 protected:
  const DLTensor* tensor_ = nullptr;
};

// A tensor that may be written. Arrays that their owner marks as read-only are refused.
class Tensor : public ConstTensor {
 public:
  using ConstTensor::ConstTensor;
  template <typename T = void>
  T* data() const {
    return reinterpret_cast<T*>(static_cast<char*>(tensor_->data) + tensor_->byte_offset);
  }
};

// The elements of a row-major tensor of one dtype: the argument of a variant's tensor parameter.
template <typename T>
struct Elements {
  const T* data = nullptr;
  ConstTensor tensor;
};

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
