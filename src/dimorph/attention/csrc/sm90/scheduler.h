// The blocks of work that a thread block takes, one after the other, in the order that order.h describes. All lanes of
// a warp must call together.
#pragma once
#include <dimorph/attention/math.h>
#include <dimorph/ints.h>

#include "../gpu/block.h"
#include "../gpu/contract.h"
#include "../gpu/ptx.h"

namespace DIMORPH_CASE {

class Schedule {
 public:
  __device__ explicit Schedule(const Params& p) : p_(p) {
    const int blocks = static_cast<int>(gridDim.x);
    int pairs = p.pairs;
    if (p.cu_seqlens_q) {
      pairs = 0;
#pragma unroll 1
      for (int batch = 0; batch < p.batch_size; batch += 32)
        pairs += static_cast<int>(__reduce_add_sync(0xffffffffu, pairs_of(batch + lane())));
    }
    whole_ = divide(pairs, blocks);
    left_ = pairs - whole_ * blocks;
  }

  // In each round every thread block has a block of work at most.
  __device__ __forceinline__ int rounds() const {
    return 2 * whole_ + (left_ > 0) + (2 * left_ > static_cast<int>(gridDim.x));
  }

  // That of this thread block; false where there is none.
  __device__ __forceinline__ bool find(int round, Block& block) {
    // Rounds in which every thread block has a pair: its first tile in one, its second in the next. Then what is left,
    // the longest first, dealt out forth and back: the longer halves of the pairs, and the shorter ones from the end.
    const int blocks = static_cast<int>(gridDim.x), mine = static_cast<int>(blockIdx.x);
    const int turn = round / 2;
    int half = round % 2, pair = turn * blocks + (turn % 2 ? blocks - 1 - mine : mine);
    bool there = true;
    if (round >= 2 * whole_) {
      const int i = half ? 2 * blocks - 1 - mine : mine;
      there = i < 2 * left_;
      half = i >= left_;
      pair = whole_ * blocks + (there ? half ? 2 * left_ - 1 - i : i : 0);
    }
    int unit, rank;
    if (p_.cu_seqlens_q) {
      find_ragged(pair, unit, rank);
    } else if (const int ranks = p_.tiles / 2, middle = pair - p_.units * ranks; middle < 0) {
      const int group_pairs = p_.group * ranks, group = divide(pair, group_pairs);
      const int rest = pair - group * group_pairs, size = dm::math::min(p_.group, p_.units - group * p_.group);
      rank = divide(rest, size);
      unit = group * p_.group + rest - rank * size;
    } else {
      there = there && 2 * middle + half < p_.units;
      unit = there ? 2 * middle + half : 0;
      rank = ranks;
      half = 0;
    }
    unit = common(unit);
    const int pack = divide(unit, p_.splits);
    find_sequence(p_, pack, unit - pack * p_.splits, block);
    const int tiles = tiles_of(p_, block.qo_len);
    there = common(there && 2 * rank + half < tiles);
    if (there) find_rows_of_tile(p_, common(half ? rank : tiles - 1 - rank), block);
    return there;
  }

 private:
  const Params& p_;
  int whole_, left_;  // pairs that every thread block has, and those left over
  // Ragged: of the 32 sequences from batch_ on, one for each lane, pairs before them and their pairs. The longest comes
  // first, so that the thread blocks have pairs that are alike in a round; this lane's pairs, and those of longer ones.
  int batch_ = -32, before_ = 0, pairs_ = 0, own_ = 0, longer_ = 0;

  __device__ static __forceinline__ int lane() { return threadIdx.x % 32; }

  __device__ __forceinline__ uint32_t pairs_of(int sequence) const {
    if (sequence >= p_.batch_size) return 0;
    return p_.packs * p_.splits * ((tiles_of(p_, p_.get_qo_len(sequence)) + 1) / 2);
  }

  // Goes on to the next 32 sequences and counts their pairs.
  __device__ __forceinline__ void advance() {
    before_ += pairs_;
    batch_ += 32;
    const int sequence = batch_ + lane();
    const int length = sequence < p_.batch_size ? p_.get_kv_len(sequence) : -1;
    own_ = static_cast<int>(pairs_of(sequence));
    longer_ = 0;
#pragma unroll 1
    for (int i = 0; i < 32; ++i) {
      const int other = __shfl_sync(0xffffffffu, length, i), pairs = __shfl_sync(0xffffffffu, own_, i);
      if (other > length || (other == length && i < lane())) longer_ += pairs;
    }
    pairs_ = static_cast<int>(__reduce_add_sync(0xffffffffu, static_cast<unsigned>(own_)));
  }

  // A pair's unit, and how many pairs of its sequence are more unequal. There is such a pair.
  __device__ __forceinline__ void find_ragged(int pair, int& unit, int& rank) {
    if (pair < before_) batch_ = -32, before_ = pairs_ = 0;
#pragma unroll 1
    while (batch_ < 0 || pair - before_ >= pairs_) advance();
    const int units = p_.packs * p_.splits, rest = pair - before_ - longer_;
    const int found = __ffs(static_cast<int>(__ballot_sync(0xffffffffu, rest >= 0 && rest < own_))) - 1;
    const int in_sequence = __shfl_sync(0xffffffffu, rest, found);
    rank = divide(in_sequence, units);
    unit = (batch_ + found) * units + in_sequence - rank * units;
  }
};

}  // namespace DIMORPH_CASE
