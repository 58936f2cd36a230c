// Causal mask over the first kv_valid[b] keys of sequence b, aligned bottom-right with those: query i sees the keys up
// to i + kv_valid[b] - qo_len, so the last query sees the last key that counts. Additional params: int32 tensor
// kv_valid [batch].
#pragma once
#include "../variants.h"

namespace dm {

template <typename ParamsT>
struct CausalKeyPadding {
  int shift;

  DM_HD CausalKeyPadding(const ParamsT& params, int batch_idx)
      : shift(math::max(0, math::min(params.kv_valid[batch_idx], params.get_kv_len(batch_idx))) -
              params.get_qo_len(batch_idx)) {}

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
