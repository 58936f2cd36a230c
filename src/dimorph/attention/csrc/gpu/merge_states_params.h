// What the host and the kernels of merge_states agree on.
#pragma once
#include "../merge_states.h"  // IWYU pragma: export

namespace dimorph {
namespace attention {
namespace gpu {

constexpr int kMergeStatesThreads = 128;

}  // namespace gpu
}  // namespace attention
}  // namespace dimorph
