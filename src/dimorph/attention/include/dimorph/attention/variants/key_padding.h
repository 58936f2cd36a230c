// Key padding: only the first kv_valid[b] keys of sequence b count.
// Additional params: int32 tensor kv_valid [batch].
#pragma once
#include "../variants.h"

namespace dm {

template <typename ParamsT>
struct KeyPadding {
  int valid;

  DM_HD KeyPadding(const ParamsT& params, int batch_idx) : valid(params.kv_valid[batch_idx]) {}

  template <typename QIdx, typename KVIdx>
  DM_HD auto LogitsMask(const ParamsT&, int, QIdx, KVIdx kv_idx, int, int) {
    return kv_idx < valid;
  }

  DM_HD TileClass classify_tile(int, int, int k0, int k1) {
    if (k0 >= valid) return TileClass::kSkip;
    return k1 <= valid ? TileClass::kFull : TileClass::kPartial;
  }
};

}  // namespace dm
