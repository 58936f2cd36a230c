// Tree mask, for the verification of speculated tokens (SpecInfer, Miao et al. 2023, https://arxiv.org/abs/2305.09781):
// the last n = min(64, qo_len) queries of a sequence are nodes, whose keys are its last n keys. A node sees all keys
// before those, and of the nodes j those whose bit j is set in its element of tree_mask. Queries before the nodes are
// causal, aligned bottom-right.
// Additional params: int64 tensor tree_mask, an element for each query: [batch, seq] or, ragged, [tokens].
#pragma once
#include "../variants.h"

namespace dm {

template <typename ParamsT>
struct TreeMask {
  const int64_t* nodes;  // of each query
  int shift;
  int first;  // key of node 0; it is negative if there are fewer keys than nodes

  DM_HD TreeMask(const ParamsT& params, int batch_idx)
      : nodes(params.tree_mask + params.get_qo_start(batch_idx)),
        shift(diagonal(params, batch_idx)),
        first(params.get_kv_len(batch_idx) - math::min(64, params.get_qo_len(batch_idx))) {}

  // For scalars: vectors would be of 64 bits, and only tiles of the last keys come here.
  DM_HD bool LogitsMask(const ParamsT&, int, int qo_idx, int kv_idx, int, int) {
    const int p = qo_idx + shift;  // the key at which the query stands
    if (p < first || kv_idx < first) return kv_idx <= p;
    return nodes[qo_idx] >> (kv_idx - first) & 1;
  }

  DM_HD TileClass classify_tile(int q0, int q1, int k0, int k1) {
    const int p0 = q0 + shift, p1 = q1 - 1 + shift;
    if (p1 < first && k0 > p1) return TileClass::kSkip;
    return k1 <= first && k1 - 1 <= p0 ? TileClass::kFull : TileClass::kPartial;
  }
};

}  // namespace dm
