// Changes nothing and counts. Additional params: int32 tensor counts, row-major [queries, keys]: how often each logit
// of the heads of all sequences was computed.
#pragma once
#include <dimorph/attention/variants.h>

template <typename ParamsT>
struct Count {
  int32_t* counts;
  int columns;

  // Kernels only read parameters; the test owns this one and knows better.
  Count(const ParamsT& params, int batch_idx)
      : counts(const_cast<int32_t*>(params.counts)), columns(params.get_kv_len(batch_idx)) {}

  float LogitsTransform(const ParamsT&, float logits, int, int qo_idx, int kv_idx, int, int) {
    __atomic_fetch_add(counts + int64_t{qo_idx} * columns + kv_idx, 1, __ATOMIC_RELAXED);
    return logits;
  }
};
