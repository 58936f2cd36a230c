// The entry of append: checks the arguments, finds the place of each token in the cache, and calls the case, which
// copies.
#define DIMORPH_OPERATION "append"
#include "../append.h"

#include <dimorph/entry.h>

#include <vector>

#include "../cache.h"
#include "../checks.h"
#include "../overlap.h"
#include "append_config.h"

using dimorph::ConstTensor;
using dimorph::Optional;
using dimorph::Tensor;
using dimorph::attention::Append;
using dimorph::attention::Cache;
using dimorph::attention::Layout;
using dimorph::attention::Problem;
namespace at = dimorph::attention;

// The keys that a sequence has room for.
static int64_t room_of(const Problem& problem, int32_t b) {
  const at::PageTable& table = problem.table;
  if (table.starts) return int64_t{table.starts[b + 1] - table.starts[b]} * table.page_size;
  return problem.cu_seqlens_k ? problem.cu_seqlens_k[b + 1] - problem.cu_seqlens_k[b] : problem.max_kv_len;
}

static void check_new(const ConstTensor& tensor, const ConstTensor& into, const char* name, const Layout& layout,
                      const Layout& cache_layout, dimorph::Device device) {
  at::check_layout(tensor, name, layout, device);
  at::check_dtype(tensor, name, into.dtype(), "the dtype of the cache,");
  at::check_size(tensor, name, layout.head, into.size(cache_layout.head), "the heads of the cache");
  at::check_size(tensor, name, layout.ndim() - 1, into.size(-1), "the head dim of the cache");
}

// Writes token i of k and v to its position in a cache, which has the arguments of Cache (cache.h).
//
// Arguments
//   k, v        [batch, n, heads, head dim] or, ragged by cu_seqlens_new, [tokens, heads, head dim]
//   positions   int32 [batch, n] or [tokens]
void append(Tensor k_cache, Tensor v_cache, ConstTensor k, ConstTensor v, ConstTensor positions,
            Optional<ConstTensor> cu_seqlens_new, Optional<ConstTensor> cu_seqlens, Optional<ConstTensor> seqlens,
            Optional<ConstTensor> block_table, Optional<ConstTensor> indptr, Optional<ConstTensor> indices,
            Optional<ConstTensor> last_page_len, bool heads_first) {
  const dimorph::Device device = k_cache.device();
  DIMORPH_CHECK(device.device_type == kDLCPU, "append: argument 'cache': expected arrays on the CPU");
  const Cache cache{bool(cu_seqlens), heads_first, {}, seqlens, block_table, indptr, indices, last_page_len};
  const Layout into = cache.layout(), rows = cu_seqlens_new ? at::kRagged : at::kDense;
  at::check_layout(k_cache, "cache.k", into, device);
  at::check_layout(v_cache, "cache.v", into, device);
  at::check_dtype(v_cache, "cache.v", k_cache.dtype(), "the dtype of 'cache.k',");
  for (int dim = 0; dim < into.ndim() - 1; ++dim)
    at::check_size(v_cache, "cache.v", dim, k_cache.size(dim), "as in 'cache.k'");
  check_new(k, k_cache, "k", rows, into, device);
  check_new(v, v_cache, "v", rows, into, device);
  for (int dim = 0; dim < rows.head; ++dim) at::check_size(v, "v", dim, k.size(dim), "as in 'k'");
  const at::Named caches[] = {{"cache.k", k_cache}, {"cache.v", v_cache}};
  at::check_apart(caches[0], caches[1]);

  Problem problem{};
  const int64_t batch =
      rows.ragged ? (at::check_offsets(*cu_seqlens_new, "cu_seqlens", device), cu_seqlens_new->size(0) - 1) : k.size(0);
  problem.batch_size = static_cast<int32_t>(batch);
  if (cache.paged()) {
    at::describe_table(cache, k_cache, device, problem);
  } else if (into.ragged) {
    problem.cu_seqlens_k = at::check_offsets(*cu_seqlens, "cache.cu_seqlens", device);
    at::check_size(*cu_seqlens, "cache.cu_seqlens", 0, batch + 1, "the batch and 1");
    at::longest_of(problem.cu_seqlens_k, "cache.cu_seqlens", problem.batch_size, k_cache.size(0));
  } else {
    at::check_size(k_cache, "cache.k", 0, batch, "the batch");
    problem.max_kv_len = static_cast<int32_t>(k_cache.size(into.row));
  }
  const int32_t* const starts = rows.ragged ? cu_seqlens_new->data<int32_t>() : nullptr;
  if (starts) at::longest_of(starts, "cu_seqlens", problem.batch_size, k.size(0));
  at::check_dtype(positions, "positions", dimorph::data_type<int32_t>());
  DIMORPH_CHECK(positions.ndim() == rows.row + 1 && positions.contiguous(),
                "append: argument 'positions': expected a contiguous tensor %s, got %d dimensions",
                rows.ragged ? "[tokens]" : "[batch, n]", positions.ndim());
  for (int dim = 0; dim <= rows.row; ++dim) at::check_size(positions, "positions", dim, k.size(dim), "as in 'k'");
  for (const at::Named& written : caches) {
    for (const at::Named& read : {at::Named{"k", k}, at::Named{"v", v}, at::Named{"positions", positions}})
      at::check_apart(written, read);
    cache.for_each([&](const char* name, const Optional<ConstTensor>& tensor) {
      if (tensor) at::check_apart(written, {name, *tensor});
    });
  }

  const at::Strides k_into = into.strides(k_cache), v_into = into.strides(v_cache);
  const int64_t length = rows.ragged ? 0 : k.size(1), tokens = starts ? starts[batch] : batch * length;
  std::vector<int64_t> offsets(2 * tokens);
  const at::PageTable& table = problem.table;
  for (int32_t b = 0; b < problem.batch_size; ++b) {
    const int64_t first = starts ? starts[b] : b * length, last = starts ? starts[b + 1] : first + length;
    const int64_t room = room_of(problem, b);
    for (int64_t i = first; i < last; ++i) {
      const int32_t at = positions.data<int32_t>()[i];
      DIMORPH_CHECK(at >= 0 && at < room,
                    "append: argument 'positions': expected a position from 0 to %lld for token %lld of sequence %d, "
                    "as there is room for, got %d",
                    static_cast<long long>(room - 1), static_cast<long long>(i - first), b, at);
      int64_t batch_index = b, row = at;
      if (table.pages) {
        const int32_t page = at / table.page_size;
        batch_index = table.pages[(table.starts ? table.starts[b] : b * table.stride) + page];
        row = at - int64_t{page} * table.page_size;
        DIMORPH_CHECK(batch_index >= 0 && batch_index < k_cache.size(0),
                      "append: argument '%s': expected a page from 0 to %lld as number %d of sequence %d, got %lld",
                      block_table ? "block_table" : "indices", static_cast<long long>(k_cache.size(0) - 1), page, b,
                      static_cast<long long>(batch_index));
      } else if (into.ragged) {
        row += problem.cu_seqlens_k[b];
      }
      offsets[i] = batch_index * k_into.batch + row * k_into.row;
      offsets[tokens + i] = batch_index * v_into.batch + row * v_into.row;
    }
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
                    static_cast<int32_t>(v.size(-1))};
  DISPATCH_dtype(k.dtype(), DType, DIMORPH_CALL(append)(call));
}
DIMORPH_EXPORT(append)
