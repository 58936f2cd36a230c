// Masks nothing, and counts how often it is asked. Additional params: int32 tensor asked, row-major [queries, keys].
#pragma once
#include <dimorph/attention/variants.h>

template <typename ParamsT>
struct CountMasks {
  int32_t* asked;
  int columns;

  // Kernels get their parameters as const, but the test owns this one and expects it to be written.
  CountMasks(const ParamsT& params, int batch_idx)
      : asked(const_cast<int32_t*>(params.asked)), columns(params.get_kv_len(batch_idx)) {}

  bool LogitsMask(const ParamsT&, int, int qo_idx, int kv_idx, int, int) {
    __atomic_fetch_add(asked + int64_t{qo_idx} * columns + kv_idx, 1, __ATOMIC_RELAXED);
    return true;
  }
  dm::TileClass classify_tile(int, int, int, int) { return dm::TileClass::kFull; }
};
