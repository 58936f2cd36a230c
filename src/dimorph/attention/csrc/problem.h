// One attention problem as plain data: what the entry checked and every case of every family receives.
#pragma once
#include <dimorph/attention/host_device.h>
#include <dimorph/ints.h>

namespace dimorph {
namespace attention {

// In elements. The head dimension itself is contiguous.
struct Strides {
  int64_t batch, row, head;
};

// Dense tensors are [batch, seq, heads, head_dim]; ragged ones [tokens, heads, head_dim], where sequence b holds the
// rows cu_seqlens[b] to cu_seqlens[b + 1]. lse is the same without the last dimension.
struct Problem {
  const void* q;
  const void* k;
  const void* v;
  void* out;
  float* lse;                   // natural log; may be null
  const int32_t* cu_seqlens_q;  // both null for dense tensors
  const int32_t* cu_seqlens_k;
  Strides q_strides, k_strides, v_strides, out_strides, lse_strides;
  int32_t batch_size;
  int32_t num_qo_heads, num_kv_heads;
  int32_t max_qo_len, max_kv_len;
  float sm_scale;
};

// What a variant may read: the problem, its element types, and the variant's additional parameters.
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
  // Tokens before the sequence's first, in a tensor that has one element a token.
  DM_HD int64_t get_qo_start(int batch_idx) const {
    return cu_seqlens_q ? cu_seqlens_q[batch_idx] : int64_t{batch_idx} * max_qo_len;
  }
  DM_HD int64_t get_kv_start(int batch_idx) const {
    return cu_seqlens_k ? cu_seqlens_k[batch_idx] : int64_t{batch_idx} * max_kv_len;
  }
};

}  // namespace attention
}  // namespace dimorph
