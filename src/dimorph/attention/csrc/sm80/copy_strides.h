// How the sm80 family steps through keys and values in global memory, and what that asks of tensors.
#pragma once
#include <dimorph/ints.h>

#include "../problem.h"
#include "config.h"

namespace dimorph {
namespace attention {
namespace sm80 {

// Bytes from one tile of keys (values) to the next, and between the rows of a tile that one thread copies.
struct CopyStrides {
  uint32_t k_tile_bytes, k_step_bytes, v_tile_bytes, v_step_bytes;
};

constexpr CopyStrides copy_strides(const Config& c, const Problem& problem) {
  const auto bytes = [](int64_t elements) { return static_cast<uint32_t>(2 * elements); };
  return {bytes(problem.k_strides.row * c.tile_keys), bytes(problem.k_strides.row * c.rows_per_copy(c.dim_qk)),
          bytes(problem.v_strides.row * c.tile_keys), bytes(problem.v_strides.row * c.rows_per_copy(c.dim_vo))};
}

// What a tensor lacks (see gpu::LayoutError): its elements are accessed 16 bytes at a time, and steps between tiles are
// 32 bits wide.
inline const char* layout_error(const void* data, const Strides& strides, bool tiled) {
  if (reinterpret_cast<uint64_t>(data) % 16 != 0) return "an address that is a multiple of 16";
  if (strides.batch % 8 != 0 || strides.row % 8 != 0 || strides.head % 8 != 0)
    return "strides that are multiples of 16 bytes";
  if (tiled && (strides.row < 0 || strides.row >= int64_t{1} << 24))
    return "rows one after the other, less than 32 MiB apart";
  return nullptr;
}
// The same where keys and values, which are tiled, have 8 bits.
inline const char* layout_error_float8(const void* data, const Strides& strides, bool tiled) {
  const int multiple = tiled ? 16 : 8;
  if (reinterpret_cast<uint64_t>(data) % 16 != 0) return "an address that is a multiple of 16";
  if (strides.batch % multiple != 0 || strides.row % multiple != 0 || strides.head % multiple != 0)
    return "strides that are multiples of 16 bytes";
  if (tiled && (strides.batch < 0 || strides.row < 0 || strides.head < 0)) return "strides that are not negative";
  return nullptr;
}

}  // namespace sm80
}  // namespace attention
}  // namespace dimorph
