// Metrics: the term of a coordinate in the sum over all, and the distance that a sum means.
#pragma once
#include <cmath>

template <typename Params>
struct Euclidean {
  using T = typename Params::Element;
  explicit Euclidean(const Params&) {}
  T term(T difference, int) const { return difference * difference; }
  T distance(T sum) const { return std::sqrt(sum); }
};

template <typename Params>
struct Weighted {
  using T = typename Params::Element;
  const T* weights;
  explicit Weighted(const Params& params) : weights(params.weights) {}
  T term(T difference, int axis) const { return weights[axis] * difference * difference; }
  T distance(T sum) const { return std::sqrt(sum); }
};
