// A user's variant: logits fall by `rate` for each position between query and key. Additional params: float rate.
#pragma once
#include <dimorph/attention/variants.h>

template <typename ParamsT>
struct Decay {
  float rate;
  int diagonal;

  DM_HD Decay(const ParamsT& params, int batch_idx) : rate(params.rate), diagonal(dm::diagonal(params, batch_idx)) {}

  template <typename T, typename QIdx, typename KVIdx>
  DM_HD T LogitsTransform(const ParamsT&, T logits, int, QIdx qo_idx, KVIdx kv_idx, int, int) {
    return logits - rate * dm::math::abs(dm::math::to_float(kv_idx - qo_idx - diagonal));
  }

  // Optional: what a GPU kernel need not look for.
  DM_HD float LogitsBound(const ParamsT&, float most, int) { return rate >= 0.f ? most : dm::math::infinity; }
};
