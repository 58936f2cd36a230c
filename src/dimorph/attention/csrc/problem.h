// One attention problem as plain data: made by the entry, received by the case of every family.
#pragma once
#include <dimorph/attention/host_device.h>
#include <dimorph/ints.h>

namespace dimorph {
namespace attention {

// In elements. The head dim itself is contiguous.
struct Strides {
  int64_t batch, row, head;
};

// q and out are [batch, queries, query heads, head dim], k and v [batch, keys, KV heads, head dim]. Ragged tensors are
// [tokens, heads, head dim], with the rows [cu_seqlens[b], cu_seqlens[b + 1]) for sequence b. lse has the shape of q
// without the last dimension.
struct Problem {
  const void* q;
  const void* k;
  const void* v;
  void* out;
  float* lse;                   // natural log-sum-exp; may be null
  const int32_t* cu_seqlens_q;  // null for dense tensors
  const int32_t* cu_seqlens_k;  // null for dense tensors
  Strides q_strides, k_strides, v_strides, out_strides, lse_strides;
  int32_t batch_size;
  int32_t num_qo_heads, num_kv_heads;
  int32_t max_qo_len, max_kv_len;  // of the longest sequence
  float sm_scale;                  // factor of the logits, for variants with softmax
};

// Rows of q and of k: of all sequences, and of ragged tensors also those behind the last one.
struct Tokens {
  int64_t queries, keys;
};

// What a variant's hooks may read: the problem, the element types and, in a kernel's params struct, the variant's
// additional parameters.
template <typename DTypeQ_, typename DTypeKV_, typename DTypeO_>
struct BaseParams : Problem {
  using DTypeQ = DTypeQ_;
  using DTypeKV = DTypeKV_;
  using DTypeO = DTypeO_;
  using IdType = int32_t;

  DM_HD int get_qo_len(int batch_idx) const {
    return cu_seqlens_q ? cu_seqlens_q[batch_idx + 1] - cu_seqlens_q[batch_idx] : max_qo_len;
  }
  DM_HD int get_kv_len(int batch_idx) const {
    return cu_seqlens_k ? cu_seqlens_k[batch_idx + 1] - cu_seqlens_k[batch_idx] : max_kv_len;
  }
  // Index of the sequence's first token in a tensor with one element a token: [batch, seq] or, ragged, [tokens].
  DM_HD int64_t get_qo_start(int batch_idx) const {
    return cu_seqlens_q ? cu_seqlens_q[batch_idx] : int64_t{batch_idx} * max_qo_len;
  }
  DM_HD int64_t get_kv_start(int batch_idx) const {
    return cu_seqlens_k ? cu_seqlens_k[batch_idx] : int64_t{batch_idx} * max_kv_len;
  }
};

}  // namespace attention
}  // namespace dimorph
