// The entry of attention on the CPU with a cache: keys may lie in pages, and sequences have lengths apart from their
// room. Its case is that of attention.cc, compiled with PAGED.
#include <dimorph/entry.h>

#include "../cache.h"
#include "../describe.h"
#include "../problem.h"
#include "attention_config.h"
#include "kinds.h"

using dimorph::ConstTensor;
using dimorph::Extra;
using dimorph::Optional;
using dimorph::Str;
using dimorph::Tensor;
using dimorph::attention::Cache;
using dimorph::attention::Problem;
using dimorph::attention::Tokens;
using dimorph::attention::tokens_of;

// Arguments and result are those of attention.cc, and besides those of Cache (cache.h).
bool attention(ConstTensor q, ConstTensor k, ConstTensor v, Tensor out, float scale, Str variant, Optional<Tensor> lse,
               Optional<ConstTensor> cu_seqlens_q, Optional<ConstTensor> seqlens_q, Optional<ConstTensor> cu_seqlens,
               Optional<ConstTensor> seqlens, Optional<ConstTensor> block_table, Optional<ConstTensor> indptr,
               Optional<ConstTensor> indices, Optional<ConstTensor> last_page_len, Optional<ConstTensor> k_scale,
               Optional<ConstTensor> v_scale, float k_scale_value, float v_scale_value, bool heads_first,
               bool few_queries, bool others, Extra extra) {
  DIMORPH_CHECK(q.device().device_type == kDLCPU, "attention: argument 'q': expected a tensor on the CPU");
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
  Problem problem = dimorph::attention::describe(q, k, v, out, lse, cu_seqlens_q, cu_seqlens, scale, {}, {}, &cache);
  problem.few_queries = few_queries;
  if (!others && dimorph::attention::leaves_queries(problem)) return true;
  const Tokens tokens = tokens_of(problem, q, k, indices ? indices->size(0) : 0);
  DISPATCH_dtype(
      q.dtype(), DType,
      DISPATCH_head_dims(
          q.size(-1), v.size(-1), HEAD_DIM_QK, HEAD_DIM_VO,
          DISPATCH_kv_dtype(dimorph::attention::kv_dtype(k.dtype()), KV_DTYPE,
                            DISPATCH_few_queries(
                                few_queries, FEW_QUERIES,
                                DISPATCH_paged(true, PAGED,
                                               DISPATCH_variant(variant, ATTENTION_VARIANT,
                                                                DIMORPH_CALL(attention)(problem, tokens, extra)))))));
  return false;
}
DIMORPH_EXPORT(attention)
