// What happens to each element at the end: a struct template over the params type, which has the variant's parameters.
#pragma once

template <typename Params>
struct Scale {
  using Element = typename Params::Element;
  Element scale;

  explicit Scale(const Params& params) : scale(static_cast<Element>(params.scale)) {}
  Element transform(Element value) const { return value * scale; }
};
