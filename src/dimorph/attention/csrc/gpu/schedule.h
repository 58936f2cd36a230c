// A schedule: which part of the work each of a fixed number of thread blocks does, for sequences whose lengths only the
// GPU knows. Made by attention_schedule (schedule.cu), followed by the kernels of families with kScheduled
// (scheduled_tiles.h).
#pragma once
#include <dimorph/attention/host_device.h>
#include <dimorph/ints.h>

namespace dimorph {
namespace attention {
namespace gpu {

// All query tiles of all packs of heads are laid end to end, each as long as its tiles of keys and kUnitCost. This line
// is divided into waves, and each wave into a piece for each thread block. In the last wave a piece may begin and end
// inside of a query tile: then several thread blocks compute parts of its keys, and the last one to finish merges the
// parts. Pieces of the waves before consist of whole query tiles, and the next ones make up for what that adds or
// takes. At any time all thread blocks are in one wave, where they read the same keys from the L2 cache.
//
// Few queries read each key once. Then thread blocks compute neighbouring packs of heads in lanes, side by side: those
// of a group, one of each lane, follow the same piece, and read neighbouring memory at the same time, which DRAM serves
// up to a quarter faster. The line then holds every lanes-th pack of heads.

// A query tile of one pack of heads.
struct alignas(16) Unit {
  int32_t batch, tile;
  int32_t count;   // tiles of keys that it needs
  int32_t kv_len;  // of the sequence
};

// Where a piece begins, and the one before it ends: in unit `unit` of a pack, before its tile of keys number `skip`, in
// the order in which they are computed.
struct alignas(16) Cut {
  int32_t pack, unit, skip;  // the pack among those of a lane
  int32_t first, last;       // if skip > 0, the groups that share the unit
  int32_t units, waves;      // of a pack, and in all; the same in all cuts
  int32_t padding;
  Unit at;  // that unit, so that a thread block need not wait for a second read
};

// Where results must not depend on the batch (invariant.h), pieces consist of whole units, and a query tile that is
// long beside the share of a thread block is as many units as its keys have parts, each with a slot for its result.
struct UnitPart {
  int32_t number;      // of the part; -1: the unit is a query tile with all of its keys
  int32_t first_slot;  // of the first part, for the first pack of heads; those of the next pack follow
};

struct Schedule {
  Cut* cuts;          // [most_waves][groups + 1]
  Unit* units;        // [most_units]
  int64_t* costs;     // [most_units + 1]: of the units before each one
  int32_t* arrivals;  // [groups, lanes]: how many have finished their part of the unit that this thread block begins
  int32_t most_units, most_waves;
  int32_t groups, lanes;  // thread blocks of a lane; of a group
  int32_t slot_rows;      // rows of a partial result: each thread block may leave two
};

// Tiles of keys that take as long as the rest of a query tile.
constexpr int kUnitCost = 1;
// Tiles of keys that a part has at least.
constexpr int kLeastPart = 2;
constexpr int kScheduleThreads = 1024;
constexpr int kMostBlocks = 255;  // on a GPU with more multiprocessors, some are not used

// Slots with BATCH_INVARIANT: as many rows as there are otherwise for tiles of 192 rows.
DM_HD constexpr int32_t invariant_slots(int32_t blocks, int32_t slot_rows) {
  const int32_t each = slot_rows < 24 ? 16 : 2 * 192 / slot_rows;
  return blocks * each;
}

// What there is besides with BATCH_INVARIANT, behind the arrivals.
struct PartTable {
  UnitPart* units;     // [most_units]
  int32_t* arrivals;   // [slots]: at the first part's, how many parts are finished
  int32_t* nonfinite;  // [slots]: that the part is finished in the careful pass
};
DM_HD inline PartTable part_table(const Schedule& s, int32_t slots) {
  UnitPart* const units = reinterpret_cast<UnitPart*>(s.arrivals + s.groups * s.lanes);
  int32_t* const arrivals = reinterpret_cast<int32_t*>(units + s.most_units);
  return {units, arrivals, arrivals + slots};
}
constexpr int64_t part_table_size(int64_t most_units, int64_t slots) {
  return (most_units * int64_t{sizeof(UnitPart)} + 2 * slots * int64_t{sizeof(int32_t)} + 15) / 16 * 4;
}

// In floats, a multiple of 4.
constexpr int64_t schedule_size(int64_t blocks, int64_t most_units, int64_t most_waves) {
  const int64_t bytes = most_waves * (blocks + 1) * sizeof(Cut) + most_units * sizeof(Unit) +
                        (most_units + 1) * sizeof(int64_t) + blocks * sizeof(int32_t);
  return (bytes + 15) / 16 * 4;
}

inline Schedule schedule_at(float* memory, int32_t groups, int32_t lanes, int32_t most_units, int32_t most_waves,
                            int32_t slot_rows) {
  Schedule s{};
  s.cuts = reinterpret_cast<Cut*>(memory);
  s.units = reinterpret_cast<Unit*>(s.cuts + most_waves * (groups + 1));
  s.costs = reinterpret_cast<int64_t*>(s.units + most_units);
  s.arrivals = reinterpret_cast<int32_t*>(s.costs + most_units + 1);
  s.most_units = most_units;
  s.most_waves = most_waves;
  s.groups = groups;
  s.lanes = lanes;
  s.slot_rows = slot_rows;
  return s;
}

}  // namespace gpu
}  // namespace attention
}  // namespace dimorph
