// ALiBi (Press et al. 2021, https://arxiv.org/abs/2108.12409) with slopes of each sequence's own.
// Additional params: float32 tensor alibi_slopes [batch, query heads].
#pragma once
#include "../variants.h"

namespace dm {

template <typename ParamsT>
struct SequenceALiBi {
  static constexpr bool logits_additive = true;
  int shift;
  const float* slopes;  // of this sequence

  DM_HD SequenceALiBi(const ParamsT& params, int batch_idx)
      : shift(diagonal(params, batch_idx)),
        slopes(params.alibi_slopes + static_cast<long long>(batch_idx) * params.num_qo_heads) {}

  template <typename T, typename QIdx, typename KVIdx>
  DM_HD T LogitsTransform(const ParamsT&, T logits, int, QIdx qo_idx, KVIdx kv_idx, int qo_head_idx, int) {
    return logits - slopes[qo_head_idx] * math::abs(math::to_float(kv_idx - qo_idx - shift));
  }

  DM_HD float LogitsBound(const ParamsT&, float most, int qo_head_idx) {
    return slopes[qo_head_idx] >= 0.f ? most : math::infinity;
  }
};

}  // namespace dm
