// TMA: one thread starts a load of a box of a tensor to shared memory, and an mbarrier counts the bytes. Elements of
// the box outside of the tensor are written as zeros and count as bytes too.
#pragma once
#include <dimorph/device.h>
#include <dimorph/ints.h>

#include "../gpu/contract.h"

namespace DIMORPH_CASE {

using dimorph::cuda::TensorMap;

// L2 cache policies, as createpolicy would encode them. Keys and values are read again by other thread blocks.
constexpr uint64_t kEvictLast = 0x14f0000000000000, kEvictFirst = 0x12f0000000000000;

__device__ __forceinline__ void prefetch_tensor_map(const TensorMap& map) {
  asm volatile("prefetch.tensormap [%0];" ::"l"(&map) : "memory");
}
// c0, c1, ...: where the box begins in the tensor, contiguous dimension first.
__device__ __forceinline__ void tma_load(uint32_t to, const TensorMap& map, uint32_t barrier, uint64_t policy, int c0,
                                         int c1, int c2, int c3) {
  asm volatile(
      "cp.async.bulk.tensor.4d.shared::cluster.global.mbarrier::complete_tx::bytes.L2::cache_hint [%0], [%1, {%4, %5, "
      "%6, %7}], [%2], %3;" ::"r"(to),
      "l"(&map), "r"(barrier), "l"(policy), "r"(c0), "r"(c1), "r"(c2), "r"(c3)
      : "memory");
}
__device__ __forceinline__ void tma_load(uint32_t to, const TensorMap& map, uint32_t barrier, uint64_t policy, int c0,
                                         int c1, int c2, int c3, int c4) {
  asm volatile(
      "cp.async.bulk.tensor.5d.shared::cluster.global.mbarrier::complete_tx::bytes.L2::cache_hint [%0], [%1, {%4, %5, "
      "%6, %7, %8}], [%2], %3;" ::"r"(to),
      "l"(&map), "r"(barrier), "l"(policy), "r"(c0), "r"(c1), "r"(c2), "r"(c3), "r"(c4)
      : "memory");
}

}  // namespace DIMORPH_CASE
