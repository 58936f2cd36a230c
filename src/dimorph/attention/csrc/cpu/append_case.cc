// The case of append: copies rows of one element type.
#include <dimorph/case.h>
#include <dimorph/parallel.h>

#include "../append.h"
#include "append_config.h"

namespace DIMORPH_CASE {

void append(dimorph::attention::Append call) noexcept {
  // So many tokens are a thread's work of some ten microseconds.
  const int64_t grain =
      1 + 256 * 1024 / (1 + call.heads * (call.head_dim_qk + call.head_dim_vo) * int64_t{sizeof(DType)});
  const auto copy = [&](const void* from, const dimorph::attention::Strides& strides, void* to, int64_t offset,
                        int64_t head_stride, int head_dim, int64_t token) {
    const DType* row =
        static_cast<const DType*>(from) + token / call.rows * strides.batch + token % call.rows * strides.row;
    DType* place = static_cast<DType*>(to) + offset;
    for (int h = 0; h < call.heads; ++h)
      __builtin_memcpy(place + h * head_stride, row + h * strides.head, head_dim * sizeof(DType));
  };
  dimorph::parallel_for(
      call.tokens,
      [&](int64_t i) {
        if (call.k_offsets[i] == dimorph::attention::kPadding) return;
        copy(call.k, call.k_strides, call.k_cache, call.k_offsets[i], call.k_head, call.head_dim_qk, i);
        copy(call.v, call.v_strides, call.v_cache, call.v_offsets[i], call.v_head, call.head_dim_vo, i);
      },
      grain);
}

}  // namespace DIMORPH_CASE
