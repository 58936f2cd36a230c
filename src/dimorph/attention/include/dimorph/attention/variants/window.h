// Sliding window (Beltagy et al. 2020, https://arxiv.org/abs/2004.05150), aligned bottom-right: query i, which stands
// at key p = i + kv_len - qo_len, sees the keys p - window_left to p + window_right. A negative width is unbounded.
// Additional params: int32 window_left, int32 window_right.
#pragma once
#include "../variants.h"

namespace dm {

template <typename ParamsT>
struct Window {
  static constexpr int kUnbounded = kMaxLength;  // no key is further away
  int lowest, highest;                           // of the difference key - query

  DM_HD Window(const ParamsT& params, int batch_idx)
      : lowest(params.window_left < 0 ? -kUnbounded
                                      : diagonal(params, batch_idx) - math::min(params.window_left, kUnbounded)),
        highest(params.window_right < 0 ? kUnbounded
                                        : diagonal(params, batch_idx) + math::min(params.window_right, kUnbounded)) {}

  template <typename QIdx, typename KVIdx>
  DM_HD auto LogitsMask(const ParamsT&, int, QIdx qo_idx, KVIdx kv_idx, int, int) {
    return kv_idx - qo_idx >= lowest && kv_idx - qo_idx <= highest;
  }

  DM_HD TileClass classify_tile(int q0, int q1, int k0, int k1) {
    const int least = k0 - (q1 - 1), most = (k1 - 1) - q0;  // of the differences in the tile
    if (most < lowest || least > highest) return TileClass::kSkip;
    return least >= lowest && most <= highest ? TileClass::kFull : TileClass::kPartial;
  }
};

}  // namespace dm
