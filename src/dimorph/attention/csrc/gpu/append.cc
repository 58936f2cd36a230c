// The entry of append on a GPU: checks the arguments and describes what to copy. It reads no position, length or table.
#include "../describe_append.h"

#include "append_gpu_config.h"
#include "append_params.h"

using dimorph::ConstTensor;
using dimorph::Optional;
using dimorph::Tensor;
using dimorph::attention::Cache;
using dimorph::attention::Layout;
using dimorph::attention::Problem;
using dimorph::attention::Strides;
namespace at = dimorph::attention;
namespace gpu = dimorph::attention::gpu;

// Whether each head of each row begins at a multiple of `width` elements, and has a multiple of them.
static bool aligned(const ConstTensor& tensor, const Layout& layout, int64_t width) {
  const Strides strides = layout.strides(tensor);
  const auto fits = [&](int64_t size, int64_t stride) { return size <= 1 || stride % width == 0; };
  return reinterpret_cast<uint64_t>(tensor.data()) % (width * tensor.dtype().bits / 8) == 0 &&
         tensor.size(-1) % width == 0 && (layout.ragged || fits(tensor.size(0), strides.batch)) &&
         fits(tensor.size(layout.row), strides.row) && fits(tensor.size(layout.head), strides.head);
}

// Writes token i of k and v to its position in a cache. The arguments are those of cpu/append.cc. The caller guarantees
// positions within the room of their sequence, pages of the pool, and factors in arrays.
void append(Tensor k_cache, Tensor v_cache, ConstTensor k, ConstTensor v, ConstTensor positions,
            Optional<ConstTensor> cu_seqlens_new, Optional<ConstTensor> cu_seqlens, Optional<ConstTensor> seqlens,
            Optional<ConstTensor> block_table, Optional<ConstTensor> indptr, Optional<ConstTensor> indices,
            Optional<ConstTensor> last_page_len, Optional<ConstTensor> k_scale, Optional<ConstTensor> v_scale,
            float k_scale_value, float v_scale_value, bool heads_first) {
  const dimorph::Device device = k_cache.device();
  DIMORPH_CHECK(device.device_type == kDLCUDA, "append: argument 'cache': expected arrays on a GPU");
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
  const int64_t tokens = positions.numel();
  DIMORPH_CHECK(tokens <= dm::kMaxLength, "append: argument 'positions': expected at most %d positions, got %lld",
                dm::kMaxLength, static_cast<long long>(tokens));

  if (tokens == 0) return;

  const int64_t chunk = 8 * gpu::kAppendBytes / k.dtype().bits, heads = k.size(rows.head);
  const bool wide = aligned(k, rows, chunk) && aligned(v, rows, chunk) && aligned(k_cache, into, chunk) &&
                    aligned(v_cache, into, chunk);
  const int64_t width = wide ? chunk : 1;
  const at::KvDtype stored = at::kv_dtype(k_cache.dtype());
  gpu::AppendParams params{};
  const ConstTensor news[] = {k, v};
  const Tensor caches[] = {k_cache, v_cache};
  const at::GivenScale scales[] = {cache.k_scale, cache.v_scale};
  for (int i = 0; i < 2; ++i) {
    const int64_t elements = news[i].size(-1) * heads, head_chunks = news[i].size(-1) / width;
    DIMORPH_CHECK(elements <= at::kMostSize, "append: argument '%s': expected at most %lld elements a token, got %lld",
                  i ? "v" : "k", static_cast<long long>(at::kMostSize), static_cast<long long>(elements));
    params.arrays[i] = {news[i].data(),
                        caches[i].data(),
                        rows.strides(news[i]),
                        into.strides(caches[i]),
                        static_cast<int32_t>(elements / width),
                        static_cast<int32_t>(head_chunks),
                        gpu::divisor(head_chunks ? head_chunks : 1),
                        {}};
    if (stored != at::KvDtype::as_q)
      params.arrays[i].scale = at::describe_scale(scales[i], i ? "v_scale" : "k_scale", device, heads);
    while (params.lanes_log < 5 && 1 << params.lanes_log < params.arrays[i].chunks) ++params.lanes_log;
  }
  params.positions = positions.data<int32_t>();
  params.starts = given.starts();
  params.rooms = problem.cu_seqlens_k;
  params.table = problem.table;
  params.room = cache.ragged ? k_cache.size(0)
                : indptr     ? indices->size(0) * problem.table.page_size
                             : problem.max_kv_len;
  params.batch_size = problem.batch_size;
  params.tokens = static_cast<int32_t>(tokens);
  params.rows = static_cast<int32_t>(rows.ragged ? tokens : k.size(1));
  params.by_rows = gpu::divisor(params.rows);
  DISPATCH_dtype(k.dtype(), DType, DISPATCH_kv_dtype(stored, KV_DTYPE, DIMORPH_CALL(append)(params, wide, device)));
}
DIMORPH_EXPORT(append)
