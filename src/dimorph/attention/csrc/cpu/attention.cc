// The entry of attention on the CPU: checks the arguments, describes them as a Problem, and calls the case for their
// values.
#include <dimorph/entry.h>

#include "../describe.h"
#include "../problem.h"
#include "attention_config.h"

using dimorph::ConstTensor;
using dimorph::Extra;
using dimorph::Optional;
using dimorph::Str;
using dimorph::Tensor;
using dimorph::attention::Problem;

namespace {

constexpr int kFewQueries = 32;  // a sequence, on average

// What `few_queries` in ops.py says too; a call on which they differ is refused. Measured: up to about 40 queries,
// single rows are faster than blocks, with vectors of 16 lanes.
bool few_queries(const ConstTensor& q, const Problem& problem) {
  return problem.cu_seqlens_q ? q.size(0) <= int64_t{kFewQueries} * problem.batch_size : q.size(1) <= kFewQueries;
}

}  // namespace

// out[b, i, h] = the sum over j of weight[b, h, i, j] * v[b, j, h / group]; `variant` names what the weights are and
// Extra carries its parameters. lse, if given, receives the natural log-sum-exp of the logits.
void attention(ConstTensor q, ConstTensor k, ConstTensor v, Tensor out, float sm_scale, Str variant,
               Optional<Tensor> lse, Optional<ConstTensor> cu_seqlens_q, Optional<ConstTensor> cu_seqlens_k,
               Extra extra) {
  DIMORPH_CHECK(q.device().device_type == kDLCPU, "attention: argument 'q': expected a tensor on the CPU");
  const Problem problem = dimorph::attention::describe(q, k, v, out, lse, cu_seqlens_q, cu_seqlens_k, sm_scale, {}, {});
  DISPATCH_dtype(q.dtype(), DType,
                 DISPATCH_head_dims(q.size(-1), v.size(-1), HEAD_DIM_QK, HEAD_DIM_VO,
                                    DISPATCH_few_queries(few_queries(q, problem), FEW_QUERIES,
                                                         DISPATCH_variant(variant, ATTENTION_VARIANT,
                                                                          DIMORPH_CALL(attention)(problem, extra)))));
}
DIMORPH_EXPORT(attention)
