// How the keys of a work tile are divided among thread blocks that follow a schedule (schedule.h). A family's family.h
// includes it.
#pragma once
#include <dimorph/attention/math.h>
#include <dimorph/ints.h>

#include "contract.h"

namespace DIMORPH_CASE {

// The part of the keys that a thread block computes: the tiles [skip, skip + count) of those that the work tile needs.
// The thread blocks of the groups [first_group, last_group], in one lane, compute the parts of the work tile.
struct KeyPart {
  int skip, count;
  int first_group, last_group;

  __device__ __forceinline__ bool first(int group) const { return group == first_group; }
  // Whether it is one of several, whose results are merged.
  __device__ __forceinline__ bool is_part(const Params&) const { return first_group != last_group; }
  __device__ __forceinline__ int part() const { return 0; }
  // Sets which of the tiles of keys belong to the part, however many there are.
  static constexpr bool kByCount = false;
  __device__ __forceinline__ void find_range(const Params&, int, int& to_skip, int& remaining) const {
    to_skip = skip;
    remaining = count;
  }
};

// Which of the two slots of a group takes its part of a work tile: another one for the part that it begins with than
// for the one that it ends with.
__device__ __forceinline__ int slot_of(int group, int first_group) { return 2 * group + (group == first_group); }

// Where a row of the result of a thread block's part lies in the workspace.
template <typename WorkTile>
__device__ __forceinline__ int64_t partial_place(const Params& p, const WorkTile& work, int row, int group, int lane) {
  const int64_t slot = slot_of(group, work.first_group) * p.schedule.lanes + lane;
  return slot * p.schedule.slot_rows + row - work.first_row;
}

}  // namespace DIMORPH_CASE
