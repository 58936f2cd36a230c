// Head dims that are no multiple of 16.
#pragma once
#include <dimorph/attention/host_device.h>

namespace dimorph {
namespace attention {
namespace gpu {

// The head dim in shared memory and registers: matrix instructions take 16 elements at a time. In global memory rows
// have the head dim as it is, a multiple of 8, and neither loads nor stores touch what lies between them.
DM_HD constexpr int padded(int dim) { return (dim + 15) / 16 * 16; }

}  // namespace gpu
}  // namespace attention
}  // namespace dimorph
