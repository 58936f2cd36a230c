// What happens at a quadrature point: a struct template over the params type, which has the variant's parameters.
//
// `at` gets u and the gradient of u in physical coordinates, both times the weight of the point, and the point's
// position x. It replaces them by the factors of v and of the gradient of v in the integrand. It is linear in u. A
// physics without kValue gets no u and gives none, and one without kGradient no gradient.
#pragma once
#include <dimorph/host_device.h>

template <bool kWithValue, bool kWithGradient>
struct Plain {
  static constexpr bool kValue = kWithValue, kGradient = kWithGradient;
  template <typename T>
  DM_HD DM_INLINE void at(const T*, T&, T*) const {}
};
// BP1: the integral of v u.
template <typename Params>
struct Mass : Plain<true, false> {
  DM_HD DM_INLINE explicit Mass(const Params&) {}
};
// BP3: the integral of grad v . grad u.
template <typename Params>
struct Diffusion : Plain<false, true> {
  DM_HD DM_INLINE explicit Diffusion(const Params&) {}
};

// The integral of (1 + contrast |x|^2) grad v . grad u + shift v u.
template <typename Params>
struct Helmholtz {
  static constexpr bool kValue = true, kGradient = true;
  typename Params::Element shift, contrast;
  DM_HD DM_INLINE explicit Helmholtz(const Params& params) : shift(params.shift), contrast(params.contrast) {}
  template <typename T>
  DM_HD DM_INLINE void at(const T* x, T& value, T* gradient) const {
    const T coefficient = 1 + contrast * (x[0] * x[0] + x[1] * x[1] + x[2] * x[2]);
    value = value * shift;
    for (int i = 0; i < 3; ++i) gradient[i] = gradient[i] * coefficient;
  }
};
