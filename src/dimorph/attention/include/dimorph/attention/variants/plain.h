// Softmax attention as it is: softmax(q.k * sm_scale) v (Vaswani et al. 2017, https://arxiv.org/abs/1706.03762).
#pragma once

namespace dm {

template <typename ParamsT>
struct Plain {
  static constexpr bool use_softmax = true;
};

}  // namespace dm
