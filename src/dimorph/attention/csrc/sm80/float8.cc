// The entry of attention for the sm80 family with a cache in 8 bits. Its case is that of attention.cc, compiled with
// PAGED and a KV_DTYPE.
#include <dimorph/entry.h>

#include "../cache.h"
#include "../gpu/entry.h"
#include "attention_sm80_config.h"
#include "copy_strides.h"

using dimorph::Str;
using dimorph::attention::Cache;
namespace gpu = dimorph::attention::gpu;
namespace sm80 = dimorph::attention::sm80;

// Rows are found by 32 bits, in units of 16 bytes.
static void check_span(const ConstTensor& tensor, const char* name) {
  int64_t last = 0;
  for (int dim = 0; dim < tensor.ndim() && tensor.numel(); ++dim) last += (tensor.size(dim) - 1) * tensor.stride(dim);
  DIMORPH_CHECK(
      last < int64_t{1} << 36,
      "attention: argument '%s': expected elements within 64 GiB, got the last one %lld bytes behind the first", name,
      static_cast<long long>(last));
}

static gpu::Call describe_call(const ConstTensor& q, const ConstTensor& k, const ConstTensor& v,
                               const Optional<Tensor>& out, float scale, const Optional<Tensor>& lse,
                               const Optional<Tensor>& workspace, const Optional<ConstTensor>& cu_seqlens_q,
                               const Optional<ConstTensor>& cu_seqlens, const Optional<int64_t>& max_seqlen_q,
                               const Optional<int64_t>& max_seqlen_k, const Cache& cache) {
  const gpu::Call call = gpu::describe_call(q, k, v, out, scale, lse, workspace, cu_seqlens_q, cu_seqlens, max_seqlen_q,
                                            max_seqlen_k, sm80::layout_error_float8, &cache);
  check_span(k, "k");
  check_span(v, "v");
  return call;
}

// Checks a problem, as that of paged.cc.
void plan(ConstTensor q, ConstTensor k, ConstTensor v, Str, Optional<ConstTensor> cu_seqlens_q,
          Optional<ConstTensor> seqlens_q, Optional<ConstTensor> cu_seqlens, Optional<ConstTensor> seqlens,
          Optional<ConstTensor> block_table, Optional<ConstTensor> indptr, Optional<ConstTensor> indices,
          Optional<ConstTensor> last_page_len, Optional<ConstTensor> k_scale, Optional<ConstTensor> v_scale,
          float k_scale_value, float v_scale_value, bool heads_first, Tensor workspace, Optional<int64_t> max_seqlen_q,
          Optional<int64_t> max_seqlen_k, bool, Extra) {
  const Cache cache{bool(cu_seqlens),
                    heads_first,
                    seqlens_q,
                    seqlens,
                    block_table,
                    indptr,
                    indices,
                    last_page_len,
                    {k_scale, k_scale_value},
                    {v_scale, v_scale_value}};
  describe_call(q, k, v, {}, 1, {}, workspace, cu_seqlens_q, cu_seqlens, max_seqlen_q, max_seqlen_k, cache);
}
DIMORPH_EXPORT(plan)

// Arguments and result are those of paged.cc, with the scales of keys and values. `few_rows`: the caller expects the
// queries of a KV head to fit the 16 rows of a warp; more are right, but slow.
void attention(ConstTensor q, ConstTensor k, ConstTensor v, Tensor out, float scale, Str variant, Optional<Tensor> lse,
               Optional<ConstTensor> cu_seqlens_q, Optional<ConstTensor> seqlens_q, Optional<ConstTensor> cu_seqlens,
               Optional<ConstTensor> seqlens, Optional<ConstTensor> block_table, Optional<ConstTensor> indptr,
               Optional<ConstTensor> indices, Optional<ConstTensor> last_page_len, Optional<ConstTensor> k_scale,
               Optional<ConstTensor> v_scale, float k_scale_value, float v_scale_value, bool heads_first,
               Optional<Tensor> workspace, Optional<int64_t> max_seqlen_q, Optional<int64_t> max_seqlen_k,
               bool few_rows, bool, Extra extra) {
  const Cache cache{bool(cu_seqlens),
                    heads_first,
                    seqlens_q,
                    seqlens,
                    block_table,
                    indptr,
                    indices,
                    last_page_len,
                    {k_scale, k_scale_value},
                    {v_scale, v_scale_value}};
  const gpu::Call call =
      describe_call(q, k, v, out, scale, lse, workspace, cu_seqlens_q, cu_seqlens, max_seqlen_q, max_seqlen_k, cache);
  DISPATCH_dtype(
      q.dtype(), DType,
      DISPATCH_head_dims(
          q.size(-1), v.size(-1), HEAD_DIM_QK, HEAD_DIM_VO,
          DISPATCH_kv_dtype(
              dimorph::attention::kv_dtype(k.dtype()), KV_DTYPE,
              DISPATCH_few_rows(
                  few_rows, FEW_ROWS,
                  DISPATCH_paged(true, PAGED,
                                 DISPATCH_variant(variant, ATTENTION_VARIANT,
                                                  DIMORPH_CALL(attention)(call.problem, call.launch, extra)))))));
}
DIMORPH_EXPORT(attention)
