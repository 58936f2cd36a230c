// The tensors and boxes that TMA loads, as the host describes them, and what TMA asks of tensors.
#pragma once
#include <dimorph/ints.h>

#include "../problem.h"
#include "config.h"

namespace dimorph {
namespace attention {
namespace sm90 {

// A tensor, contiguous dimension first, and the box of it that one load moves: cuda::Tiles without the pointers.
struct TensorMapLayout {
  uint32_t rank;
  uint64_t sizes[5];    // elements
  uint64_t strides[4];  // bytes, of every dimension but the first
  uint32_t box[5];      // elements
};

// The stride of a dimension of size `count`. The stride of a dimension of size 1 is never used, but the driver wants a
// valid one.
constexpr uint64_t stride_bytes(int64_t elements, int64_t count) {
  return count == 1 ? 16 : static_cast<uint64_t>(2 * elements);
}

// A box holds 64 columns of the keys (values) of one tile. `tokens`: keys of a sequence, or of all ragged ones.
constexpr TensorMapLayout key_map_layout(const Config& c, const Problem& p, const Strides& strides, int dim,
                                         int64_t tokens) {
  const int64_t sequences = p.cu_seqlens_k ? 1 : p.batch_size;
  return {4,
          {uint64_t(dim), uint64_t(tokens), uint64_t(p.num_kv_heads), uint64_t(sequences)},
          {stride_bytes(strides.row, tokens), stride_bytes(strides.head, p.num_kv_heads),
           stride_bytes(strides.batch, sequences)},
          {64, uint32_t(c.tile_keys), 1, 1}};
}

// A box holds 64 columns of the rows of one query tile: queries of `packed_heads` heads each. `tokens`: queries of a
// sequence, or of all ragged ones.
constexpr TensorMapLayout query_map_layout(const Config& c, const Problem& p, const Strides& strides, int packed_heads,
                                           int64_t tokens) {
  const int64_t sequences = p.cu_seqlens_q ? 1 : p.batch_size, packs = p.num_qo_heads / packed_heads;
  return {5,
          {uint64_t(c.dim_qk), uint64_t(packed_heads), uint64_t(tokens), uint64_t(packs), uint64_t(sequences)},
          {stride_bytes(strides.head, packed_heads), stride_bytes(strides.row, tokens),
           stride_bytes(strides.head * packed_heads, packs), stride_bytes(strides.batch, sequences)},
          {64, uint32_t(packed_heads), uint32_t(c.tile_rows() / packed_heads), 1, 1}};
}

// What a tensor lacks (see gpu::LayoutError).
inline const char* layout_error(const void* data, const Strides& strides, bool) {
  if (reinterpret_cast<uint64_t>(data) % 16 != 0) return "an address that is a multiple of 16";
  if (strides.batch % 8 != 0 || strides.row % 8 != 0 || strides.head % 8 != 0)
    return "strides that are multiples of 16 bytes";
  if (strides.batch < 0 || strides.row < 0 || strides.head < 0) return "strides that are not negative";
  return nullptr;
}

}  // namespace sm90
}  // namespace attention
}  // namespace dimorph
