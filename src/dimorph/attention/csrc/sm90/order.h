// In which order the sm90 family takes blocks of work: what the host decides and the kernel's scheduler.h follows.
#pragma once
#include <dimorph/ints.h>

#include "../gpu/plan.h"
#include "../gpu/work.h"
#include "../problem.h"
#include "config.h"

namespace dimorph {
namespace attention {
namespace sm90 {

// Under a causal mask the last queries see the most keys, so a long tile of queries goes with a short one: pairs of
// them take equally long, whatever variant it is where others do. A group's units take turns: first the most unequal
// pairs of all, so that those left for the end, which are divided, have halves that are alike. Where a unit's tiles are
// odd in number the one in the middle goes with that of the next unit, after all other pairs.
struct Order {
  int32_t units;  // packs of heads of all sequences, times the parts of their keys
  int32_t group;  // units whose keys and values the second-level cache holds together
  int32_t pairs;  // of tiles, of all units
};

constexpr Order order(const Config& c, const Problem& p, const gpu::Work& work) {
  constexpr int64_t kCacheBytes = 12 << 20;  // half of what is near a multiprocessor
  const int64_t bytes = 2 * int64_t{p.max_kv_len} * (c.dim_qk + c.dim_vo);
  const int64_t heads = bytes < kCacheBytes ? kCacheBytes / (bytes > 0 ? bytes : 1) : 1;
  const int64_t units = int64_t{p.batch_size} * work.packs * work.splits;
  const int64_t group = heads * (work.sharing / work.pack) * work.splits;
  return {static_cast<int32_t>(units), static_cast<int32_t>(group < units ? group : units),
          static_cast<int32_t>(units * (work.tiles / 2) + (work.tiles % 2 ? gpu::divide_up(units, 2) : 0))};
}

}  // namespace sm90
}  // namespace attention
}  // namespace dimorph
