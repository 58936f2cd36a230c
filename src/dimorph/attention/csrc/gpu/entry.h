// The entry of attention for GPU families: as attention.cc, for tensors of one GPU. Included by a family's entry, which
// names it `family`, after its config header.
#pragma once
#include "../describe.h"
#include "../launch.h"

using dimorph::ConstTensor;
using dimorph::Extra;
using dimorph::Optional;
using dimorph::Str;
using dimorph::Tensor;
using dimorph::attention::Launch;
using dimorph::attention::Problem;
using dimorph::attention::Strides;

namespace {

// `copied`: by rows of keys, whose steps are narrower.
void check_fits(const ConstTensor& tensor, Strides strides, const char* name, bool copied) {
  // A single batch, row or head has a stride that nobody takes.
  const int row = tensor.ndim() - 3;
  if (tensor.size(0) <= 1) strides.batch = 0;
  if (tensor.size(row) <= 1) strides.row = 0;
  if (tensor.size(row + 1) <= 1) strides.head = 0;
  const char* misfit = family::misfit(tensor.data(), strides, copied);
  DIMORPH_CHECK(!misfit, "attention: argument '%s': expected %s, as copies of 16 bytes need", name, misfit);
}

}  // namespace

// What attention.cc computes. The longest lengths of ragged sequences are max_seqlen_q and max_seqlen_k; without them
// as many as there are tokens are allowed for. `workspace`, float32, holds what is merged where keys are split among
// blocks; without one, or with too small a one, they are not.
void attention(ConstTensor q, ConstTensor k, ConstTensor v, Tensor out, float sm_scale, Str variant,
               Optional<Tensor> lse, Optional<Tensor> workspace, Optional<ConstTensor> cu_seqlens_q,
               Optional<ConstTensor> cu_seqlens_k, Optional<int64_t> max_seqlen_q, Optional<int64_t> max_seqlen_k,
               Extra extra) {
  DIMORPH_CHECK(q.device().device_type == kDLCUDA, "attention: argument 'q': expected a tensor on a GPU");
  const Problem problem =
      dimorph::attention::describe(q, k, v, out, lse, cu_seqlens_q, cu_seqlens_k, sm_scale, max_seqlen_q, max_seqlen_k);
  check_fits(q, problem.q_strides, "q", false);
  check_fits(k, problem.k_strides, "k", true);
  check_fits(v, problem.v_strides, "v", true);
  check_fits(out, problem.out_strides, "out", false);
  Launch launch{};
  launch.device = q.device();
  launch.tokens = problem.cu_seqlens_q ? q.size(0) : q.size(0) * q.size(1);
  launch.key_tokens = problem.cu_seqlens_k ? k.size(0) : k.size(0) * k.size(1);
  if (workspace) {
    dimorph::attention::check_device(*workspace, "workspace", q.device());
    DIMORPH_CHECK_TYPE(workspace->dtype() == dimorph::data_type<float>() && workspace->contiguous(),
                       "attention: argument 'workspace': expected a contiguous float32 tensor");
    DIMORPH_CHECK(reinterpret_cast<uint64_t>(workspace->data()) % 8 == 0,
                  "attention: argument 'workspace': expected an address that is a multiple of 8");
    launch.workspace = workspace->data<float>();
    launch.workspace_size = workspace->numel();
  }
  DISPATCH_dtype(q.dtype(), DType,
                 DISPATCH_head_dims(
                     q.size(-1), v.size(-1), HEAD_DIM_QK, HEAD_DIM_VO,
                     DISPATCH_variant(variant, ATTENTION_VARIANT, DIMORPH_CALL(attention)(problem, launch, extra))));
}
