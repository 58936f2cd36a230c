// DM_HD marks what the host and the device run.
#pragma once

#if defined(__CUDACC__)  // NVRTC defines it too
#define DM_HD __host__ __device__
#else
#define DM_HD
#endif

namespace dm {

// The most queries, and keys, of all sequences: so that sums of a few indices are 32 bits wide.
constexpr int kMaxLength = 1 << 29;

}  // namespace dm
