// The entry of attention for the sm80 family with a cache: keys may lie in pages, and sequences have lengths apart from
// their room. Its case is that of attention.cc, compiled with PAGED.
#include <dimorph/entry.h>

#include "../cache.h"
#include "../gpu/entry.h"
#include "attention_sm80_config.h"
#include "copy_strides.h"

using dimorph::Str;
using dimorph::attention::Cache;
using dimorph::attention::KvDtype;
namespace gpu = dimorph::attention::gpu;
namespace sm80 = dimorph::attention::sm80;

// Checks a problem. This family's thread blocks follow no schedule.
void plan(ConstTensor q, ConstTensor k, ConstTensor v, Str, Optional<ConstTensor> cu_seqlens_q,
          Optional<ConstTensor> seqlens_q, Optional<ConstTensor> cu_seqlens, Optional<ConstTensor> seqlens,
          Optional<ConstTensor> block_table, Optional<ConstTensor> indptr, Optional<ConstTensor> indices,
          Optional<ConstTensor> last_page_len, bool heads_first, Tensor workspace, Optional<int64_t> max_seqlen_q,
          Optional<int64_t> max_seqlen_k, bool, Extra) {
  const Cache cache{bool(cu_seqlens), heads_first, seqlens_q, seqlens, block_table, indptr, indices, last_page_len};
  gpu::describe_call(q, k, v, {}, 1, {}, workspace, cu_seqlens_q, cu_seqlens, max_seqlen_q, max_seqlen_k,
                     sm80::layout_error, &cache);
}
DIMORPH_EXPORT(plan)

// Arguments and result are those of attention.cc, and besides those of Cache (cache.h), which are not read here: the
// caller guarantees lengths that fit their room, and pages that exist.
void attention(ConstTensor q, ConstTensor k, ConstTensor v, Tensor out, float scale, Str variant, Optional<Tensor> lse,
               Optional<ConstTensor> cu_seqlens_q, Optional<ConstTensor> seqlens_q, Optional<ConstTensor> cu_seqlens,
               Optional<ConstTensor> seqlens, Optional<ConstTensor> block_table, Optional<ConstTensor> indptr,
               Optional<ConstTensor> indices, Optional<ConstTensor> last_page_len, bool heads_first,
               Optional<Tensor> workspace, Optional<int64_t> max_seqlen_q, Optional<int64_t> max_seqlen_k, bool, bool,
               Extra extra) {
  const Cache cache{bool(cu_seqlens), heads_first, seqlens_q, seqlens, block_table, indptr, indices, last_page_len};
  const gpu::Call call = gpu::describe_call(q, k, v, out, scale, lse, workspace, cu_seqlens_q, cu_seqlens, max_seqlen_q,
                                            max_seqlen_k, sm80::layout_error, &cache);
  DISPATCH_dtype(
      q.dtype(), DType,
      DISPATCH_head_dims(
          q.size(-1), v.size(-1), HEAD_DIM_QK, HEAD_DIM_VO,
          DISPATCH_kv_dtype(
              KvDtype::as_q, KV_DTYPE,
              DISPATCH_few_rows(
                  false, FEW_ROWS,
                  DISPATCH_paged(true, PAGED,
                                 DISPATCH_variant(variant, ATTENTION_VARIANT,
                                                  DIMORPH_CALL(attention)(call.problem, call.launch, extra)))))));
}
DIMORPH_EXPORT(attention)
