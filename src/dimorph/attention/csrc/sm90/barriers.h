// How warps wait for each other and for TMA, and what orders their accesses to shared memory.
#pragma once
#include <dimorph/ints.h>

#include "../gpu/contract.h"

namespace DIMORPH_CASE {

// An mbarrier, by its address in shared memory. A phase completes when as many threads have arrived as the barrier was
// initialised for, and all bytes that were announced have arrived. A waiter names a phase by its parity.
__device__ __forceinline__ void mbarrier_init(uint32_t barrier, int arrivals) {
  asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(barrier), "r"(arrivals));
}
// Makes initialised mbarriers visible to TMA.
__device__ __forceinline__ void fence_mbarrier_init() {
  asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
}
__device__ __forceinline__ void mbarrier_arrive(uint32_t barrier) {
  asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(barrier) : "memory");
}
// Arrives, and announces bytes that TMA will write.
__device__ __forceinline__ void mbarrier_arrive_expect_tx(uint32_t barrier, int bytes) {
  asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(barrier), "r"(bytes) : "memory");
}
__device__ __forceinline__ void mbarrier_wait(uint32_t barrier, uint32_t parity) {
  asm volatile(
      "{\n"
      ".reg .pred done;\n"
      "again:\n"
      "mbarrier.try_wait.parity.shared::cta.b64 done, [%0], %1;\n"
      "@!done bra again;\n"
      "}" ::"r"(barrier),
      "r"(parity)
      : "memory");
}

// The named barriers of a thread block; number 0 is that of __syncthreads.
enum NamedBarrier : int {
  kMmaTurn = 1,                                         // + consumer: this consumer may issue its products
  kConsumerGroup = kMmaTurn + kConfig.consumer_groups,  // + consumer: the threads of this consumer
  kAllConsumers = kConsumerGroup + kConfig.consumer_groups,
  kPassDone = kAllConsumers + 1,  // producers and consumers have gone through all work tiles
};
// Waits until `threads` threads have come to the barrier, those that only arrive included.
__device__ __forceinline__ void named_barrier_sync(int barrier, int threads) {
  asm volatile("barrier.cta.sync %0, %1;" ::"r"(barrier), "r"(threads) : "memory");
}
__device__ __forceinline__ void named_barrier_arrive(int barrier, int threads) {
  asm volatile("barrier.cta.arrive %0, %1;" ::"r"(barrier), "r"(threads) : "memory");
}

// Makes this thread's writes to shared memory visible to wgmma and TMA (the async proxy).
__device__ __forceinline__ void fence_async_proxy() { asm volatile("fence.proxy.async.shared::cta;" ::: "memory"); }

// Sets the registers of each thread of a warpgroup, to fewer or to more than it has.
template <int kCount>
__device__ __forceinline__ void warpgroup_reg_dealloc() {
  asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(kCount));
}
template <int kCount>
__device__ __forceinline__ void warpgroup_reg_alloc() {
  asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(kCount));
}

}  // namespace DIMORPH_CASE
