// Tensors and errors in programs that call a package of kernels; needs nothing but DLPack's header.
#ifndef DIMORPH_VIEWS_H
#define DIMORPH_VIEWS_H

#include <dlpack/dlpack.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <initializer_list>
#include <memory>
#include <stdexcept>
#include <string>
#include <type_traits>
#include <utility>

#include "status.h"

namespace dimorph {

// The DLPack type of an element type. Types without a C++ type have a name: float16, bfloat16.
template <typename T>
constexpr DLDataType dtype_of() {
  static_assert(sizeof(T) == 0, "not an element type; give untyped memory with `of` and a DLDataType");
  return {};
}
#define DIMORPH_DTYPE_OF(type, code)              \
  template <>                                     \
  constexpr DLDataType dtype_of<type>() {         \
    return DLDataType{code, 8 * sizeof(type), 1}; \
  }
DIMORPH_DTYPE_OF(float, kDLFloat)
DIMORPH_DTYPE_OF(double, kDLFloat)
DIMORPH_DTYPE_OF(bool, kDLBool)
DIMORPH_DTYPE_OF(int8_t, kDLInt)
DIMORPH_DTYPE_OF(int16_t, kDLInt)
DIMORPH_DTYPE_OF(int32_t, kDLInt)
DIMORPH_DTYPE_OF(int64_t, kDLInt)
DIMORPH_DTYPE_OF(uint8_t, kDLUInt)
DIMORPH_DTYPE_OF(uint16_t, kDLUInt)
DIMORPH_DTYPE_OF(uint32_t, kDLUInt)
DIMORPH_DTYPE_OF(uint64_t, kDLUInt)
#undef DIMORPH_DTYPE_OF
constexpr DLDataType float16{kDLFloat, 16, 1};
constexpr DLDataType bfloat16{kDLBfloat, 16, 1};
constexpr DLDevice cpu{kDLCPU, 0};
constexpr DLDevice cuda(int32_t ordinal = 0) { return DLDevice{kDLCUDA, ordinal}; }

// A tensor that is only read, in memory that belongs to the caller. Sizes and strides are copied.
class ConstTensorView {
 public:
  static constexpr int32_t kMostDims = 8;

  // Row-major.
  template <typename T>
  ConstTensorView(const T* data, std::initializer_list<int64_t> shape, DLDevice device = cpu)
      : ConstTensorView(data, dtype_of<T>(), shape.begin(), nullptr, shape.size(), device) {}
  // A description that the caller keeps, with any number of dimensions.
  ConstTensorView(const DLTensor& tensor) : tensor_(tensor) {}
  ConstTensorView(const ConstTensorView& other) { *this = other; }
  ConstTensorView& operator=(const ConstTensorView& other) {
    tensor_ = other.tensor_;
    if (other.tensor_.shape == other.sizes_) copy(other.sizes_, other.strides_);
    return *this;
  }

  // Memory without a C++ type. `strides`, in elements; none: row-major.
  static ConstTensorView of(const void* data, DLDataType dtype, std::initializer_list<int64_t> shape,
                            std::initializer_list<int64_t> strides = {}, DLDevice device = cpu) {
    check_strides(shape, strides);
    return {data, dtype, shape.begin(), strides.size() ? strides.begin() : nullptr, shape.size(), device};
  }

  const DLTensor* dl() const { return &tensor_; }

 protected:
  ConstTensorView(const void* data, DLDataType dtype, const int64_t* shape, const int64_t* strides, size_t ndim,
                  DLDevice device) {
    if (ndim > kMostDims) throw std::length_error("a tensor view has at most 8 dimensions; give a DLTensor instead");
    for (size_t i = 0; i < ndim; ++i)
      if (shape[i] < 0) throw std::length_error("a tensor view has sizes of 0 and more");
    tensor_ = DLTensor{const_cast<void*>(data), device, static_cast<int32_t>(ndim), dtype, sizes_, nullptr, 0};
    if (strides) tensor_.strides = strides_;
    copy(shape, strides);
  }
  static void check_strides(std::initializer_list<int64_t> shape, std::initializer_list<int64_t> strides) {
    if (strides.size() && strides.size() != shape.size())
      throw std::length_error("a tensor view needs a stride for each dimension");
  }

  DLTensor tensor_;

 private:
  void copy(const int64_t* sizes, const int64_t* strides) {
    tensor_.shape = sizes_;
    for (int32_t i = 0; i < tensor_.ndim; ++i) sizes_[i] = sizes[i];
    if (!tensor_.strides) return;
    tensor_.strides = strides_;
    for (int32_t i = 0; i < tensor_.ndim; ++i) strides_[i] = strides[i];
  }

  int64_t sizes_[kMostDims];
  int64_t strides_[kMostDims];
};

// A tensor that may be written.
class TensorView : public ConstTensorView {
 public:
  template <typename T>
  TensorView(T* data, std::initializer_list<int64_t> shape, DLDevice device = cpu)
      : ConstTensorView(data, shape, device) {
    static_assert(!std::is_const<T>::value, "the memory of a TensorView may be written; use a ConstTensorView");
  }
  TensorView(DLTensor& tensor) : ConstTensorView(tensor) {}

  static TensorView of(void* data, DLDataType dtype, std::initializer_list<int64_t> shape,
                       std::initializer_list<int64_t> strides = {}, DLDevice device = cpu) {
    return TensorView(ConstTensorView::of(data, dtype, shape, strides, device));
  }

  DLTensor* dl() const { return const_cast<DLTensor*>(&tensor_); }

 private:
  explicit TensorView(const ConstTensorView& other) : ConstTensorView(other) {}
};

// A tensor that a kernel has made, with its memory.
class OwnedTensor {
 public:
  OwnedTensor() = default;
  explicit OwnedTensor(DLManagedTensor* managed) : managed_(managed) {}
  OwnedTensor(OwnedTensor&& other) noexcept : managed_(other.release()) {}
  OwnedTensor& operator=(OwnedTensor&& other) noexcept {
    std::swap(managed_, other.managed_);
    return *this;
  }
  ~OwnedTensor() {
    if (managed_ && managed_->deleter) managed_->deleter(managed_);
  }

  explicit operator bool() const { return managed_ != nullptr; }
  const DLTensor& dl() const { return managed_->dl_tensor; }
  int32_t ndim() const { return dl().ndim; }
  int64_t size(int32_t dim) const { return dl().shape[dim]; }
  // The elements, whose type must be T.
  template <typename T>
  T* data() const {
    const DLDataType want = dtype_of<T>(), is = dl().dtype;
    if (want.code != is.code || want.bits != is.bits || want.lanes != is.lanes)
      throw std::invalid_argument("a tensor's elements are asked for as another type than they have");
    return reinterpret_cast<T*>(static_cast<char*>(dl().data) + dl().byte_offset);
  }
  // Gives up the tensor, for a library that takes it over through DLPack.
  DLManagedTensor* release() { return std::exchange(managed_, nullptr); }

 private:
  DLManagedTensor* managed_ = nullptr;
};

// A text that a C function has allocated; empty for null.
inline std::string taken(char* text) {
  const std::unique_ptr<char, void (*)(void*)> owner(text, free);
  return text ? std::string(text) : std::string();
}

// The error of a call that throws. `code`: one of dimorph_status.
class Error : public std::runtime_error {
 public:
  Error(int code, const char* text) : std::runtime_error(text), code_(code) {}
  int code() const { return code_; }

 private:
  int code_;
};

// The outcome of a call that does not throw.
struct Status {
  int code = DIMORPH_OK;  // one of dimorph_status
  std::string text;
  bool ok() const { return code == DIMORPH_OK; }
};

}  // namespace dimorph

#endif
