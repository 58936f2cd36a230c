// What a thread block works on: one tile of query rows of one sequence, and the tiles of keys that it needs.
#pragma once
#include <dimorph/attention/variants.h>
#include <dimorph/ints.h>

#include "../problem.h"
#include "contract.h"
#include "ptx.h"

namespace DIMORPH_CASE {

using dm::TileClass;

// Rounded down, of numbers that are not negative and that the warp has in common.
__device__ __forceinline__ int divide(int a, int b) {
  return common(static_cast<uint32_t>(a) / static_cast<uint32_t>(b));
}

struct Block {
  int batch, kv_head, first_head;  // row r is of head first_head + r % pack
  int row0, last_row;              // the tile's first row and its last
  int split;
  int qo_len, kv_len;
  int first_query;  // the row of a tensor at which the sequence's queries begin: ragged ones follow each other
};

// How many whole queries so many rows are: (rows + 1/2) / pack, rounded down, which is exact where plan() packs, and
// for pack 1 always.
__device__ __forceinline__ int whole_queries(const Params& p, int rows) {
  return static_cast<int>(__umulhi(2u * rows + 1u, p.pack_reciprocal));
}

// A row's query and head. Rows past the tile's last repeat it, so that hooks never see an index out of range.
struct Row {
  int q, head;
};
__device__ __forceinline__ Row row_at(const Params& p, const Block& block, int row) {
  row = dm::math::min(row, block.last_row);
  const int q = whole_queries(p, row);
  return {q, block.first_head + row - q * p.pack};
}

__device__ __forceinline__ int64_t offset(const dimorph::attention::Strides& strides, int batch, int row, int head) {
  return batch * strides.batch + row * strides.row + head * strides.head;
}

// The row of a tensor at which the sequence's keys begin.
__device__ __forceinline__ int first_key(const Params& p, const Block& block) {
  return p.cu_seqlens_k ? p.cu_seqlens_k[block.batch] : 0;
}
// The first key (value) of the block's sequence and head.
__device__ __forceinline__ const DType* keys_of(const Params& p, const Block& block) {
  return static_cast<const DType*>(p.k) + offset(p.k_strides, block.batch, first_key(p, block), block.kv_head);
}
__device__ __forceinline__ const DType* values_of(const Params& p, const Block& block) {
  return static_cast<const DType*>(p.v) + offset(p.v_strides, block.batch, first_key(p, block), block.kv_head);
}

// Everything about a block but its rows. `pack` counts the packs of heads of all sequences.
__device__ inline void find_sequence(const Params& p, int pack, int split, Block& block) {
  block.split = split;
  block.batch = divide(pack, p.packs);
  block.first_head = (pack - block.batch * p.packs) * p.pack;
  block.kv_head = divide(block.first_head, p.sharing);
  block.first_query = common(p.cu_seqlens_q ? p.cu_seqlens_q[block.batch] : 0);
  block.qo_len = common(p.get_qo_len(block.batch));
  block.kv_len = common(p.get_kv_len(block.batch));
}

__device__ __forceinline__ int tiles_of(const Params& p, int qo_len) {
  return (qo_len * p.pack + kConfig.rows() - 1) / kConfig.rows();
}

// The block's rows, of a tile that there is. The last tile ends where the rows do: if one has fewer rows, it is the
// first, to which a causal mask leaves the fewest keys.
__device__ __forceinline__ void find_rows_of_tile(const Params& p, int tile, Block& block) {
  const int from_end = tiles_of(p, block.qo_len) - 1 - tile;
  block.last_row = block.qo_len * p.pack - 1 - from_end * kConfig.rows();
  block.row0 = dm::math::max(0, block.last_row + 1 - kConfig.rows());
}

// A tile of keys, by its number; whether the variant finds that all of it counts for the whole block.
struct KeyTile {
  int code = -1;  // 2 * number + full; negative: there is none

  __device__ __forceinline__ bool there() const { return code >= 0; }
  __device__ __forceinline__ int number() const { return code >> 1; }
  __device__ __forceinline__ int first_key() const { return number() * kKeys; }
  __device__ __forceinline__ bool full() const { return code & 1; }
};

// The tiles of keys that some row of the block may see, one after the other, the last keys first: there the largest
// logits of many variants are, so that maxima hardly grow later. All lanes of a warp must call together: each
// classifies one tile of 32.
class KeyTiles {
 public:
  static constexpr bool kClassified = dm::detail::Hasclassify_tile<Variant>::value;

  __device__ KeyTiles(const Params& p, const Block& block, Variant& variant) : p_(p), block_(block), variant_(variant) {
    const int all = (block.kv_len + kKeys - 1) / kKeys;
    window_ = kClassified ? (all + 31) / 32 : all;
    if (p.splits == 1) return;
    int count = all;
    if constexpr (kClassified) {
      count = 0;
#pragma unroll 1
      for (int w = 0; w < window_; ++w) {
        look(w);
        count += __popc(counts_);
      }
      counts_ = 0;
    }
    const int share = (count + p.splits - 1) / p.splits;
    passed_by_ = dm::math::min(block.split * share, count);
    left_ = dm::math::min(share, count - passed_by_);
    if constexpr (!kClassified) window_ -= passed_by_;
  }

  __device__ __forceinline__ KeyTile next() {
    if (left_ == 0) return {};
    if constexpr (kClassified) {
#pragma unroll 1
      while (counts_ == 0) {
        if (window_ == 0) return {};
        look(--window_);
        const int count = __popc(counts_);
        if (count > passed_by_) break;
        passed_by_ -= count;
        counts_ = 0;
      }
#pragma unroll 1
      for (; passed_by_ > 0; --passed_by_) counts_ ^= 1u << last();
      const int bit = last();
      counts_ ^= 1u << bit;
      --left_;
      return {2 * (window_ * 32 + bit) + static_cast<int>(full_ >> bit & 1)};
    } else {
      if (window_ == 0) return {};
      --left_;
      return {2 * --window_ + !Traits::has_logits_mask};
    }
  }

  // The number of the last tile to come, where all count.
  __device__ __forceinline__ int last_number() const { return dm::math::max(0, window_ - left_); }

 private:
  const Params& p_;
  const Block& block_;
  Variant& variant_;
  int window_;                      // the one looked at last, of 32 tiles; without classification, a tile
  uint32_t counts_ = 0, full_ = 0;  // one bit for each of its tiles: it is still to come; it is full
  int passed_by_ = 0;               // tiles to come that are of other splits
  int left_ = 0x7fffffff;           // tiles to come, at most

  __device__ __forceinline__ int last() const { return 31 - __clz(static_cast<int>(counts_)); }

  __device__ __forceinline__ void look(int window) {
    // Tiles that there are not may begin past what an int holds.
    const uint32_t first = (window * 32u + threadIdx.x % 32) * kKeys;
    const int q0 = row_at(p_, block_, block_.row0).q, q1 = row_at(p_, block_, block_.row0 + kConfig.rows() - 1).q + 1;
    TileClass found = TileClass::kSkip;
    const int k0 = static_cast<int>(first);
    if (first < static_cast<uint32_t>(block_.kv_len))
      found = dm::hooks::classify_tile(variant_, q0, q1, k0, dm::math::min(k0 + kKeys, block_.kv_len));
    counts_ = __ballot_sync(0xffffffffu, found != TileClass::kSkip);
    full_ = __ballot_sync(0xffffffffu, found == TileClass::kFull);
  }
};

}  // namespace DIMORPH_CASE
