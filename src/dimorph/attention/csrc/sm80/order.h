// In which order the sm80 family's thread blocks take tiles of queries: what the host decides and forward.h follows.
#pragma once
#include <dimorph/ints.h>

#include "../gpu/work.h"
#include "config.h"

namespace dimorph {
namespace attention {
namespace sm80 {

// Under a causal mask the last queries see the most keys. So long tiles come first, of a group of heads that take
// turns: with one head after the other, multiprocessors that got a long tile at the end would keep the others waiting.
struct Order {
  int32_t units;  // packs of heads of all sequences
  int32_t group;  // so many take turns: twice as many as work at once, whose keys the second-level cache holds
};

constexpr Order order(const Config& c, const gpu::Work& work, int batch_size, int multiprocessors) {
  const int units = batch_size * work.packs, group = 2 * multiprocessors * c.blocks / (work.tiles * work.splits);
  return {units, group < 1 ? 1 : group < units ? group : units};
}

}  // namespace sm80
}  // namespace attention
}  // namespace dimorph
