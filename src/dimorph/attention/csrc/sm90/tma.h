// The copy engine: a box of a tensor in memory to shared memory, by one thread, on a barrier. What lies outside the
// tensor comes as zeros and counts as bytes all the same.
#pragma once
#include <dimorph/device.h>
#include <dimorph/ints.h>

#include "../gpu/contract.h"

namespace DIMORPH_CASE {

using dimorph::cuda::TensorMap;

// Keys and values are read again by other blocks.
constexpr uint64_t kKeep = 0x14f0000000000000, kOnce = 0x12f0000000000000;

__device__ __forceinline__ void prefetch_map(const TensorMap& map) {
  asm volatile("prefetch.tensormap [%0];" ::"l"(&map) : "memory");
}
__device__ __forceinline__ void load_box(uint32_t to, const TensorMap& map, uint32_t barrier, uint64_t use, int c0,
                                         int c1, int c2, int c3) {
  asm volatile(
      "cp.async.bulk.tensor.4d.shared::cluster.global.mbarrier::complete_tx::bytes.L2::cache_hint [%0], [%1, {%4, %5, "
      "%6, %7}], [%2], %3;" ::"r"(to),
      "l"(&map), "r"(barrier), "l"(use), "r"(c0), "r"(c1), "r"(c2), "r"(c3)
      : "memory");
}
__device__ __forceinline__ void load_box(uint32_t to, const TensorMap& map, uint32_t barrier, uint64_t use, int c0,
                                         int c1, int c2, int c3, int c4) {
  asm volatile(
      "cp.async.bulk.tensor.5d.shared::cluster.global.mbarrier::complete_tx::bytes.L2::cache_hint [%0], [%1, {%4, %5, "
      "%6, %7, %8}], [%2], %3;" ::"r"(to),
      "l"(&map), "r"(barrier), "l"(use), "r"(c0), "r"(c1), "r"(c2), "r"(c3), "r"(c4)
      : "memory");
}

}  // namespace DIMORPH_CASE
