// The entry of attention for the sm90 family with a cache: keys may lie in pages, sequences have lengths apart from
// their room, and thread blocks follow a schedule, which `plan` makes on the GPU.
#include <dimorph/entry.h>

#include "../../cache.h"
#include "../../gpu/entry.h"
#include "../tensor_maps.h"
#include "attention_sm90_config.h"

using dimorph::Str;
using dimorph::attention::Cache;
namespace gpu = dimorph::attention::gpu;
namespace sm90 = dimorph::attention::sm90;

// Makes the schedule of a problem in the workspace, for calls of attention with other q, k, v and parameters, but the
// same shape of q and the same lengths.
void plan(ConstTensor q, ConstTensor k, ConstTensor v, Str variant, Optional<ConstTensor> cu_seqlens_q,
          Optional<ConstTensor> seqlens_q, Optional<ConstTensor> cu_seqlens, Optional<ConstTensor> seqlens,
          Optional<ConstTensor> block_table, Optional<ConstTensor> indptr, Optional<ConstTensor> indices,
          Optional<ConstTensor> last_page_len, bool heads_first, Optional<Tensor> workspace,
          Optional<int64_t> max_seqlen_q, Optional<int64_t> max_seqlen_k, bool few_queries, Extra extra) {
  const Cache cache{bool(cu_seqlens), heads_first, seqlens_q, seqlens, block_table, indptr, indices, last_page_len};
  const gpu::Call call = gpu::describe_call(q, k, v, {}, 1, {}, workspace, cu_seqlens_q, cu_seqlens, max_seqlen_q,
                                            max_seqlen_k, sm90::layout_error, &cache);
  DISPATCH_dtype(q.dtype(), DType,
                 DISPATCH_head_dims(
                     q.size(-1), v.size(-1), HEAD_DIM_QK, HEAD_DIM_VO,
                     DISPATCH_paged(true, PAGED,
                                    DISPATCH_in_pages(
                                        cache.paged(), IN_PAGES,
                                        DISPATCH_few_queries(
                                            few_queries, FEW_QUERIES,
                                            DISPATCH_variant(variant, ATTENTION_VARIANT,
                                                             DIMORPH_CALL(plan)(call.problem, call.launch, extra)))))));
}
DIMORPH_EXPORT(plan)

// Arguments and result are those of attention.cc, and besides those of Cache (cache.h), which are not read here: the
// caller guarantees lengths that fit their room, and pages that exist.
//   workspace  as large as gpu/schedule_size.h says
//   few_queries  no sequence has more than 64 rows of queries and heads that share a KV head
//   planned    it holds the schedule that `plan` has made; otherwise one is made first
void attention(ConstTensor q, ConstTensor k, ConstTensor v, Tensor out, float scale, Str variant, Optional<Tensor> lse,
               Optional<ConstTensor> cu_seqlens_q, Optional<ConstTensor> seqlens_q, Optional<ConstTensor> cu_seqlens,
               Optional<ConstTensor> seqlens, Optional<ConstTensor> block_table, Optional<ConstTensor> indptr,
               Optional<ConstTensor> indices, Optional<ConstTensor> last_page_len, bool heads_first,
               Optional<Tensor> workspace, Optional<int64_t> max_seqlen_q, Optional<int64_t> max_seqlen_k,
               bool few_queries, bool planned, Extra extra) {
  const Cache cache{bool(cu_seqlens), heads_first, seqlens_q, seqlens, block_table, indptr, indices, last_page_len};
  const gpu::Call call = gpu::describe_call(q, k, v, out, scale, lse, workspace, cu_seqlens_q, cu_seqlens, max_seqlen_q,
                                            max_seqlen_k, sm90::layout_error, &cache);
  DISPATCH_dtype(
      q.dtype(), DType,
      DISPATCH_head_dims(
          q.size(-1), v.size(-1), HEAD_DIM_QK, HEAD_DIM_VO,
          DISPATCH_paged(
              true, PAGED,
              DISPATCH_in_pages(cache.paged(), IN_PAGES,
                                DISPATCH_few_queries(few_queries, FEW_QUERIES,
                                                     DISPATCH_variant(variant, ATTENTION_VARIANT,
                                                                      DIMORPH_CALL(attention)(call.problem, call.launch,
                                                                                              planned, extra)))))));
}
DIMORPH_EXPORT(attention)
