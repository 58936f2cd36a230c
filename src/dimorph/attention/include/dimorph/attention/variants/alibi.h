// ALiBi (Press et al. 2021, https://arxiv.org/abs/2108.12409): logits - slope[head] * |distance of query and key|, with
// queries and keys aligned bottom-right.
// Additional params: float32 tensor alibi_slopes [query heads].
#pragma once
#include "../variants.h"

namespace dm {

template <typename ParamsT>
struct ALiBi {
  static constexpr bool logits_additive = true;
  int shift;

  DM_HD ALiBi(const ParamsT& params, int batch_idx) : shift(diagonal(params, batch_idx)) {}

  template <typename T, typename QIdx, typename KVIdx>
  DM_HD T LogitsTransform(const ParamsT& params, T logits, int, QIdx qo_idx, KVIdx kv_idx, int qo_head_idx, int) {
    return logits - params.alibi_slopes[qo_head_idx] * math::abs(math::to_float(kv_idx - qo_idx - shift));
  }

  DM_HD float LogitsBound(const ParamsT& params, float most, int qo_head_idx) {
    return params.alibi_slopes[qo_head_idx] >= 0.f ? most : math::infinity;
  }
};

}  // namespace dm
