// The blocks of work that a thread block takes, one after the other, in the order that order.h describes.
#pragma once

namespace DIMORPH_CASE {

class Schedule {
 public:
  __device__ explicit Schedule(const Params& p)
      : p_(p), whole_(p.pairs / static_cast<int>(gridDim.x) * static_cast<int>(gridDim.x)), left_(p.pairs - whole_) {}

  // Numbers of blocks: from first() on, every next(), before end().
  __device__ __forceinline__ int first() const { return static_cast<int>(blockIdx.x); }
  __device__ __forceinline__ int end() const {
    const int blocks = static_cast<int>(gridDim.x);
    return 2 * whole_ + (2 * left_ + blocks - 1) / blocks * blocks;
  }
  __device__ __forceinline__ int next(int number) const { return number + static_cast<int>(gridDim.x); }

  // The block of that number; false where there is none.
  __device__ __forceinline__ bool find(int number, Block& block) const {
    // Rounds in which every thread block has a pair: its first tile in one, its second in the next. Then what is left,
    // the longest first, dealt out forth and back: the longer halves of the pairs, and the shorter ones from the end.
    const int blocks = static_cast<int>(gridDim.x), mine = static_cast<int>(blockIdx.x);
    const int round = number / blocks;
    int half = round % 2, pair = round / 2 * blocks + mine;
    bool there = true;
    if (number >= 2 * whole_) {
      const int i = round * blocks - 2 * whole_ + (half ? blocks - 1 - mine : mine);
      there = i < 2 * left_;
      half = i >= left_;
      pair = there ? whole_ + (half ? 2 * left_ - 1 - i : i) : 0;
    }
    const int group_pairs = p_.group * ((p_.tiles + 1) / 2), group = pair / group_pairs, rest = pair % group_pairs;
    const int size = dm::math::min(p_.group, p_.units - group * p_.group), rank = rest / size;
    const int unit = common(group * p_.group + rest % size);
    find_sequence(p_, unit / p_.splits, unit % p_.splits, block);
    const int tiles = (block.last_row + kConfig.rows()) / kConfig.rows();
    block.row0 = common((half ? rank : tiles - 1 - rank) * kConfig.rows());
    return common(there && 2 * rank + half < tiles);
  }

 private:
  const Params& p_;
  const int whole_, left_;
};

}  // namespace DIMORPH_CASE
