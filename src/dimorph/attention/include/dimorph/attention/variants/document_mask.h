// Document mask: a query sees the keys of its own document.
// Additional params: int32 tensors qo_documents and kv_documents, a document id for each token: [batch, seq] or,
// ragged, [tokens].
#pragma once
#include "../variants.h"

namespace dm {

template <typename ParamsT>
struct DocumentMask {
  const int32_t* qo_documents;
  const int32_t* kv_documents;

  DM_HD DocumentMask(const ParamsT& params, int batch_idx)
      : qo_documents(params.qo_documents + params.get_qo_start(batch_idx)),
        kv_documents(params.kv_documents + params.get_kv_start(batch_idx)) {}

  template <typename QIdx, typename KVIdx>
  DM_HD auto LogitsMask(const ParamsT&, int, QIdx qo_idx, KVIdx kv_idx, int, int) {
    return load(qo_documents, 1, qo_idx) == load(kv_documents, 1, kv_idx);
  }
};

}  // namespace dm
