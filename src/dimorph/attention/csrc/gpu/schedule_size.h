// How large the schedule and the partial results of one problem are, whatever the lengths of its sequences: pure
// functions of numbers.
#pragma once
#include <dimorph/ints.h>

#include "../problem.h"
#include "partition.h"
#include "plan.h"
#include "schedule.h"

namespace dimorph {
namespace attention {
namespace gpu {

struct ScheduleSize {
  Partition partition;  // how heads are packed; all else is 0
  int32_t groups, lanes;
  int32_t most_units, most_waves;
  int32_t slot_rows;
  int64_t slots;
  int64_t schedule;  // floats, a multiple of 4

  // Floats of a workspace: the schedule, then the row states and the rows of the slots.
  constexpr int64_t all(int dim_vo) const { return schedule + slots * slot_rows * (dim_vo + 2); }
};

// Packs of heads to compute side by side (schedule.h): as many as leave few thread blocks out.
constexpr int32_t choose_lanes(int32_t head_packs, int32_t blocks) {
  for (int32_t lanes = head_packs; lanes > 1; --lanes)
    if (head_packs % lanes == 0 && blocks / lanes * lanes >= blocks - blocks / 24) return lanes;
  return 1;
}

// `tokens`: queries of all sequences.
template <typename Config>
constexpr ScheduleSize schedule_size_of(const Config& c, const Problem& problem, int64_t tokens, int32_t blocks,
                                        bool batch_invariant) {
  ScheduleSize size{};
  const int32_t group = problem.num_qo_heads / problem.num_kv_heads;
  const bool packs = c.can_pack(group) && may_pack(int64_t{problem.max_qo_len} * group, group);
  size.partition = pack_heads(problem, packs ? group : 1);
  const int64_t packed_heads = size.partition.packed_heads;
  const int64_t rows = problem.max_qo_len * packed_heads;
  const int64_t by_length = problem.batch_size * divide_up(rows, c.tile_rows());
  const int64_t by_tokens = problem.batch_size + tokens * packed_heads / c.tile_rows();
  size.most_units = static_cast<int32_t>(by_length < by_tokens ? by_length : by_tokens);
  size.slot_rows = static_cast<int32_t>(rows < c.tile_rows() ? rows : c.tile_rows());
  size.slots = 2 * int64_t{blocks};
  size.most_waves = c.most_waves();
  size.lanes = size.most_waves == 1 ? choose_lanes(size.partition.head_packs, blocks) : 1;
  size.groups = blocks / size.lanes;
  if (batch_invariant) {
    size.slots = invariant_slots(size.groups * size.lanes, size.slot_rows);
    size.most_units += static_cast<int32_t>(size.slots);
  }
  size.schedule = schedule_size(blocks, size.most_units, size.most_waves);
  if (batch_invariant) size.schedule += part_table_size(size.most_units, size.slots);
  return size;
}

}  // namespace gpu
}  // namespace attention
}  // namespace dimorph
