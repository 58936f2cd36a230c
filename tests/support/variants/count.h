// Leaves logits unchanged and counts how often each was computed, over the heads of all sequences. Additional params:
// int32 tensor counts, row-major [queries, keys].
#pragma once
#include <dimorph/attention/variants.h>

template <typename ParamsT>
struct Count {
  int32_t* counts;
  int columns;

  // Kernels get their parameters as const, but the test owns this one and expects it to be written.
  Count(const ParamsT& params, int batch_idx)
      : counts(const_cast<int32_t*>(params.counts)), columns(params.get_kv_len(batch_idx)) {}

  float LogitsTransform(const ParamsT&, float logits, int, int qo_idx, int kv_idx, int, int) {
    __atomic_fetch_add(counts + int64_t{qo_idx} * columns + kv_idx, 1, __ATOMIC_RELAXED);
    return logits;
  }
};
