// Tensors that an entry creates and returns.
#pragma once
#include <stdlib.h>
#include <initializer_list>

#include "call.h"
#include "convert.h"

namespace dimorph {

// A new row-major tensor in host memory, not initialised, aligned to 64 bytes. Returned to Python it becomes a
// tvm_ffi.Tensor, which owns the memory, and for most callers an array of their library over it. Until then it can be
// passed on as a Tensor.
class NewTensor : public Tensor {
 public:
  NewTensor(std::initializer_list<int64_t> shape, DataType dtype) {
    const int32_t ndim = static_cast<int32_t>(shape.size());
    constexpr int64_t kMost = int64_t{1} << 56;  // elements; more than any machine has memory for
    int64_t count = 1;
    for (int64_t size : shape) {
      if (size < 0 || __builtin_mul_overflow(count, size, &count) || count > kMost)
        detail::raise(ErrorKind::value,
                      "a new tensor: expected sizes from 0 to what memory holds, got %lld in one of "
                      "%d dimensions",
                      static_cast<long long>(size), ndim);
    }
    const size_t bytes = (static_cast<size_t>(count) * dtype.bits * dtype.lanes + 7) / 8;
    // One allocation: the elements, then the description, then the shape.
    const size_t room = (bytes + 63) / 64 * 64;
    auto* block = static_cast<char*>(aligned_alloc(64, (room + sizeof(DLManagedTensor) + 8 * ndim + 63) / 64 * 64));
    if (!block) detail::raise(ErrorKind::memory, "no memory for a tensor of %zu bytes", bytes);
    managed_ = reinterpret_cast<DLManagedTensor*>(block + room);
    auto* sizes = reinterpret_cast<int64_t*>(managed_ + 1);
    int32_t dim = 0;
    for (int64_t size : shape) sizes[dim++] = size;
    *managed_ = DLManagedTensor{};
    managed_->dl_tensor.data = block;
    managed_->dl_tensor.device = DLDevice{kDLCPU, 0};
    managed_->dl_tensor.ndim = ndim;
    managed_->dl_tensor.dtype = DLDataType{dtype.code, dtype.bits, dtype.lanes};
    managed_->dl_tensor.shape = sizes;
    managed_->deleter = [](DLManagedTensor* self) { free(self->dl_tensor.data); };
    static_cast<Tensor&>(*this) = Tensor(&managed_->dl_tensor, detail::call_state().call);
  }
  NewTensor(NewTensor&& other) : Tensor(other), managed_(other.managed_) { other.managed_ = nullptr; }
  NewTensor& operator=(NewTensor&&) = delete;
  ~NewTensor() {
    if (managed_) managed_->deleter(managed_);
  }

  // Gives up ownership of the memory.
  DLManagedTensor* release() {
    DLManagedTensor* managed = managed_;
    managed_ = nullptr;
    return managed;
  }

 private:
  DLManagedTensor* managed_;
};

namespace detail {

inline void to_any(NewTensor&& tensor, TVMFFIAny* out) {
  DLManagedTensor* managed = tensor.release();
  TVMFFIObjectHandle handle = nullptr;
  *out = TVMFFIAny{};
  if (TVMFFITensorFromDLPack(managed, 0, 0, &handle) != 0) {
    managed->deleter(managed);
    raise(ErrorKind::raised, "set on the side of tvm-ffi");
  }
  out->type_index = kTVMFFITensor;
  out->v_obj = static_cast<TVMFFIObject*>(handle);
}

}  // namespace detail
}  // namespace dimorph
