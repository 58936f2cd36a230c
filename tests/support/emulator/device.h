// The CUDA names that device code uses, for compiling it for the emulator. nvcc.py includes this file first, and turns
// inline PTX, shared variables and kernels into the calls declared here.
#pragma once
// Included before __CUDACC__ is defined, so that dimorph's storage types replace CUDA's.
#include <dimorph/dtype.h>
#include <math.h>

#include <utility>

#include "runtime.h"

#define __CUDACC__ 1
#define __CUDA_ARCH__ EMULATED_ARCH
#define __device__
#define __host__
#define __forceinline__ inline
#define __noinline__ __attribute__((noinline))
#define __grid_constant__
#define __align__(bytes) alignas(bytes)

using emulator::blockDim;
using emulator::blockIdx;
using emulator::gridDim;
using emulator::threadIdx;

struct alignas(8) float2 {
  float x, y;
};
struct alignas(8) uint2 {
  uint32_t x, y;
};
struct alignas(16) uint4 {
  unsigned x, y, z, w;
};

namespace emulator {

template <typename T>
struct Shuffled {
  T given, taken;
  int from;
};

// Returns the value that lane `from` passes.
template <typename T>
inline T shuffle(const Site& site, unsigned mask, T value, int from) {
  Shuffled<T> own{value, value, from};
  warp_collective(site, mask, &own, [](void* const* lanes) {
    for (int i = 0; i < 32; ++i) {
      auto& lane = *static_cast<Shuffled<T>*>(lanes[i]);
      lane.taken = static_cast<const Shuffled<T>*>(lanes[lane.from])->given;
    }
  });
  return own.taken;
}

inline unsigned ballot(const Site& site, unsigned mask, bool vote) {
  struct Vote {
    bool given;
    unsigned all;
  } own{vote, 0};
  warp_collective(site, mask, &own, [](void* const* lanes) {
    unsigned all = 0;
    for (int i = 0; i < 32; ++i) all |= static_cast<unsigned>(static_cast<Vote*>(lanes[i])->given) << i;
    for (int i = 0; i < 32; ++i) static_cast<Vote*>(lanes[i])->all = all;
  });
  return own.all;
}

template <typename T, typename PlaceOfDeclaration>
inline T& shared_variable(PlaceOfDeclaration) {
  static const char id = 0;
  return *static_cast<T*>(static_shared(&id, sizeof(T)));
}

template <auto kernel, typename... Params, size_t... index>
inline Kernel described(void (*)(Params...), std::index_sequence<index...>, unsigned max_threads) {
  static constexpr size_t sizes[] = {sizeof(Params)...};
  const auto call = [](void** args) { kernel(*static_cast<const Params*>(args[index])...); };
  return {call, sizes, sizeof...(Params), max_threads};
}
template <typename... Params>
std::index_sequence_for<Params...> places(void (*)(Params...));
// Describes a kernel; the arguments are those of __launch_bounds__.
template <auto kernel>
inline Kernel describe(unsigned max_threads = 1024, unsigned = 1) {
  return described<kernel>(kernel, decltype(places(kernel)){}, max_threads);
}

}  // namespace emulator

#define EMULATED_SITE \
  ::emulator::Site { __func__, file, line }
#define EMULATED_PLACE const char *file = __builtin_FILE(), int line = __builtin_LINE()

template <typename T>
inline T __shfl_sync(unsigned mask, T value, int from, int width = 32, EMULATED_PLACE) {
  const int first = static_cast<int>(threadIdx.x % 32) & ~(width - 1);
  return emulator::shuffle(EMULATED_SITE, mask, value, first + (from & (width - 1)));
}
template <typename T>
inline T __shfl_xor_sync(unsigned mask, T value, int lane_mask, EMULATED_PLACE) {
  return emulator::shuffle(EMULATED_SITE, mask, value, static_cast<int>(threadIdx.x % 32) ^ lane_mask);
}
template <typename T>
inline T __shfl_up_sync(unsigned mask, T value, int distance, EMULATED_PLACE) {
  const int lane = static_cast<int>(threadIdx.x % 32);
  return emulator::shuffle(EMULATED_SITE, mask, value, lane < distance ? lane : lane - distance);
}
inline unsigned __ballot_sync(unsigned mask, bool vote, EMULATED_PLACE) {
  return emulator::ballot(EMULATED_SITE, mask, vote);
}
inline int __any_sync(unsigned mask, bool vote, EMULATED_PLACE) {
  return emulator::ballot(EMULATED_SITE, mask, vote) != 0;
}
inline unsigned __reduce_or_sync(unsigned mask, unsigned value, EMULATED_PLACE) {
  unsigned all = 0;
  for (int bit = 0; bit < 32; ++bit)
    all |= static_cast<unsigned>(emulator::ballot(EMULATED_SITE, mask, value >> bit & 1) != 0) << bit;
  return all;
}
inline unsigned __reduce_add_sync(unsigned mask, unsigned value, EMULATED_PLACE) {
  unsigned sum = 0;
  for (int bit = 0; bit < 32; ++bit)
    sum += static_cast<unsigned>(__builtin_popcount(emulator::ballot(EMULATED_SITE, mask, value >> bit & 1))) << bit;
  return sum;
}
inline void __syncwarp(unsigned mask = ~0u, EMULATED_PLACE) {
  emulator::warp_collective(EMULATED_SITE, mask, nullptr, [](void* const*) {});
}
inline void __syncthreads(EMULATED_PLACE) { emulator::block_barrier(EMULATED_SITE, false); }
inline int __syncthreads_or(int vote, EMULATED_PLACE) { return emulator::block_barrier(EMULATED_SITE, vote != 0); }

inline int atomicOr(int* place, int bits) { return std::exchange(*place, *place | bits); }
inline int atomicMax(int* place, int value) { return std::exchange(*place, *place < value ? value : *place); }
template <typename T>
inline T atomicAdd(T* place, T value) {
  return std::exchange(*place, *place + value);
}

inline void __threadfence() {}
template <typename T>
inline T __ldcg(const T* place) {
  return *place;
}

inline int __ffs(int bits) { return __builtin_ffs(bits); }
inline int __clz(int bits) { return bits == 0 ? 32 : __builtin_clz(static_cast<unsigned>(bits)); }
inline int __popc(unsigned bits) { return __builtin_popcount(bits); }
inline unsigned __umulhi(unsigned a, unsigned b) { return static_cast<unsigned>(uint64_t{a} * b >> 32); }
inline float __fdividef(float a, float b) { return a / b; }
inline float __fadd_rn(float a, float b) { return a + b; }
inline float __fsub_rn(float a, float b) { return a - b; }
inline float __fmul_rn(float a, float b) { return a * b; }
inline float __fmaf_rn(float a, float b, float c) { return __builtin_fmaf(a, b, c); }
inline unsigned __byte_perm(unsigned a, unsigned b, unsigned selector) {
  const uint64_t bytes = uint64_t{b} << 32 | a;
  unsigned result = 0;
  for (int i = 0; i < 4; ++i) result |= static_cast<unsigned>(bytes >> 8 * (selector >> 4 * i & 7) & 0xff) << 8 * i;
  return result;
}
inline int __float_as_int(float value) { return __builtin_bit_cast(int, value); }
inline float __int_as_float(int bits) { return __builtin_bit_cast(float, bits); }
inline size_t __cvta_generic_to_shared(const void* pointer) { return emulator::shared_address(pointer); }
