// The sm80 family's kernel: attention for one element type, one pair of head dims and one variant, with mma.sync,
// ldmatrix and cp.async. It also runs on newer GPUs.
#include <dimorph/attention/variants.h>

#include "../gpu/contract.h"
#include "../gpu/epilogue.h"
#include "../gpu/nonfinite.h"
#include "../gpu/softmax.h"
#include "../gpu/work_tile.h"
#include "mainloop.h"
#include "scheduler.h"

namespace DIMORPH_CASE {

extern "C" __global__ void __launch_bounds__(kConfig.threads(), kConfig.blocks_per_sm)
    attention_forward(const __grid_constant__ Params params) {
  extern __shared__ __align__(16) unsigned char shared[];
  WorkTile work;
  if (!find_work_tile(params, blockIdx.x, work)) return;
  Variant variant = dm::hooks::make<Variant>(params, work.batch);
  OnlineSoftmax softmax;
  OutputFragment out;
  // Twice if the output is not finite the first time (nonfinite.h).
  bool careful = false;
  for (;;) {
    mainloop(params, work, variant, softmax, out, shared, careful);
    const bool again = __syncthreads_or(!all_finite(out)) && !careful;
    if (!again) break;
    careful = true;
  }
  const int warp_row = work.first_row + threadIdx.x / 32 * kConfig.warp_rows();
  if (params.splits > 1)
    store_partial(params, work, softmax, out, warp_row);
  else
    store_through_shared(params, work, variant, softmax, out, warp_row, shared);
}

}  // namespace DIMORPH_CASE
