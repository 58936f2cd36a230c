// A variant: a struct template over the params type. What it needs beyond the kernel's own arguments it finds there.
#pragma once

template <typename Params>
struct Scale {
  using Element = typename Params::Element;
  Element scale;

  explicit Scale(const Params& params) : scale(static_cast<Element>(params.scale)) {}
  Element transform(Element value, int) const { return value * scale; }
};

template <typename Params>
struct ScaleBias {
  using Element = typename Params::Element;
  Element scale;
  const float* bias;

  explicit ScaleBias(const Params& params) : scale(static_cast<Element>(params.scale)), bias(params.maybe_bias) {}
  Element transform(Element value, int column) const {
    return value * scale + (bias ? static_cast<Element>(bias[column]) : Element(0));
  }
};
