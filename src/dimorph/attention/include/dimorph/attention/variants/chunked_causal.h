// Chunked attention (Llama 4, https://ai.meta.com/blog/llama-4-multimodal-intelligence/): keys form chunks of `chunk`,
// and query i, which stands at key p = i + kv_len - qo_len, sees the keys of p's chunk up to p.
// Additional params: int32 chunk.
#pragma once
#include "../variants.h"

namespace dm {

template <typename ParamsT>
struct ChunkedCausal {
  int shift, chunk;

  DM_HD ChunkedCausal(const ParamsT& params, int batch_idx)
      : shift(diagonal(params, batch_idx)), chunk(math::min(params.chunk, kMaxLength)) {}

  template <typename QIdx, typename KVIdx>
  DM_HD auto LogitsMask(const ParamsT&, int, QIdx qo_idx, KVIdx kv_idx, int, int) {
    // Before the comparison: as its second half, a GPU would divide for each key, and not for each row.
    const int most = reach(qo_idx + shift, kv_idx);
    const auto distance = qo_idx + shift - kv_idx;
    return distance >= 0 && distance <= most;
  }

  DM_HD TileClass classify_tile(int q0, int q1, int k0, int k1) {
    const int first = q0 + shift, last = q1 - 1 + shift;  // the keys at which the queries stand
    if (k0 > last || k1 <= chunk_start(math::max(0, first))) return TileClass::kSkip;
    return k1 - 1 <= first && k0 >= chunk_start(last) ? TileClass::kFull : TileClass::kPartial;
  }

  template <typename Checks>
  DM_HD static void CheckParams(const ParamsT& params, Checks& checks) {
    checks.expect(params.chunk >= 1, "chunk", "a number of keys from 1 on", params.chunk);
  }

 private:
  DM_HD int chunk_start(int key) const { return key - key % chunk; }

  // How far a key may lie before p to be in its chunk. The index that is no vector says so, as vectors have no
  // division: p has so many keys of its chunk before it, or k has so many behind it.
  template <typename KVIdx>
  DM_HD int reach(int p, KVIdx) const {
    return p % chunk;
  }
#if !defined(__CUDACC__)
  DM_INLINE int reach(IntV, int k) const { return chunk - 1 - k % chunk; }
#endif
};

}  // namespace dm
