// Logits soft cap: cap * tanh(logits / cap) (Gemma 2, https://arxiv.org/abs/2408.00118).
// Additional params: float soft_cap.
#pragma once
#include "../variants.h"

namespace dm {

template <typename ParamsT>
struct SoftCap {
  float cap, inverse;
  float second, fourth;  // coefficients: cap * tanh(x / cap) / x is about 1 + second * x^2 + fourth * x^4

  // A cap below 1e-9 makes all logits as good as equal, whatever the slope at 0, so the slope may stay finite, and with
  // it the powers of the inverse.
  DM_HD SoftCap(const ParamsT& params, int)
      : cap(math::abs(params.soft_cap)),
        inverse(1.f / math::max(cap, 1e-9f)),
        second(-0.3330079f * inverse * inverse),
        fourth(0.1246057f * inverse * inverse * inverse * inverse) {}

  template <typename T, typename QIdx, typename KVIdx>
  DM_HD T LogitsTransform(const ParamsT&, T logits, int, QIdx, KVIdx, int, int) {
    return math::tanh(logits * inverse) * cap;
  }

  DM_HD float LogitsBound(const ParamsT&, float most, int) { return math::max(most, 0.f); }

  template <typename Checks>
  DM_HD static void CheckParams(const ParamsT& params, Checks& checks) {
    const float cap = params.soft_cap;
    checks.expect(math::abs(cap) < math::infinity && math::abs(1.f / cap) < math::infinity, "soft_cap",
                  "a finite number with a finite reciprocal", cap);
  }

  // Up to about a third of the cap, where nearly all logits are: a minimax polynomial (error 3.6e-6) in place
  // of the special functions, of which GPUs compute few at a time.
  DM_HD bool SmallLogits(const ParamsT&, float magnitude) { return magnitude * math::abs(inverse) <= 0.35f; }
  template <typename T, typename QIdx, typename KVIdx>
  DM_HD T SmallLogitsTransform(const ParamsT&, T logits, int, QIdx, KVIdx, int, int) {
    const T y = logits * logits;
    return logits * ((y * fourth + second) * y + 1.f);
  }
};

}  // namespace dm
