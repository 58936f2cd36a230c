// In which order the sm80 family's thread blocks take query tiles: decided on the host, followed by scheduler.h.
#pragma once
#include <dimorph/ints.h>

#include "../gpu/partition.h"
#include "config.h"

namespace dimorph {
namespace attention {
namespace sm80 {

// Thread blocks start in the order of their index. Under a causal mask the last query tiles have the most keys, so they
// come first: a long tile that started last would keep the other SMs waiting. Within a group of heads all last tiles
// come first, then all last but one, and so on.
struct SchedulerParams {
  int32_t all_head_packs;  // packs of heads of all sequences
  int32_t group;           // packs of a group: twice as many as run at once, so that the L2 cache holds their keys
};

constexpr SchedulerParams scheduler_params(const Config& c, const gpu::Partition& partition, int batch_size,
                                           int multiprocessors) {
  const int packs = batch_size * partition.head_packs;
  const int group = 2 * multiprocessors * c.blocks_per_sm / (partition.query_tiles * partition.splits);
  return {packs, group < 1 ? 1 : group < packs ? group : packs};
}

}  // namespace sm80
}  // namespace attention
}  // namespace dimorph
