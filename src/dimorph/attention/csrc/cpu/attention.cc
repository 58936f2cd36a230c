// The entry of attention on the CPU: checks the arguments, describes them as a Problem, and calls the case for their
// values.
#include <dimorph/entry.h>

#include "../describe.h"
#include "../problem.h"
#include "attention_config.h"
#include "kinds.h"

using dimorph::ConstTensor;
using dimorph::Extra;
using dimorph::Optional;
using dimorph::Str;
using dimorph::Tensor;
using dimorph::attention::KvDtype;
using dimorph::attention::Problem;
using dimorph::attention::tokens_of;

// out[b, i, h] = sum over j of weight[b, h, i, j] * v[b, j, h / group], with group = query heads / KV heads.
//
// Arguments (shapes: problem.h)
//   scale  factor of the logits, for variants with softmax
//   variant   name of the variant that defines the weights; `extra` carries its parameters
//   lse       receives the natural log-sum-exp of the logits, if given
//   cu_seqlens_q, cu_seqlens_k  int32 [batch + 1], if tensors are ragged: where each sequence begins, then the number
//   of tokens
//   few_queries  single rows or blocks of queries; the caller chooses
//   others    the caller computes the other sequences, too, by another call
//
// Returns true, and does nothing, if ragged sequences are left for the other value of few_queries (kinds.h) and not
// `others`: so that the caller may find the kernels for both before anything is written.
bool attention(ConstTensor q, ConstTensor k, ConstTensor v, Tensor out, float scale, Str variant, Optional<Tensor> lse,
               Optional<ConstTensor> cu_seqlens_q, Optional<ConstTensor> cu_seqlens_k, bool few_queries, bool others,
               Extra extra) {
  DIMORPH_CHECK(q.device().device_type == kDLCPU, "attention: argument 'q': expected a tensor on the CPU");
  Problem problem = dimorph::attention::describe(q, k, v, out, lse, cu_seqlens_q, cu_seqlens_k, scale, {}, {});
  problem.few_queries = few_queries;
  if (!others && dimorph::attention::leaves_queries(problem)) return true;
  DISPATCH_dtype(
      q.dtype(), DType,
      DISPATCH_head_dims(
          q.size(-1), v.size(-1), HEAD_DIM_QK, HEAD_DIM_VO,
          DISPATCH_kv_dtype(
              KvDtype::as_q, KV_DTYPE,
              DISPATCH_few_queries(few_queries, FEW_QUERIES,
                                   DISPATCH_paged(false, PAGED,
                                                  DISPATCH_variant(variant, ATTENTION_VARIANT,
                                                                   DIMORPH_CALL(attention)(
                                                                       problem, tokens_of(problem, q, k), extra)))))));
  return false;
}
DIMORPH_EXPORT(attention)
