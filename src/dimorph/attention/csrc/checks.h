// Checks of single arguments of attention: device, dtype, dimensions.
#pragma once
#include <dimorph/entry.h>

#include "operation.h"
#include "problem.h"

namespace dimorph {
namespace attention {

// Sequences, heads and rows of a sequence over all heads, which the kernels count with 32 bits.
constexpr int64_t kMostSize = 1 << 30;

// The order of an array's dimensions, the last of which is the head dim. Ragged arrays have no batch.
struct Layout {
  int row, head;
  bool ragged;
  const char* shape;  // for messages

  constexpr int ndim() const { return ragged ? 3 : 4; }
  Strides strides(const ConstTensor& tensor) const {
    return {ragged ? 0 : tensor.stride(0), tensor.stride(row), tensor.stride(head)};
  }
};
constexpr Layout kDense = {1, 2, false, "[batch, seq, heads, head_dim]"};
constexpr Layout kRagged = {0, 1, true, "[tokens, heads, head_dim], as cu_seqlens are given"};

inline void check_device(const ConstTensor& tensor, const char* name, Device device) {
  const Device given = tensor.device();
  if (given.device_type == device.device_type && given.device_id == device.device_id) return;
  dimorph::detail::ValueText want, got;
  dimorph::detail::print_value(device, want);
  dimorph::detail::print_value(given, got);
  DIMORPH_RAISE(value,
                DIMORPH_OPERATION ": argument '%s': expected a tensor on %s, where '" DIMORPH_FIRST_ARGUMENT
                                  "' is, got one on %s",
                name, want, got);
}

inline void check_layout(const ConstTensor& tensor, const char* name, const Layout& layout, Device device) {
  DIMORPH_CHECK(tensor.ndim() == layout.ndim(), DIMORPH_OPERATION ": argument '%s': expected %s, got %d dimension%s",
                name, layout.shape, tensor.ndim(), tensor.ndim() == 1 ? "" : "s");
  check_device(tensor, name, device);
  // An empty array may have any strides: libraries differ.
  DIMORPH_CHECK(tensor.stride(-1) == 1 || tensor.size(-1) == 1 || tensor.numel() == 0,
                DIMORPH_OPERATION ": argument '%s': expected a contiguous last dimension, got stride %lld", name,
                static_cast<long long>(tensor.stride(-1)));
}

inline void check_dtype(const ConstTensor& tensor, const char* name, DataType expected, const char* meaning = "dtype") {
  if (tensor.dtype() == expected) return;
  dimorph::detail::ValueText want, got;
  dimorph::detail::print_value(expected, want);
  dimorph::detail::print_value(tensor.dtype(), got);
  DIMORPH_RAISE(type, DIMORPH_OPERATION ": argument '%s': expected %s %s, got %s", name, meaning, want, got);
}

inline void check_size(const ConstTensor& tensor, const char* name, int dim, int64_t expected, const char* meaning) {
  DIMORPH_CHECK(tensor.size(dim) == expected,
                DIMORPH_OPERATION ": argument '%s': expected size %lld in dimension %d (%s), got %lld", name,
                static_cast<long long>(expected), dim, meaning, static_cast<long long>(tensor.size(dim)));
}

inline void check_most(const ConstTensor& tensor, const char* name, int dim, int64_t most, const char* meaning) {
  DIMORPH_CHECK(tensor.size(dim) <= most,
                DIMORPH_OPERATION ": argument '%s': expected size %lld or less in dimension %d (%s), got %lld", name,
                static_cast<long long>(most), dim, meaning, static_cast<long long>(tensor.size(dim)));
}

// Checks dtype, device and shape. Offsets in the memory of a GPU are not read: the caller guarantees them.
inline const int32_t* check_offsets(const ConstTensor& offsets, const char* name, Device device) {
  check_dtype(offsets, name, dimorph::data_type<int32_t>());
  check_device(offsets, name, device);
  DIMORPH_CHECK(offsets.ndim() == 1,
                DIMORPH_OPERATION ": argument '%s': expected a tensor [batch + 1], got %d dimensions", name,
                offsets.ndim());
  DIMORPH_CHECK(offsets.contiguous(),
                DIMORPH_OPERATION ": argument '%s': expected a contiguous tensor, got stride %lld", name,
                static_cast<long long>(offsets.stride(0)));
  DIMORPH_CHECK(offsets.size(0) >= 1 && offsets.size(0) <= kMostSize,
                DIMORPH_OPERATION ": argument '%s': expected 1 to %lld offsets, got %lld", name,
                static_cast<long long>(kMostSize), static_cast<long long>(offsets.size(0)));
  return offsets.data<int32_t>();
}

}  // namespace attention
}  // namespace dimorph
