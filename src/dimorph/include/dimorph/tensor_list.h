// Lists of tensors as arguments: in Python a list or tuple of arrays, none of which is copied.
#pragma once
#include <tvm/ffi/c_api.h>

#include "convert.h"
#include "tensor.h"

namespace dimorph {
namespace detail {

// A view of a list. T: Tensor, or ConstTensor for tensors that are only read.
template <typename T>
class ListOf {
 public:
  ListOf() = default;
  ListOf(const TVMFFIAny* items, int64_t size, Call* call) : items_(items), size_(size), call_(call) {}

  int64_t size() const { return size_; }
  T operator[](int64_t index) const { return T(tensor_of(items_[index]), call_); }

  struct Iterator {
    const ListOf* list;
    int64_t at;
    T operator*() const { return (*list)[at]; }
    Iterator& operator++() {
      ++at;
      return *this;
    }
    bool operator!=(const Iterator& other) const { return at != other.at; }
  };
  Iterator begin() const { return {this, 0}; }
  Iterator end() const { return {this, size_}; }

 private:
  const TVMFFIAny* items_ = nullptr;
  int64_t size_ = 0;
  Call* call_ = nullptr;
};

}  // namespace detail

using TensorList = detail::ListOf<Tensor>;
using ConstTensorList = detail::ListOf<ConstTensor>;

namespace detail {

__attribute__((cold, noinline)) inline bool wrong_item(const TVMFFIAny& item, int64_t index, const ArgumentPlace& place,
                                                       ErrorSink* sink) {
  char name[64];
  argument_name(place.names, place.index, name);
  const bool freed = tensor_of(item);
  return fail(sink, freed ? ErrorKind::value : ErrorKind::type,
              "%s: argument %s: item %lld: expected a tensor (any array that speaks DLPack), got %s", place.function,
              name, static_cast<long long>(index), freed ? "one whose memory was freed" : type_name(item));
}

template <typename T>
inline bool from_any(const TVMFFIAny& any, ListOf<T>& out, const ArgumentPlace& place, ErrorSink* sink) {
  const Items items = items_of(any);
  if (items.size < 0) return wrong_type(any, place, "a list or tuple of tensors", sink);
  out = ListOf<T>(items.data, items.size, place.call);
  for (int64_t i = 0; i < items.size; ++i)
    if (!tensor_of(items.data[i]) || out[i].without_memory()) return wrong_item(items.data[i], i, place, sink);
  return true;
}

}  // namespace detail
}  // namespace dimorph
