// In which order the sm90 family takes work tiles: decided on the host, followed by the tile scheduler (scheduler.h).
#pragma once
#include <dimorph/ints.h>

#include "../../gpu/partition.h"
#include "../../gpu/plan.h"
#include "../../problem.h"
#include "../config.h"

namespace dimorph {
namespace attention {
namespace sm90 {

// Under a causal mask the last query tiles have the most keys. The scheduler hands out pairs of a long tile and a short
// one of the same unit, so that all pairs take equally long; with other variants they do so anyway. Within a group of
// units the most unequal pairs come first. The pairs at the very end, whose two tiles go to different thread blocks,
// then consist of tiles that are about equally long. If a unit has an odd number of tiles, the middle one is paired
// with that of the next unit, after all other pairs.
struct SchedulerParams {
  int32_t units;  // (sequence, pack of heads, split) triples
  int32_t group;  // units whose keys and values fit the L2 cache together
  int32_t pairs;  // of all units
};

constexpr SchedulerParams scheduler_params(const Config& c, const Problem& p, const gpu::Partition& partition) {
  constexpr int64_t kCacheBytes = 12 << 20;  // half of the L2 partition that is near an SM
  const int64_t bytes = 2 * int64_t{p.max_kv_len} * (c.dim_qk + c.dim_vo);
  const int64_t kv_heads = bytes < kCacheBytes ? kCacheBytes / (bytes > 0 ? bytes : 1) : 1;
  const int64_t units = int64_t{p.batch_size} * partition.head_packs * partition.splits;
  const int64_t group = kv_heads * (partition.group_size / partition.packed_heads) * partition.splits;
  const int64_t middle_pairs = partition.query_tiles % 2 ? gpu::divide_up(units, 2) : 0;
  return {static_cast<int32_t>(units), static_cast<int32_t>(group < units ? group : units),
          static_cast<int32_t>(units * (partition.query_tiles / 2) + middle_pairs)};
}

}  // namespace sm90
}  // namespace attention
}  // namespace dimorph
