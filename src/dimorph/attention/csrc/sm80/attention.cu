// The sm80 family's device code: attention for one element type, one pair of head dims and one variant, with mma.sync,
// ldmatrix and cp.async. It also runs on newer GPUs.
#include <dimorph/attention/variants.h>

#include "../gpu/block.h"
#include "../gpu/contract.h"
#include "../gpu/epilogue.h"
#include "../gpu/nonfinite.h"
#include "../gpu/softmax.h"
#include "forward.h"

namespace DIMORPH_CASE {

extern "C" __global__ void __launch_bounds__(kConfig.threads(), kConfig.blocks)
    attention_forward(const __grid_constant__ Params params) {
  extern __shared__ __align__(16) unsigned char shared[];
  Block block;
  if (!find_block(params, blockIdx.x, block)) return;
  Variant variant = dm::hooks::make<Variant>(params, block.batch);
  Softmax rows;
  Output out;
  bool careful = false;
  for (;;) {
    run_block(params, block, variant, rows, out, shared, careful);
    const bool again = __syncthreads_or(!all_finite(out)) && !careful;
    if (!again) break;
    careful = true;
  }
  const int warp_row = block.row0 + threadIdx.x / 32 * kConfig.warp_rows();
  if (params.splits > 1)
    store_partial(params, block, rows, out, warp_row);
  else
    store_by_rows(params, block, variant, rows, out, warp_row, shared);
}

}  // namespace DIMORPH_CASE
