// How the keys of a work tile are divided among thread blocks that follow a schedule (schedule.h). A family's family.h
// includes it.
#pragma once
#include <dimorph/attention/math.h>
#include <dimorph/ints.h>

#include "contract.h"

namespace DIMORPH_CASE {

// The part of the keys that a thread block computes: the tiles [skip, skip + count) of those that the work tile needs.
// The thread blocks [first_block, last_block] compute the parts of the work tile.
struct KeyPart {
  int skip, count;
  int first_block, last_block;

  __device__ __forceinline__ bool first(int block) const { return block == first_block; }
  // Whether it is one of several, whose results are merged.
  __device__ __forceinline__ bool is_part(const Params&) const { return first_block != last_block; }
  // Sets which of the tiles of keys belong to the part, however many there are.
  static constexpr bool kByCount = false;
  __device__ __forceinline__ void find_range(const Params&, int, int& to_skip, int& remaining) const {
    to_skip = skip;
    remaining = count;
  }
};

// Which of the two slots of a thread block in the workspace takes its part of a work tile: another one for the part
// that it begins with than for the one that it ends with.
__device__ __forceinline__ int slot_of(int block, int first_block) { return 2 * block + (block == first_block); }

// Where a row of the result of a thread block's part lies in the workspace.
template <typename WorkTile>
__device__ __forceinline__ int64_t partial_place(const Params& p, const WorkTile& work, int row, int block) {
  return int64_t{slot_of(block, work.first_block)} * p.schedule.slot_rows + row - work.first_row;
}

}  // namespace DIMORPH_CASE
