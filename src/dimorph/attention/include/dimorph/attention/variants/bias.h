// Additive bias: logits + bias[b, head, i, j], such as relative position biases (Raffel et al. 2019,
// https://arxiv.org/abs/1910.10683).
// Additional params: float32 tensor bias, row-major [batch or 1, query heads or 1, qo_len, kv_len]; int64
// bias_batch_stride and bias_head_stride, the elements from one batch or head to the next, 0 for a dimension of size 1.
#pragma once
#include "../variants.h"

namespace dm {

template <typename ParamsT>
struct Bias {
  static constexpr bool logits_additive = true;
  const float* bias;
  int64_t columns;

  DM_HD Bias(const ParamsT& params, int batch_idx)
      : bias(params.bias + batch_idx * params.bias_batch_stride), columns(detail::matrix_columns(params, batch_idx)) {}

  template <typename T, typename QIdx, typename KVIdx>
  DM_HD T LogitsTransform(const ParamsT& params, T logits, int, QIdx qo_idx, KVIdx kv_idx, int qo_head_idx, int) {
    return logits + load(bias + qo_head_idx * params.bias_head_stride, columns, qo_idx, kv_idx);
  }

  template <typename Checks>
  DM_HD static void CheckParams(const ParamsT& params, Checks& checks) {
    detail::check_strides(params, checks, "bias", "bias_batch_stride", params.bias_batch_stride, "bias_head_stride",
                          params.bias_head_stride);
  }
};

}  // namespace dm
