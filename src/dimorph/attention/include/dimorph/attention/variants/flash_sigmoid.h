// Sigmoid attention: sigmoid(q.k * scale + bias) v, without normalisation (Ramapuram et al. 2024,
// https://arxiv.org/abs/2409.04431, who advise bias = -ln(number of keys)).
// Additional params: float scale, float bias.
#pragma once
#include "../variants.h"

namespace dm {

template <typename ParamsT>
struct FlashSigmoid {
  static constexpr bool use_softmax = false;
  float scale, bias;

  DM_HD FlashSigmoid(const ParamsT& params, int) : scale(params.scale), bias(params.bias) {}

  template <typename T, typename QIdx, typename KVIdx>
  DM_HD T LogitsTransform(const ParamsT&, T logits, int, QIdx, KVIdx, int, int) {
    return math::sigmoid(logits * scale + bias);
  }

  // For t = e^x <= 1/16, where nearly all logits are with that bias, sigmoid(x) = t / (1 + t) is computed as a minimax
  // polynomial in t (error 1.6e-7).
  DM_HD bool SmallLogits(const ParamsT&, float magnitude) {
    return (magnitude * math::abs(scale) + bias) * math::log2e <= -4.f;
  }
  template <typename T, typename QIdx, typename KVIdx>
  DM_HD T SmallLogitsTransform(const ParamsT&, T logits, int, QIdx, KVIdx, int, int) {
    const T t = math::exp2(logits * (scale * math::log2e) + bias * math::log2e);
    T series = t * -0.88932478980f + 0.99609202887f;
    series = series * t - 0.99996016196f;
    return t * (series * t + 1.f);
  }
};

}  // namespace dm
