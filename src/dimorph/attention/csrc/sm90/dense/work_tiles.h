// The tile scheduler: the work tiles that a thread block takes, one after the other, in the order that
// scheduler_params.h describes. All lanes of a warp must call it together.
#pragma once
#include <dimorph/attention/math.h>
#include <dimorph/ints.h>

#include "../../gpu/contract.h"
#include "../../gpu/ptx.h"
#include "../../gpu/work_tile.h"

namespace DIMORPH_CASE {

class WorkTiles {
 public:
  __device__ explicit WorkTiles(const Params& p) : p_(p) {
    const int blocks = static_cast<int>(gridDim.x);
    int pairs = p.pairs;
    if (p.cu_seqlens_q) {
      pairs = 0;
#pragma unroll 1
      for (int batch = 0; batch < p.batch_size; batch += 32)
        pairs += static_cast<int>(__reduce_add_sync(0xffffffffu, pairs_of(batch + lane())));
    }
    whole_ = divide_uniform(pairs, blocks);
    left_ = pairs - whole_ * blocks;
  }

  // Finds the next work tile; false after the last.
  __device__ __forceinline__ bool next(WorkTile& work) {
    while (round_ < rounds())
      if (find(round_++, work)) return true;
    return false;
  }

 private:
  const Params& p_;
  int round_ = 0;

  // Rounds in which a thread block takes at most one work tile each.
  __device__ __forceinline__ int rounds() const {
    return 2 * whole_ + (left_ > 0) + (2 * left_ > static_cast<int>(gridDim.x));
  }

  // Finds this thread block's work tile of a round; false if it has none.
  __device__ __forceinline__ bool find(int round, WorkTile& work) {
    // As long as there is a pair for every thread block, each takes the first tile of a pair in one round and the
    // second in the next. The tiles of the pairs that are left over are dealt out one by one, from the longest to the
    // shortest: the long tiles of the pairs first, then the short ones in reverse, to the thread blocks forth and then
    // back.
    const int blocks = static_cast<int>(gridDim.x), mine = static_cast<int>(blockIdx.x);
    const int turn = round / 2;
    int half = round % 2, pair = turn * blocks + (turn % 2 ? blocks - 1 - mine : mine);
    bool found = true;
    if (round >= 2 * whole_) {
      const int i = half ? 2 * blocks - 1 - mine : mine;
      found = i < 2 * left_;
      half = i >= left_;
      pair = whole_ * blocks + (found ? half ? 2 * left_ - 1 - i : i : 0);
    }
    // The pair's unit, and its rank: 0 for the unit's first and last tile, 1 for the next ones, and so on.
    int unit, rank;
    if (p_.cu_seqlens_q) {
      find_ragged(pair, unit, rank);
    } else if (const int ranks = p_.query_tiles / 2, middle = pair - p_.units * ranks; middle < 0) {
      const int group_pairs = p_.group * ranks, group = divide_uniform(pair, group_pairs);
      const int rest = pair - group * group_pairs, size = dm::math::min(p_.group, p_.units - group * p_.group);
      rank = divide_uniform(rest, size);
      unit = group * p_.group + rest - rank * size;
    } else {
      found = found && 2 * middle + half < p_.units;
      unit = found ? 2 * middle + half : 0;
      rank = ranks;
      half = 0;
    }
    unit = warp_uniform(unit);
    const int pack = divide_uniform(unit, p_.splits);  // of all sequences
    const int batch = divide_uniform(pack, p_.head_packs);
    work.split = unit - pack * p_.splits;
    set_sequence(p_, batch, p_.get_kv_len(batch), pack - batch * p_.head_packs, work);
    const int tiles = query_tiles(p_, work.qo_len);
    found = warp_uniform(found && 2 * rank + half < tiles);
    if (found) set_rows(p_, warp_uniform(half ? rank : tiles - 1 - rank), work);
    return found;
  }

  int whole_, left_;  // pairs that every thread block takes, and pairs left over
  // For ragged sequences, of the 32 sequences from batch_ on, one a lane. Within them the longest come first, so that
  // the thread blocks have pairs of similar length in a round.
  int batch_ = -32;
  int before_ = 0;  // pairs of the sequences before batch_
  int pairs_ = 0;   // pairs of the 32 sequences
  int own_ = 0;     // pairs of this lane's sequence
  int longer_ = 0;  // pairs of the longer ones among the 32

  __device__ static __forceinline__ int lane() { return threadIdx.x % 32; }

  __device__ __forceinline__ uint32_t pairs_of(int sequence) const {
    if (sequence >= p_.batch_size) return 0;
    return p_.head_packs * p_.splits * ((query_tiles(p_, p_.get_qo_len(sequence)) + 1) / 2);
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

  // Finds the unit and the rank of an existing pair.
  __device__ __forceinline__ void find_ragged(int pair, int& unit, int& rank) {
    if (pair < before_) batch_ = -32, before_ = pairs_ = 0;
#pragma unroll 1
    while (batch_ < 0 || pair - before_ >= pairs_) advance();
    const int units = p_.head_packs * p_.splits, rest = pair - before_ - longer_;
    const int found = __ffs(static_cast<int>(__ballot_sync(0xffffffffu, rest >= 0 && rest < own_))) - 1;
    const int in_sequence = __shfl_sync(0xffffffffu, rest, found);
    rank = divide_uniform(in_sequence, units);
    unit = (batch_ + found) * units + in_sequence - rank * units;
  }
};

}  // namespace DIMORPH_CASE
