// The case for the GPU, on the host: launches the kernels of matrix_free.cu.
#include <dimorph/cuda.h>

#include "gpu.h"

namespace DIMORPH_CASE {

void apply(ConstTensor maps, ConstTensor starts, View<const int32_t, 2> chunks, ConstTensor, ConstTensor x, Tensor y,
           Extra extra) noexcept {
  Params params{};
  if (!extra.fill(params)) return;
  const auto elements = static_cast<int32_t>(maps.size(0));
  dimorph::cuda::Config config, clear{{1024}, {256}, {}};
  DIMORPH_LAUNCH(clear_shared, x.device(), clear, y.data<DType>() + chunks(0, 2), y.size(0) - chunks(0, 2));
  config.grid.x = static_cast<unsigned>((elements + ELEMENTS - 1) / ELEMENTS), config.block.x = kThreads;
  config.shared_bytes = kShared;
  DIMORPH_LAUNCH(apply_to_elements, x.device(), config, params, elements, maps.data<DType>(), starts.data<int32_t>(),
                 x.data<DType>(), y.data<DType>());
}

}  // namespace DIMORPH_CASE
