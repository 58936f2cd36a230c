// Logits soft cap: cap * tanh(logits / cap) (Gemma 2, https://arxiv.org/abs/2408.00118).
// Additional params: float soft_cap.
#pragma once
#include "../variants.h"

namespace dm {

template <typename ParamsT>
struct SoftCap {
  float cap, inverse;

  DM_HD SoftCap(const ParamsT& params, int) : cap(params.soft_cap), inverse(1.f / params.soft_cap) {}

  template <typename T, typename QIdx, typename KVIdx>
  DM_HD T LogitsTransform(const ParamsT&, T logits, int, QIdx, KVIdx, int, int) {
    return math::tanh(logits * inverse) * cap;
  }
};

}  // namespace dm
