// The tiles of keys that a work tile needs, in the order in which they are computed.
#pragma once
#include <dimorph/attention/math.h>
#include <dimorph/attention/variants.h>
#include <dimorph/ints.h>

#include "contract.h"
#include "work_tile.h"

namespace DIMORPH_CASE {

using dm::TileClass;

constexpr int kPartKeys = gpu::kPartTiles * kTileKeys;  // of a part of the keys (invariant.h)

// The number of a tile of keys, and whether all of its keys count for all rows of the work tile.
struct KeyTile {
  int code = -1;  // 2 * number + full; negative: no tile

  __device__ __forceinline__ bool valid() const { return code >= 0; }
  __device__ __forceinline__ int number() const { return code >> 1; }
  __device__ __forceinline__ int first_key() const { return number() * kTileKeys; }
  __device__ __forceinline__ bool full() const { return code & 1; }
};

// Goes through the tiles of keys of a work tile, except those that the variant skips. The last keys come first: with
// many variants the largest logits are there, so that the row max hardly grows later. All lanes of a warp must call it
// together: each lane classifies one tile of a window of 32.
class KeyTileIterator {
  static_assert(gpu::kPartTiles == 32, "a part is a window");

 public:
  static constexpr bool kClassified = dm::detail::Hasclassify_tile<Variant>::value;

  __device__ KeyTileIterator(const Params& p, const WorkTile& work, Variant& variant)
      : p_(p), work_(work), variant_(variant) {
    const int all = (work.kv_len + kTileKeys - 1) / kTileKeys;
    window_ = kClassified ? (all + 31) / 32 : all;
    if constexpr (BATCH_INVARIANT) {
      if (work.is_part(p)) set_part(work.part(), all);
      return;
    }
    if (KeyPart::kByCount && !work.is_part(p)) return;
    work.find_range(p, KeyPart::kByCount ? count(all) : all, skip_, remaining_);
    if constexpr (!kClassified) window_ = dm::math::max(0, window_ - skip_);
  }

  // The next tile; an invalid one after the last.
  __device__ __forceinline__ KeyTile next() {
    if (remaining_ == 0) return {};
    if constexpr (kClassified) {
#pragma unroll 1
      while (needed_ == 0) {
        if (BATCH_INVARIANT ? window_ <= part_ : window_ == 0) return {};
        classify(--window_);
        const int count = __popc(needed_);
        if (count > skip_) break;
        skip_ -= count;
        needed_ = 0;
      }
#pragma unroll 1
      for (; skip_ > 0; --skip_) needed_ ^= 1u << last();
      const int bit = last();
      needed_ ^= 1u << bit;
      --remaining_;
      return {2 * (window_ * 32 + bit) + static_cast<int>(full_ >> bit & 1)};
    } else {
      if (window_ == 0) return {};
      --remaining_;
      return {2 * --window_ + !Traits::has_logits_mask};
    }
  }

  // Number of the tile that next() returns last, for variants that do not classify tiles.
  __device__ __forceinline__ int last_number() const { return dm::math::max(0, window_ - remaining_); }

 private:
  const Params& p_;
  const WorkTile& work_;
  Variant& variant_;
  int window_;                      // the window classified last; without classification, the tile returned last
  uint32_t needed_ = 0, full_ = 0;  // a bit for each tile of the window: it is still to be returned; it is full
  int skip_ = 0;                    // tiles still to come that belong to other splits
  int remaining_ = 0x7fffffff;      // tiles still to be returned, at most

  int part_ = 0;  // with BATCH_INVARIANT: the first window that counts, if tiles are classified

  // Leaves the tiles of one part of the keys, of `all`: those of a window.
  __device__ __forceinline__ void set_part(int part, int all) {
    const int first = part * gpu::kPartTiles, end = dm::math::min(first + gpu::kPartTiles, all);
    part_ = part;
    window_ = dm::math::min(window_, kClassified ? part + 1 : end);
    if constexpr (!kClassified) remaining_ = dm::math::max(0, end - first);
  }

  // The tiles that are to be returned, of `all`.
  __device__ __forceinline__ int count(int all) {
    if constexpr (!kClassified) return all;
    int count = 0;
#pragma unroll 1
    for (int w = 0; w < window_; ++w) {
      classify(w);
      count += __popc(needed_);
    }
    needed_ = 0;
    return count;
  }

  __device__ __forceinline__ int last() const { return 31 - __clz(static_cast<int>(needed_)); }

  __device__ __forceinline__ void classify(int window) {
    // Unsigned: tiles past the last may begin at a key that an int does not hold.
    const uint32_t first = (window * 32u + threadIdx.x % 32) * kTileKeys;
    const int q0 = row_at(p_, work_, work_.first_row).q;
    const int q1 = row_at(p_, work_, work_.first_row + kConfig.tile_rows() - 1).q + 1;
    TileClass found = TileClass::kSkip;
    const int k0 = static_cast<int>(first);
    if (first < static_cast<uint32_t>(work_.kv_len))
      found = dm::hooks::classify_tile(variant_, q0, q1, k0, dm::math::min(k0 + kTileKeys, work_.kv_len));
    needed_ = __ballot_sync(0xffffffffu, found != TileClass::kSkip);
    full_ = __ballot_sync(0xffffffffu, found == TileClass::kFull);
  }
};

}  // namespace DIMORPH_CASE
