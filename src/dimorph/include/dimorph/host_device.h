// Marks for functions and loops in headers that host code and device code share: the same for GCC, clang and NVRTC.
#pragma once

#if defined(__CUDACC__)  // NVRTC defines it too
#define DM_HD __host__ __device__
#define DM_INLINE __forceinline__
#else
#define DM_HD
#define DM_INLINE inline __attribute__((always_inline))
#endif

// In front of a loop: unrolls it, where its number of rounds is a constant. GCC takes at most 16 rounds.
#if defined(__CUDACC__) || defined(__clang__)
#define DM_UNROLL _Pragma("unroll")
#else
#define DM_UNROLL _Pragma("GCC unroll 16")
#endif
