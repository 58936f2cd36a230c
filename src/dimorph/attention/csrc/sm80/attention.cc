// The entry of attention for the sm80 family: checks the arguments, describes them as a Problem and a Launch, and calls
// the case for their values.
#include <dimorph/entry.h>

#include "../gpu/entry.h"
#include "attention_sm80_config.h"
#include "copy_strides.h"

using dimorph::Str;
using dimorph::attention::KvDtype;
namespace gpu = dimorph::attention::gpu;
namespace sm80 = dimorph::attention::sm80;

// Arguments and result are those of the CPU's entry (cpu/attention.cc), and besides:
//   workspace     float32, contiguous, aligned to 8 bytes. Without one, or with one that is too small for it, keys are
//                 not split among thread blocks.
//   max_seqlen_*  longest sequence of ragged tensors; without it, room is made for one of all tokens.
void attention(ConstTensor q, ConstTensor k, ConstTensor v, Tensor out, float scale, Str variant, Optional<Tensor> lse,
               Optional<Tensor> workspace, Optional<ConstTensor> cu_seqlens_q, Optional<ConstTensor> cu_seqlens_k,
               Optional<int64_t> max_seqlen_q, Optional<int64_t> max_seqlen_k, Extra extra) {
  const gpu::Call call = gpu::describe_call(q, k, v, out, scale, lse, workspace, cu_seqlens_q, cu_seqlens_k,
                                            max_seqlen_q, max_seqlen_k, sm80::layout_error);
  DISPATCH_dtype(
      q.dtype(), DType,
      DISPATCH_head_dims(
          q.size(-1), v.size(-1), HEAD_DIM_QK, HEAD_DIM_VO,
          DISPATCH_kv_dtype(
              KvDtype::as_q, KV_DTYPE,
              DISPATCH_few_rows(
                  false, FEW_ROWS,
                  DISPATCH_paged(false, PAGED,
                                 DISPATCH_variant(variant, ATTENTION_VARIANT,
                                                  DIMORPH_CALL(attention)(call.problem, call.launch, extra)))))));
}
DIMORPH_EXPORT(attention)
