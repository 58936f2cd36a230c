// Variants: which bin a value lies in.
#pragma once

// Bins of one width between two ends. Additional params: scalars low and high.
template <typename Params>
struct Uniform {
  double low, high, bins;

  explicit Uniform(const Params& params) : low(params.low), high(params.high), bins(static_cast<double>(params.bins)) {}
  // The number of the bin, or -1; the last bin has its upper end too.
  int64_t bin(double x) const {
    if (!(x >= low && x <= high)) return -1;
    const double at = (x - low) / (high - low) * bins;
    return static_cast<int64_t>(at < bins ? at : bins - 1);
  }
};

// Bins between edges, which ascend. Additional params: tensor edges, one more than there are bins.
template <typename Params>
struct Edges {
  const typename Params::Element* edges;
  int64_t bins;

  explicit Edges(const Params& params) : edges(params.edges), bins(params.bins) {}
  int64_t bin(typename Params::Element x) const {
    if (!(x >= edges[0] && x <= edges[bins])) return -1;
    int64_t first = 0;
    for (int64_t last = bins; last - first > 1;) {
      const int64_t middle = first + (last - first) / 2;
      (x >= edges[middle] ? first : last) = middle;
    }
    return first;
  }
};
