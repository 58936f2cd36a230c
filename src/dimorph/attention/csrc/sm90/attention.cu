// The sm90 family's kernel: attention for one element type, one pair of head dims and one variant, with TMA and wgmma,
// which GPUs of compute capability 9.0 have. Persistent thread blocks, in which two warps load and warpgroups compute.
#include <dimorph/device.h>

#include "../gpu/contract.h"
#include "barriers.h"
#include "consumer.h"
#include "pipeline.h"
#include "producer.h"

namespace DIMORPH_CASE {

extern "C" __global__ void __launch_bounds__(kConfig.threads(), kConfig.launch_blocks())
    attention_forward(const __grid_constant__ Params params) {
  extern __shared__ __align__(1024) unsigned char shared[];
  PipelineStorage& pipeline = *reinterpret_cast<PipelineStorage*>(shared + kConfig.pipeline_offset());
  if (threadIdx.x == 0) init_pipeline(pipeline);
  if constexpr (kOverlapsLaunches) {
    dimorph::cuda::let_next_start();
    dimorph::cuda::wait_for_previous();
  }
  __syncthreads();
  // One pass over all work tiles, and a careful one if an output was not finite (nonfinite.h).
  if (threadIdx.x < 128) {
    warpgroup_reg_dealloc<kConfig.producer_registers()>();
    if (threadIdx.x >= kProducerThreads) return;
    Producer producer(params, shared, pipeline);
    for (int careful = 0; careful < 2; ++careful) {
      producer.run();
      named_barrier_sync(kPassDone, kConsumerThreads + kProducerThreads);
      if (!atomicOr(&pipeline.nonfinite, 0)) return;
    }
  } else {
    warpgroup_reg_alloc<kConfig.consumer_registers()>();
    Consumer consumer(params, shared, pipeline);
    for (int careful = 0; careful < 2; ++careful) {
      consumer.run(careful != 0);
      named_barrier_sync(kPassDone, kConsumerThreads + kProducerThreads);
      if (!atomicOr(&pipeline.nonfinite, 0)) return;
    }
  }
}

}  // namespace DIMORPH_CASE
