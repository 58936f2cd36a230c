// The entry of append on the CPU: checks the arguments, finds the place of each token in the cache, and calls the case,
// which copies.
#include "../describe_append.h"

#include <vector>

#include "append_config.h"

using dimorph::ConstTensor;
using dimorph::Optional;
using dimorph::Tensor;
using dimorph::attention::Append;
using dimorph::attention::Cache;
using dimorph::attention::Layout;
using dimorph::attention::Problem;
namespace at = dimorph::attention;

// Writes token i of k and v to its position in a cache, which has the arguments of Cache (cache.h). A cache in 8 bits
// receives k / k_scale and v / v_scale, as float8_formats.h rounds them.
//
// Arguments
//   k, v        [batch, n, heads, head dim] or, ragged by cu_seqlens_new, [tokens, heads, head dim]
//   positions   int32 [batch, n] or [tokens]
void append(Tensor k_cache, Tensor v_cache, ConstTensor k, ConstTensor v, ConstTensor positions,
            Optional<ConstTensor> cu_seqlens_new, Optional<ConstTensor> cu_seqlens, Optional<ConstTensor> seqlens,
            Optional<ConstTensor> block_table, Optional<ConstTensor> indptr, Optional<ConstTensor> indices,
            Optional<ConstTensor> last_page_len, Optional<ConstTensor> k_scale, Optional<ConstTensor> v_scale,
            float k_scale_value, float v_scale_value, bool heads_first) {
  const dimorph::Device device = k_cache.device();
  DIMORPH_CHECK(device.device_type == kDLCPU, "append: argument 'cache': expected arrays on the CPU");
  const Cache cache{bool(cu_seqlens),
                    heads_first,
                    {},
                    seqlens,
                    block_table,
                    indptr,
                    indices,
                    last_page_len,
                    {k_scale, k_scale_value},
                    {v_scale, v_scale_value}};
  const at::AppendArguments given{k_cache, v_cache, k, v, positions, cu_seqlens_new, cu_seqlens, cache};
  const Problem problem = at::describe_append(given);
  const Layout into = cache.layout(), rows = given.rows();
  const int32_t* const starts = given.starts();

  const at::Strides k_into = into.strides(k_cache), v_into = into.strides(v_cache);
  const int64_t length = rows.ragged ? 0 : k.size(1), tokens = starts ? starts[problem.batch_size] : k.size(0) * length;
  std::vector<int64_t> offsets(2 * tokens);
  for (int32_t b = 0; b < problem.batch_size; ++b) {
    const int64_t first = starts ? starts[b] : b * length, last = starts ? starts[b + 1] : first + length;
    for (int64_t i = first; i < last; ++i) {
      const int32_t position = positions.data<int32_t>()[i];
      if (position < 0) {
        offsets[i] = at::kPadding;
        continue;
      }
      const at::Place place = at::find_place(problem, b, i - first, position);
      offsets[i] = place.batch * k_into.batch + place.row * k_into.row;
      offsets[tokens + i] = place.batch * v_into.batch + place.row * v_into.row;
    }
  }
  at::KvScale factors[2]{};
  if (at::kv_dtype(k_cache.dtype()) != at::KvDtype::as_q) {
    factors[0] = at::describe_scale(cache.k_scale, "k_scale", device, k.size(rows.head));
    factors[1] = at::describe_scale(cache.v_scale, "v_scale", device, k.size(rows.head));
  }
  const Append call{k.data(),
                    v.data(),
                    k_cache.data(),
                    v_cache.data(),
                    rows.strides(k),
                    rows.strides(v),
                    k_into.head,
                    v_into.head,
                    offsets.data(),
                    offsets.data() + tokens,
                    tokens,
                    rows.ragged ? tokens : length,
                    static_cast<int32_t>(k.size(rows.head)),
                    static_cast<int32_t>(k.size(-1)),
                    static_cast<int32_t>(v.size(-1)),
                    factors[0],
                    factors[1]};
  DISPATCH_dtype(k.dtype(), DType,
                 DISPATCH_kv_dtype(at::kv_dtype(k_cache.dtype()), KV_DTYPE, DIMORPH_CALL(append)(call)));
}
DIMORPH_EXPORT(append)
