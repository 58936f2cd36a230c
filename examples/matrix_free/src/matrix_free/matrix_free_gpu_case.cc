// The case for the GPU, on the host: launches the kernels of matrix_free.cu.
#include <dimorph/cuda.h>

#include "apply_params.h"

namespace DIMORPH_CASE {

void apply(ConstTensor maps, ConstTensor starts, View<const int32_t, 2> chunks, ConstTensor, ConstTensor x, Tensor y,
           Extra extra) noexcept {
  ApplyParams params{};
  if (!extra.fill(params)) return;
  params.maps = maps.data<DType>();
  params.starts = starts.data<int32_t>();
  params.x = x.data<DType>();
  params.y = y.data<DType>();
  params.unknowns = x.size(0);
  params.first_shared = chunks(0, 2);
  params.elements = static_cast<int32_t>(maps.size(0));
  dimorph::cuda::Config clear, config;
  clear.grid.x = 1024;
  clear.block.x = 256;
  DIMORPH_LAUNCH(clear_shared, x.device(), clear, params);
  config.grid.x = static_cast<unsigned>((params.elements + ELEMENTS - 1) / ELEMENTS);
  config.block.x = kThreads;
  config.shared_bytes = ELEMENTS * kCubes * kCube * sizeof(DType);
  DIMORPH_LAUNCH(apply_to_elements, x.device(), config, params);
}

}  // namespace DIMORPH_CASE
