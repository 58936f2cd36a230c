// The messages of checks of tensors. They are apart from the checks, which are compiled into loops.
#pragma once
#include "check.h"
#include "convert.h"
#include "dispatch.h"
#include "tensor.h"

namespace dimorph {
namespace detail {

// The position of a tensor among the items of an argument; -1 if it is none of them.
inline int64_t item_at(const TVMFFIAny& any, const DLTensor* tensor) {
  const Items items = items_of(any);
  for (int64_t i = 0; i < items.size; ++i)
    if (tensor_of(items.data[i]) == tensor) return i;
  return -1;
}

// The start of a message: the function and the argument that the tensor is, or is an item of.
struct TensorText {
  char text[192];

  explicit TensorText(const ConstTensor& tensor) {
    const Call* call = tensor.call();
    const auto* args = call ? static_cast<const TVMFFIAny*>(call->args) : nullptr;
    int32_t index = 0;
    while (args && index < call->count && tensor_of(args[index]) != tensor.dl() &&
           item_at(args[index], tensor.dl()) < 0)
      ++index;
    const char* function = call ? call->function : "";
    const char* colon = *function ? ": " : "";
    if (args && index < call->count) {
      char name[64];
      const bool more = call->more && index >= call->fixed;
      argument_name(more ? call->more : call->names, more ? index - call->fixed : index, name);
      const int64_t item = item_at(args[index], tensor.dl());
      if (item >= 0)
        snprintf(text, sizeof text, "%s%sargument %s: item %lld", function, colon, name, static_cast<long long>(item));
      else
        snprintf(text, sizeof text, "%s%sargument %s", function, colon, name);
    } else {
      snprintf(text, sizeof text, "%s%sa tensor", function, colon);
    }
  }
};

__attribute__((cold, noinline)) inline void wrong_elements(ConstTensor tensor, DataType expected) {
  const TensorText argument(tensor);
  if (tensor.dtype() == expected) wrong_device(tensor, Device{kDLCPU, 0});
  ValueText want, got;
  print_value(expected, want);
  print_value(tensor.dtype(), got);
  refuse(tensor.call(), ErrorKind::type, "%s: expected dtype %s, got %s", argument.text, want, got);
}

__attribute__((cold, noinline)) inline void wrong_shape(ConstTensor tensor, const Dim* dims, int32_t count) {
  const TensorText argument(tensor);
  if (!dims)
    refuse(tensor.call(), ErrorKind::value, "%s: expected %d dimension%s, got %d", argument.text, count,
           count == 1 ? "" : "s", tensor.ndim());
  char names[160] = "";
  ShapeText sizes, got;
  for (int32_t i = 0; i < count; ++i) {
    const size_t at = strlen(names);
    const char* comma = at ? ", " : "";
    if (dims[i].name())
      snprintf(names + at, sizeof names - at, "%s%s", comma, dims[i].name());
    else
      snprintf(names + at, sizeof names - at, "%s%lld", comma, static_cast<long long>(dims[i].expected()));
    sizes.add(dims[i].expected());
  }
  for (int32_t i = 0; i < tensor.ndim(); ++i) got.add(tensor.size(i));
  refuse(tensor.call(), ErrorKind::value, "%s: expected shape [%s], here (%s), got (%s)", argument.text, names,
         sizes.text, got.text);
}

__attribute__((cold, noinline)) inline void wrong_layout(ConstTensor tensor) {
  refuse(tensor.call(), ErrorKind::value, "%s: expected a row-major tensor, got one with other strides",
         TensorText(tensor).text);
}

__attribute__((cold, noinline)) inline void wrong_device(ConstTensor tensor, Device expected) {
  ValueText want, got;
  print_value(expected, want);
  print_value(tensor.device(), got);
  refuse(tensor.call(), ErrorKind::value, "%s: expected a tensor on %s, got one on %s", TensorText(tensor).text, want,
         got);
}

__attribute__((cold, noinline)) inline void wrong_alignment(ConstTensor tensor, int bytes) {
  refuse(tensor.call(), ErrorKind::value, "%s: expected elements at a multiple of %d bytes, got the address %p",
         TensorText(tensor).text, bytes, tensor.data());
}

__attribute__((cold, noinline)) inline void wrong_index(ConstTensor tensor, int32_t dim, int64_t index) {
  refuse(tensor.call(), ErrorKind::index, "%s: expected 0 <= index < %lld in dimension %d, got %lld",
         TensorText(tensor).text, static_cast<long long>(tensor.size(dim)), dim, static_cast<long long>(index));
}

}  // namespace detail
}  // namespace dimorph
