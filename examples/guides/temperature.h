// Attention with a temperature, by which logits are divided: one for each sequence, and one for each query head.
#pragma once
#include <dimorph/attention/variants.h>

// Additional params: float32 tensor temperatures [batch].
template <typename ParamsT>
struct SequenceTemperature {
  float factor;

  DM_HD SequenceTemperature(const ParamsT& params, int batch_idx) : factor(1.f / params.temperatures[batch_idx]) {}

  template <typename T>
  DM_HD T QueryTransform(const ParamsT&, T q) {
    return q * factor;
  }
};

// Additional params: float32 tensor temperatures [query heads].
template <typename ParamsT>
struct HeadTemperature {
  template <typename T, typename QIdx, typename KVIdx>
  DM_HD T LogitsTransform(const ParamsT& params, T logits, int, QIdx, KVIdx, int qo_head_idx, int) {
    return logits * (1.f / params.temperatures[qo_head_idx]);
  }
};
