// How the sm80 family walks keys and values in memory, and what that asks of them.
#pragma once
#include <dimorph/ints.h>

#include "../problem.h"
#include "config.h"

namespace dimorph {
namespace attention {
namespace sm80 {

// Bytes from one tile of keys (values) to the next, and between the rows of a tile that one thread copies.
struct Steps {
  uint32_t k_tile_bytes, k_step_bytes, v_tile_bytes, v_step_bytes;
};

constexpr Steps steps(const Config& c, const Problem& problem) {
  const auto bytes = [](int64_t elements) { return static_cast<uint32_t>(2 * elements); };
  return {bytes(problem.k_strides.row * c.keys), bytes(problem.k_strides.row * c.rows_at_once(c.dim_qk)),
          bytes(problem.v_strides.row * c.keys), bytes(problem.v_strides.row * c.rows_at_once(c.dim_vo))};
}

// What the kernels ask of a tensor for their 16-byte accesses, and of those copied in tiles for steps of 32 bits: null,
// or what does not fit.
inline const char* misfit(const void* data, const Strides& strides, bool copied) {
  if (reinterpret_cast<uint64_t>(data) % 16 != 0) return "an address that is a multiple of 16";
  if (strides.batch % 8 != 0 || strides.row % 8 != 0 || strides.head % 8 != 0)
    return "strides that are multiples of 16 bytes";
  if (copied && (strides.row < 0 || strides.row >= int64_t{1} << 24))
    return "rows one after the other, less than 32 MiB apart";
  return nullptr;
}

}  // namespace sm80
}  // namespace attention
}  // namespace dimorph
