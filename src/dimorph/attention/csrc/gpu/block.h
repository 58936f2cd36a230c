// What a thread block works on: one tile of query rows of one sequence, and the tiles of keys that it needs.
#pragma once

namespace DIMORPH_CASE {

using dm::TileClass;

struct Block {
  int batch, kv_head, first_head;  // row r is of head first_head + r % pack
  int row0, last_row;              // the tile's first row and its last
  int split;
  int qo_len, kv_len;
};

// A row's query and head. Rows past the tile's last repeat it, so that hooks never see an index out of range.
struct Row {
  int q, head;
};
__device__ __forceinline__ Row row_at(const Params& p, const Block& block, int row) {
  row = dm::math::min(row, block.last_row);
  // (row + 1/2) / pack, rounded down: exact where plan() packs, and for pack 1 always.
  const int q = static_cast<int>(__umulhi(2u * row + 1u, p.pack_reciprocal));
  return {q, block.first_head + row - q * p.pack};
}

__device__ __forceinline__ int64_t offset(const dimorph::attention::Strides& strides, int batch, int row, int head) {
  return batch * strides.batch + row * strides.row + head * strides.head;
}

// The row of a tensor at which the block's sequence begins: ragged ones follow each other.
__device__ __forceinline__ int first_query(const Params& p, const Block& block) {
  return p.cu_seqlens_q ? p.cu_seqlens_q[block.batch] : 0;
}
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
  const int packs = p.num_qo_heads / p.pack, group = p.num_qo_heads / p.num_kv_heads;
  block.split = split;
  block.batch = pack / packs;
  block.first_head = pack % packs * p.pack;
  block.kv_head = block.first_head / group;
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

// The tiles of keys that some row of the block may see, the last keys first: there the largest logits of many variants
// are, so that maxima hardly grow later. All lanes of a warp must call together: each classifies one tile of 32.
class KeyTiles {
 public:
  int first;  // negative: there is none

  __device__ KeyTiles(const Params& p, const Block& block, Variant& variant)
      : variant_(variant),
        kv_len_(block.kv_len),
        q0_(row_at(p, block, block.row0).q),
        q1_(row_at(p, block, block.row0 + kConfig.rows() - 1).q + 1),
        begin_(0),
        end_((block.kv_len + kKeys - 1) / kKeys) {
    int end = end_;
    if (p.splits > 1) {
      int count = end_;
      if constexpr (kClassified) {
        count = 0;
#pragma unroll 1
        for (int w = 0; w * 32 < end_; ++w) count += __popc(window(w));
      }
      const int share = (count + p.splits - 1) / p.splits;
      begin_ = place(dm::math::min(block.split * share, count));
      end = place(dm::math::min(block.split * share + share, count));
    }
    first = at_most(end - 1);
  }

  // The one after t; negative: there is none.
  __device__ __forceinline__ int after(int t) { return at_most(t - 1); }

  // Whether the variant finds a tile that was given last full for the whole block.
  __device__ __forceinline__ bool full(int t) const {
    return kClassified ? full_ >> t % 32 & 1 : !Traits::has_logits_mask;
  }

 private:
  static constexpr bool kClassified = dm::detail::Hasclassify_tile<Variant>::value;
  Variant& variant_;
  int kv_len_, q0_, q1_, begin_, end_;
  int window_ = -1;
  uint32_t counts_ = 0, full_ = 0;  // one bit for each of the window's 32 tiles

  __device__ __forceinline__ int at_most(int t) {
    if constexpr (kClassified) {
      if (t >= begin_ && t / 32 == window_ && counts_ >> t % 32 & 1) return t;  // nearly always
      while (t >= begin_) {
        const uint32_t rest = window(t / 32) << (31 - t % 32);
        if (rest) {
          t -= __clz(static_cast<int>(rest));
          break;
        }
        t = t / 32 * 32 - 1;
      }
    }
    return t >= begin_ ? t : -1;
  }

  __device__ uint32_t window(int number) {
    if (number != window_) {
      window_ = number;
      const int mine = number * 32 + static_cast<int>(threadIdx.x % 32), k0 = mine * kKeys;
      TileClass found = TileClass::kSkip;
      if (mine < end_) found = dm::hooks::classify_tile(variant_, q0_, q1_, k0, dm::math::min(k0 + kKeys, kv_len_));
      counts_ = __ballot_sync(0xffffffffu, found != TileClass::kSkip);
      full_ = __ballot_sync(0xffffffffu, found == TileClass::kFull);
    }
    return counts_;
  }

  // Where the tile number n of those that count is, by their order in memory.
  __device__ int place(int n) {
    if constexpr (kClassified) {
#pragma unroll 1
      for (int w = 0; w * 32 < end_; ++w) {
        uint32_t bits = window(w);
        const int count = __popc(bits);
        if (n < count) {
#pragma unroll 1
          for (; n > 0; --n) bits &= bits - 1;
          return w * 32 + __ffs(bits) - 1;
        }
        n -= count;
      }
      return end_;
    } else {
      return n;
    }
  }
};

}  // namespace DIMORPH_CASE
