// Sigmoid attention: sigmoid(q.k * scale + bias) v, without normalisation (Ramapuram et al. 2024,
// https://arxiv.org/abs/2409.04431; they advise bias = -ln(number of keys)).
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
};

}  // namespace dm
