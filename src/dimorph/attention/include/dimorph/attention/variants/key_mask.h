// Key mask: which keys of a sequence count, the same for every query and head; for example padding on either side.
// Additional params: bool tensor key_mask, row-major [batch, keys] or, ragged, [tokens]. True: the key counts.
#pragma once
#include "../variants.h"

namespace dm {

template <typename ParamsT>
struct KeyMask {
  const uint8_t* mask;

  DM_HD KeyMask(const ParamsT& params, int batch_idx)
      : mask(reinterpret_cast<const uint8_t*>(params.key_mask) + params.get_kv_start(batch_idx)) {}

  template <typename QIdx, typename KVIdx>
  DM_HD auto LogitsMask(const ParamsT&, int, QIdx, KVIdx kv_idx, int, int) {
    return load(mask, 1, kv_idx) != 0;
  }
};

}  // namespace dm
