// The case of append: copies rows of one element type, or rounds them to the cache's elements of 8 bits.
#include <dimorph/case.h>
#include <dimorph/parallel.h>

#include "../append.h"
#include "../float8_formats.h"
#include "../kv_dtype.h"
#include "append_config.h"

namespace DIMORPH_CASE {

using dimorph::attention::KvDtype;
using DTypeKV = dimorph::attention::KvElement<KV_DTYPE, DType>::type;

static void store(DTypeKV* to, const DType* from, int count, [[maybe_unused]] float scale) {
  if constexpr (KV_DTYPE == KvDtype::as_q) {
    __builtin_memcpy(to, from, count * sizeof(DType));
  } else {
    for (int i = 0; i < count; ++i)
      to[i] = dimorph::attention::from_float<DTypeKV>(static_cast<float>(from[i]) / scale);
  }
}

void append(dimorph::attention::Append call) noexcept {
  // So many tokens are a thread's work of some ten microseconds.
  const int64_t grain =
      1 + 256 * 1024 / (1 + call.heads * (call.head_dim_qk + call.head_dim_vo) * int64_t{sizeof(DType)});
  const auto copy = [&](const void* from, const dimorph::attention::Strides& strides, void* to, int64_t offset,
                        int64_t head_stride, int head_dim, const dimorph::attention::KvScale& scale, int64_t token) {
    const DType* row =
        static_cast<const DType*>(from) + token / call.rows * strides.batch + token % call.rows * strides.row;
    DTypeKV* place = static_cast<DTypeKV*>(to) + offset;
    for (int h = 0; h < call.heads; ++h)
      store(place + h * head_stride, row + h * strides.head, head_dim, KV_DTYPE == KvDtype::as_q ? 1.f : scale.of(h));
  };
  dimorph::parallel_for(
      call.tokens,
      [&](int64_t i) {
        if (call.k_offsets[i] == dimorph::attention::kPadding) return;
        copy(call.k, call.k_strides, call.k_cache, call.k_offsets[i], call.k_head, call.head_dim_qk, call.k_scale, i);
        copy(call.v, call.v_strides, call.v_cache, call.v_offsets[i], call.v_head, call.head_dim_vo, call.v_scale, i);
      },
      grain);
}

}  // namespace DIMORPH_CASE
