// What the copy engine moves at a time, as the host describes it, and what that asks of tensors.
#pragma once
#include <dimorph/ints.h>

#include "../problem.h"
#include "config.h"

namespace dimorph {
namespace attention {
namespace sm90 {

// A tensor, the contiguous dimension first, and the box of it that one copy moves: cuda::Tiles without the pointers.
struct Boxes {
  uint32_t rank;
  uint64_t sizes[5], strides[4];  // elements; bytes, of every dimension but the first
  uint32_t box[5];
};

// Bytes from one to the next of so many; of a single one nobody goes on, but the driver wants a stride.
constexpr uint64_t stride_bytes(int64_t elements, int64_t count) {
  return count == 1 ? 16 : static_cast<uint64_t>(2 * elements);
}

// Rows of keys (values) of one head and sequence; ragged sequences are one of all `tokens`.
constexpr Boxes key_boxes(const Config& c, const Problem& p, const Strides& strides, int dim, int64_t tokens) {
  const int64_t sequences = p.cu_seqlens_k ? 1 : p.batch_size;
  return {4,
          {uint64_t(dim), uint64_t(tokens), uint64_t(p.num_kv_heads), uint64_t(sequences)},
          {stride_bytes(strides.row, tokens), stride_bytes(strides.head, p.num_kv_heads),
           stride_bytes(strides.batch, sequences)},
          {64, uint32_t(c.keys), 1, 1}};
}

// Queries of `pack` heads each, which become rows of a tile.
constexpr Boxes query_boxes(const Config& c, const Problem& p, const Strides& strides, int pack, int64_t tokens) {
  const int64_t sequences = p.cu_seqlens_q ? 1 : p.batch_size, packs = p.num_qo_heads / pack;
  return {5,
          {uint64_t(c.dim_qk), uint64_t(pack), uint64_t(tokens), uint64_t(packs), uint64_t(sequences)},
          {stride_bytes(strides.head, pack), stride_bytes(strides.row, tokens),
           stride_bytes(strides.head * pack, packs), stride_bytes(strides.batch, sequences)},
          {64, uint32_t(pack), uint32_t(c.rows() / pack), 1, 1}};
}

// What the copy engine asks of a tensor: null, or what does not fit.
inline const char* misfit(const void* data, const Strides& strides, bool) {
  if (reinterpret_cast<uint64_t>(data) % 16 != 0) return "an address that is a multiple of 16";
  if (strides.batch % 8 != 0 || strides.row % 8 != 0 || strides.head % 8 != 0)
    return "strides that are multiples of 16 bytes";
  if (strides.batch < 0 || strides.row < 0 || strides.head < 0) return "strides that are not negative";
  return nullptr;
}

}  // namespace sm90
}  // namespace attention
}  // namespace dimorph
