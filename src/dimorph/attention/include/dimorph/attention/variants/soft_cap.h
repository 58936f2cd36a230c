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

  // Up to half the cap, where nearly all logits are: a minimax polynomial (6.7e-7), without special functions, of which
  // GPUs have few.
  DM_HD bool SmallLogits(const ParamsT&, float magnitude) { return magnitude * math::abs(inverse) <= 0.5f; }
  template <typename T, typename QIdx, typename KVIdx>
  DM_HD T SmallLogitsTransform(const ParamsT&, T logits, int, QIdx, KVIdx, int, int) {
    const T x = logits * inverse, y = x * x;
    T series = y * -0.04475063891f + 0.13205359516f;
    series = series * y - 0.33328159319f;
    return logits * (series * y + 1.f);
  }
};

}  // namespace dm
