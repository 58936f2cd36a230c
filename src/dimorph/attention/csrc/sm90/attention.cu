// The sm90 family's device code: attention for one element type, one pair of head dims and one variant, with the copy
// engine (TMA) and the matrix instructions of warpgroups (wgmma), which GPUs of 9.0 have.
#include "../gpu/contract.h"
#include "barriers.h"
#include "copy.h"
#include "forward.h"
#include "ring.h"

namespace DIMORPH_CASE {

extern "C" __global__ void __launch_bounds__(kConfig.threads(), 1)
    attention_forward(const __grid_constant__ Params params) {
  extern __shared__ __align__(1024) unsigned char shared[];
  Signals& signals = *reinterpret_cast<Signals*>(shared + kConfig.signals_at());
  if (threadIdx.x == 0) init_signals(signals);
  __syncthreads();
  // All blocks of work; once more, carefully, if one left an output that is not finite.
  if (threadIdx.x < 128) {
    give_registers<kConfig.copy_registers()>();
    if (threadIdx.x >= 32) return;
    Copier copier(params, shared, signals);
    for (int careful = 0; careful < 2; ++careful) {
      copier.copy_all();
      meet(kAll, kComputeThreads + 32);
      if (!atomicOr(&signals.again, 0)) return;
    }
  } else {
    take_registers<kConfig.compute_registers()>();
    Computer computer(params, shared, signals);
    for (int careful = 0; careful < 2; ++careful) {
      computer.compute_all(careful != 0);
      meet(kAll, kComputeThreads + 32);
      if (!atomicOr(&signals.again, 0)) return;
    }
  }
}

}  // namespace DIMORPH_CASE
