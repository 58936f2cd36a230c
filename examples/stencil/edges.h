// Variants: what a function is beyond the ends of its samples.
#pragma once

// The last sample on that side.
template <typename Params>
struct Clamp {
  explicit Clamp(const Params&) {}
  template <typename T>
  T beyond(T last) const {
    return last;
  }
};

// A fixed value. Additional params: scalar value.
template <typename Params>
struct Fixed {
  double value;

  explicit Fixed(const Params& params) : value(params.value) {}
  template <typename T>
  T beyond(T) const {
    return static_cast<T>(value);
  }
};
