// Prefix LM (Raffel et al. 2019, https://arxiv.org/abs/1910.10683): every query sees the first prefix_lens[b] keys, and
// the others causally, aligned bottom-right.
// Additional params: int32 tensor prefix_lens [batch].
#pragma once
#include "../variants.h"

namespace dm {

template <typename ParamsT>
struct PrefixLM {
  int shift, prefix;

  DM_HD PrefixLM(const ParamsT& params, int batch_idx)
      : shift(diagonal(params, batch_idx)), prefix(params.prefix_lens[batch_idx]) {}

  template <typename QIdx, typename KVIdx>
  DM_HD auto LogitsMask(const ParamsT&, int, QIdx qo_idx, KVIdx kv_idx, int, int) {
    return kv_idx <= qo_idx + shift || kv_idx < prefix;
  }

  DM_HD TileClass classify_tile(int q0, int q1, int k0, int k1) {
    if (k0 > q1 - 1 + shift && k0 >= prefix) return TileClass::kSkip;
    return k1 - 1 <= q0 + shift || k1 <= prefix ? TileClass::kFull : TileClass::kPartial;
  }
};

}  // namespace dm
