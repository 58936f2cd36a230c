#pragma once

template <typename Params>
struct Plain {
  explicit Plain(const Params&) {}
  static constexpr int tag = 100;
  double transform(double value, int) const { return value; }
};

// (value * times + offset + table[i] + bias[i]), negated if asked.
template <typename Params>
struct Shift {
  const Params& params;
  explicit Shift(const Params& given) : params(given) {}
  static constexpr int tag = 200;
  double transform(double value, int i) const {
    const double result = value * params.times + params.offset + static_cast<double>(params.table[i]) +
                          (params.maybe_bias ? params.maybe_bias[i] : 0.0);
    return params.negate ? -result : result;
  }
};
