// Causal mask, aligned bottom-right: query i sees the keys up to i + kv_len - qo_len, so the last query sees every key.
#pragma once
#include "../variants.h"

namespace dm {

template <typename ParamsT>
struct Causal {
  int shift;

  DM_HD Causal(const ParamsT& params, int batch_idx) : shift(diagonal(params, batch_idx)) {}

  template <typename QIdx, typename KVIdx>
  DM_HD auto LogitsMask(const ParamsT&, int, QIdx qo_idx, KVIdx kv_idx, int, int) {
    return kv_idx <= qo_idx + shift;
  }

  DM_HD TileClass classify_tile(int q0, int q1, int k0, int k1) {
    if (k0 > q1 - 1 + shift) return TileClass::kSkip;
    return k1 - 1 <= q0 + shift ? TileClass::kFull : TileClass::kPartial;
  }
};

}  // namespace dm
