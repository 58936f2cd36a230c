// Any boolean mask, a row-major matrix [qo_len, kv_len] for each sequence. True: the key counts. The matrices follow
// each other, or that of sequence b begins at element maybe_mask_starts[b]. That of CustomMask may have the shape of
// the room (has_room_matrices). Additional params of CustomMask: bool tensor mask; of PackedMask: uint8 tensor mask, 8
// elements a byte, lowest bit first, without gaps between rows; of both: int64 tensor maybe_mask_starts [batch], or
// None.
#pragma once
#include "../variants.h"

namespace dm {
namespace detail {

template <typename ParamsT>
DM_HD inline int64_t mask_start(const ParamsT& params, int batch_idx, bool in_room) {
  if (params.maybe_mask_starts) return params.maybe_mask_starts[batch_idx];
  if (in_room) return int64_t{batch_idx} * params.max_qo_len * params.max_kv_len;
  int64_t start = 0;
  for (int b = 0; b < batch_idx; ++b) start += int64_t{params.get_qo_len(b)} * params.get_kv_len(b);
  return start;
}

// Refuses a mask without an element for each query and key. `per_element`: how many an element of the tensor holds.
template <typename ParamsT, typename Checks>
DM_HD inline void check_mask(const ParamsT& params, Checks& checks, int per_element, bool in_room) {
  if (!params.maybe_mask_starts) checks.expect_flat_or_room("mask");
  if (params.maybe_mask_starts ? !checks.on_host : !checks.knows_lengths) return;
  int64_t start = 0;
  for (int b = 0; b < params.batch_size; ++b) {
    const int64_t size = in_room ? matrix_size(params, b) : int64_t{params.get_qo_len(b)} * params.get_kv_len(b);
    if (params.maybe_mask_starts) start = params.maybe_mask_starts[b];
    checks.expect_inside("mask", params.maybe_mask_starts ? "maybe_mask_starts" : "mask", b, 0, 1, start, size,
                         per_element);
    start += in_room ? int64_t{params.max_qo_len} * params.max_kv_len : size;
  }
}

}  // namespace detail

template <typename ParamsT>
struct CustomMask {
  const uint8_t* mask;
  int64_t columns;

  DM_HD CustomMask(const ParamsT& params, int batch_idx)
      : mask(reinterpret_cast<const uint8_t*>(params.mask) +
             detail::mask_start(params, batch_idx, params.has_room_matrices())),
        columns(detail::matrix_columns(params, batch_idx)) {}

  template <typename QIdx, typename KVIdx>
  DM_HD auto LogitsMask(const ParamsT&, int, QIdx qo_idx, KVIdx kv_idx, int, int) {
    return load(mask, columns, qo_idx, kv_idx) != 0;
  }

  template <typename Checks>
  DM_HD static void CheckParams(const ParamsT& params, Checks& checks) {
    detail::check_mask(params, checks, 1, params.has_room_matrices());
  }
};

template <typename ParamsT>
struct PackedMask {
  int64_t start, columns;

  DM_HD PackedMask(const ParamsT& params, int batch_idx)
      : start(detail::mask_start(params, batch_idx, false)), columns(params.get_kv_len(batch_idx)) {}

  DM_HD bool LogitsMask(const ParamsT& params, int, int qo_idx, int kv_idx, int, int) {
    const int64_t bit = start + qo_idx * columns + kv_idx;
    return params.mask[bit >> 3] >> (bit & 7) & 1;
  }

  template <typename Checks>
  DM_HD static void CheckParams(const ParamsT& params, Checks& checks) {
    detail::check_mask(params, checks, 8, false);
  }
};

}  // namespace dm
