// How the keys of a work tile are divided among thread blocks that follow a schedule (schedule.h). A family's family.h
// includes it.
#pragma once
#include <dimorph/attention/math.h>
#include <dimorph/ints.h>

#include "contract.h"
#include "partition.h"
#include "schedule.h"

namespace DIMORPH_CASE {

// The part of the keys that a thread block computes: the tiles [skip, skip + count) of those that the work tile needs.
// The thread blocks of the groups [first_group, last_group], in one lane, compute the parts of the work tile.
template <bool kInvariant = BATCH_INVARIANT>
struct KeyPartOf {
  int skip, count;
  int first_group, last_group;

  __device__ __forceinline__ void set(int to_skip, int tiles, int first, int last) {
    skip = to_skip;
    count = tiles;
    first_group = first;
    last_group = last;
  }
  __device__ __forceinline__ void set_unit(const Params&, int, int, int) {}
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

  // For finish_part: the parts of the work tile, how many of them are finished, and of this one in the first pass
  // whether it is left to the careful pass. `own`: of the parts that begin and end the thread block's pieces.
  __device__ __forceinline__ int parts(int) const { return last_group - first_group + 1; }
  __device__ __forceinline__ int32_t& arrivals(const Params& p, int lane) const {
    return p.schedule.arrivals[first_group * p.schedule.lanes + lane];
  }
  __device__ __forceinline__ int32_t& nonfinite(const Params&, int32_t (&own)[2], int group) const {
    return own[first(group)];
  }
  // Which slot in the workspace takes the part of a thread block: of its two, another one for the part that it begins
  // with than for the one that it ends with.
  __device__ __forceinline__ int slot(const Params& p, int group, int lane) const {
    return (2 * group + (group == first_group)) * p.schedule.lanes + lane;
  }
  // The slot of the part that is merged as number i.
  __device__ __forceinline__ int slot_of(const Params& p, int i, int, int lane) const {
    return slot(p, first_group + i, lane);
  }
};

// The same where results must not depend on the batch: one of the parts of invariant.h, or all of them.
template <>
struct KeyPartOf<true> {
  int number, own;  // of the part, or -1; its slot

  __device__ __forceinline__ void set(int, int, int, int) {}
  __device__ __forceinline__ void set_unit(const Params& p, int unit, int pack, int kv_len) {
    const gpu::UnitPart part = table(p).units[unit];
    number = part.number;
    own = part.first_slot + pack * parts(kv_len) + number;
  }
  __device__ __forceinline__ bool first(int) const { return number <= 0; }
  __device__ __forceinline__ bool is_part(const Params&) const { return number >= 0; }
  __device__ __forceinline__ int part() const { return number; }
  static constexpr bool kByCount = false;
  __device__ __forceinline__ void find_range(const Params&, int, int&, int&) const {}

  __device__ __forceinline__ int parts(int kv_len) const {
    constexpr int kKeys = gpu::kPartTiles * kTileKeys;
    return (kv_len + kKeys - 1) / kKeys;
  }
  __device__ __forceinline__ int32_t& arrivals(const Params& p, int) const { return table(p).arrivals[own - number]; }
  // In global memory, where an L1 cache might keep it.
  __device__ __forceinline__ volatile int32_t& nonfinite(const Params& p, int32_t (&)[2], int) const {
    return table(p).nonfinite[own];
  }
  __device__ __forceinline__ int slot(const Params&, int, int) const { return own; }
  __device__ __forceinline__ int slot_of(const Params&, int i, int count, int) const {
    return own - number + count - 1 - i;
  }

 private:
  __device__ static __forceinline__ gpu::PartTable table(const Params& p) {
    return gpu::part_table(p.schedule,
                           gpu::invariant_slots(p.schedule.groups * p.schedule.lanes, p.schedule.slot_rows));
  }
};
using KeyPart = KeyPartOf<>;

// Where a row of the result of this thread block's part lies in the workspace.
template <typename WorkTile>
__device__ __forceinline__ int64_t partial_place(const Params& p, const WorkTile& work, int row, int group, int lane) {
  return int64_t{work.slot(p, group, lane)} * p.schedule.slot_rows + row - work.first_row;
}
// Where that of the part lies that is merged as number i of `parts`.
template <typename WorkTile>
__device__ __forceinline__ int64_t merged_place(const Params& p, const WorkTile& work, int row, int i, int parts,
                                                int lane) {
  return int64_t{work.slot_of(p, i, parts, lane)} * p.schedule.slot_rows + row - work.first_row;
}

}  // namespace DIMORPH_CASE
