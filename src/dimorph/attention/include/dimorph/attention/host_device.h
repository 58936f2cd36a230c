// DM_HD marks functions that run on the host and on the device.
#pragma once

#if defined(__CUDACC__)  // NVRTC defines it too
#define DM_HD __host__ __device__
#else
#define DM_HD
#endif

namespace dm {

// The most queries, and the most keys, of all sequences together. Sums of a few indices then fit 32 bits.
constexpr int kMaxLength = 1 << 29;

}  // namespace dm
