// A boolean mask that may differ between heads and be shared by sequences. True: the key counts.
// Additional params: bool tensor broadcast_mask, row-major [batch or 1, query heads or 1, qo_len, kv_len]; int64
// mask_batch_stride and mask_head_stride, the elements from one batch or head to the next, 0 for a dimension of size 1.
#pragma once
#include "../variants.h"

namespace dm {

template <typename ParamsT>
struct BroadcastMask {
  const uint8_t* mask;
  int64_t columns;

  DM_HD BroadcastMask(const ParamsT& params, int batch_idx)
      : mask(reinterpret_cast<const uint8_t*>(params.broadcast_mask) + batch_idx * params.mask_batch_stride),
        columns(detail::matrix_columns(params, batch_idx)) {}

  template <typename QIdx, typename KVIdx>
  DM_HD auto LogitsMask(const ParamsT& params, int, QIdx qo_idx, KVIdx kv_idx, int qo_head_idx, int) {
    return load(mask + qo_head_idx * params.mask_head_stride, columns, qo_idx, kv_idx) != 0;
  }

  template <typename Checks>
  DM_HD static void CheckParams(const ParamsT& params, Checks& checks) {
    detail::check_strides(params, checks, "broadcast_mask", "mask_batch_stride", params.mask_batch_stride,
                          "mask_head_stride", params.mask_head_stride);
  }
};

}  // namespace dm
