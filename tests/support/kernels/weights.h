// Weights of elements, and more tensors that are only counted.
#pragma once

template <typename Params>
struct Weights {
  const Params& params;

  explicit Weights(const Params& params) : params(params) {}
  double at(int i) const { return params.weights[i]; }
  int given() const { return (params.maybe_pairs ? 1 : 0) + (params.maybe_free ? 1 : 0); }
};
