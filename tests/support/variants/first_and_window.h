// The first keys and a causal window: a query sees two ranges of keys, so that some queries of a block compute tiles,
// skip tiles between them that the other queries need, and compute tiles again.
#pragma once
#include <dimorph/attention/variants.h>

template <typename ParamsT>
struct FirstAndWindow {
  int first, lowest, highest;  // keys before `first`; of key - query

  DM_HD FirstAndWindow(const ParamsT& params, int batch_idx)
      : first(params.first_keys),
        lowest(dm::diagonal(params, batch_idx) - params.left),
        highest(dm::diagonal(params, batch_idx)) {}

  template <typename QIdx, typename KVIdx>
  DM_HD auto LogitsMask(const ParamsT&, int, QIdx qo_idx, KVIdx kv_idx, int, int) {
    return kv_idx - qo_idx <= highest && (kv_idx - qo_idx >= lowest || kv_idx < first);
  }

  DM_HD dm::TileClass classify_tile(int q0, int q1, int k0, int k1) {
    if (k0 - (q1 - 1) > highest) return dm::TileClass::kSkip;
    return k1 - 1 - q0 < lowest && k0 >= first ? dm::TileClass::kSkip : dm::TileClass::kPartial;
  }
};
