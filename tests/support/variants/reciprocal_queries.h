// Attention of 1 / q: a transform of queries that is infinite at 0. No additional params.
#pragma once
#include <dimorph/attention/variants.h>

template <typename ParamsT>
struct ReciprocalQueries {
  template <typename T>
  DM_HD T QueryTransform(const ParamsT&, T q) {
    return T(1.f) / q;
  }
};
