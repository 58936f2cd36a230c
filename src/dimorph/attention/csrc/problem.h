// One attention problem as plain data: made by the entry, received by the case of every family.
#pragma once
#include <dimorph/attention/host_device.h>
#include <dimorph/ints.h>

#include "kv_dtype.h"

namespace dimorph {
namespace attention {

// In elements. The head dim itself is contiguous.
struct Strides {
  int64_t batch, row, head;
};

// Where the keys of sequences lie that do not follow each other: page i of sequence b is number pages[b * stride + i]
// of the pool or, if starts are given, pages[starts[b] + i], and holds the keys [i * page_size, (i + 1) * page_size).
struct PageTable {
  const int32_t* pages;          // null: keys do not lie in pages
  const int32_t* starts;         // [batch + 1], or null
  const int32_t* last_page_len;  // [batch], with starts: keys in use of each sequence's last page
  int64_t stride;
  int32_t page_size;
  int32_t pool_pages;  // in the pool
  // ceil(2^(31 + shift) / page_size), with the least shift for which 2^shift >= page_size: a quotient on a GPU is then
  // the upper half of a product. It is exact below 2^31 (Granlund and Montgomery 1994).
  uint32_t page_reciprocal;
  int32_t page_shift;
};

// q and out are [batch, queries, query heads, head dim], k and v [batch, keys, KV heads, head dim]. Ragged tensors are
// [tokens, heads, head dim], with the rows [cu_seqlens[b], cu_seqlens[b + 1]) for sequence b. lse has the shape of q
// without the last dimension. Keys in pages are [pages, page size, KV heads, head dim]: then the strides of k and v
// from batch to batch are those from page to page.
struct Problem {
  const void* q;
  const void* k;
  const void* v;
  void* out;
  float* lse;                   // natural log-sum-exp; may be null
  const int32_t* cu_seqlens_q;  // null for dense tensors
  const int32_t* cu_seqlens_k;  // null for dense tensors
  // Only kernels with PAGED read these four.
  const int32_t* seqlens_q;  // [batch], rows in use of each sequence; null: all of them
  const int32_t* seqlens_k;
  PageTable table;
  bool room_matrices;  // see has_room_matrices
  Strides q_strides, k_strides, v_strides, out_strides, lse_strides;
  int32_t batch_size;
  int32_t num_qo_heads, num_kv_heads;
  int32_t max_qo_len, max_kv_len;  // room of the longest sequence
  float sm_scale;                  // factor of the logits, for variants with softmax
  KvScale k_scale, v_scale;        // only kernels with KV_DTYPE in 8 bits read these
  // Of a CPU: which sequences to compute, see cpu/kinds.h. In the middle, a call of one query took 0.1 us longer.
  bool few_queries;
};

// Whether a sequence's length is not just a size of an array, or its rows do not lie at a multiple of it.
DM_HD inline bool has_own_lengths(const Problem& problem) {
  return problem.cu_seqlens_q || problem.cu_seqlens_k || problem.seqlens_q || problem.seqlens_k || problem.table.pages;
}

// Whether lengths lie apart from a room that is the same for all sequences.
DM_HD inline bool has_common_room(const Problem& problem) {
  return has_own_lengths(problem) && !problem.cu_seqlens_q && !problem.cu_seqlens_k && !problem.table.starts;
}

// Rows of q and of k: of all sequences, and of ragged tensors also those behind the last one. Of keys in pages with
// starts, the places in all pages of all sequences.
struct Tokens {
  int64_t queries, keys;
};

// What a variant's hooks may read: the problem, the element types and, in a kernel's params struct, the variant's
// additional parameters. kPaged: sequences may have lengths apart from their room, and keys may lie in pages.
template <typename DTypeQ_, typename DTypeKV_, typename DTypeO_, bool kPaged = false>
struct BaseParams : Problem {
  using DTypeQ = DTypeQ_;
  using DTypeKV = DTypeKV_;
  using DTypeO = DTypeO_;
  using IdType = int32_t;

  DM_HD int get_qo_len(int batch_idx) const {
    if constexpr (kPaged)
      if (seqlens_q) return seqlens_q[batch_idx];
    return cu_seqlens_q ? cu_seqlens_q[batch_idx + 1] - cu_seqlens_q[batch_idx] : max_qo_len;
  }
  DM_HD int get_kv_len(int batch_idx) const {
    if constexpr (kPaged) {
      if (seqlens_k) return seqlens_k[batch_idx];
      if (table.starts) {
        const int pages = table.starts[batch_idx + 1] - table.starts[batch_idx];
        return pages ? (pages - 1) * table.page_size + table.last_page_len[batch_idx] : 0;
      }
    }
    return cu_seqlens_k ? cu_seqlens_k[batch_idx + 1] - cu_seqlens_k[batch_idx] : max_kv_len;
  }
  // Whether tensors with an element for each query and key have the shape of the room, [max_qo_len, max_kv_len] for
  // each sequence. Otherwise the matrix of a sequence is as large as its lengths in use.
  DM_HD bool has_room_matrices() const {
    if constexpr (kPaged) return room_matrices;
    return false;
  }
  // Index of the sequence's first token in a tensor with one element a token: [batch, seq] or, ragged, [tokens]. With
  // lengths apart from the room, and in pages, it has an element for each place of the room.
  DM_HD int64_t get_qo_start(int batch_idx) const {
    return cu_seqlens_q ? cu_seqlens_q[batch_idx] : int64_t{batch_idx} * max_qo_len;
  }
  DM_HD int64_t get_kv_start(int batch_idx) const {
    if constexpr (kPaged)
      if (table.starts) return int64_t{table.starts[batch_idx]} * table.page_size;
    return cu_seqlens_k ? cu_seqlens_k[batch_idx] : int64_t{batch_idx} * max_kv_len;
  }
};

}  // namespace attention
}  // namespace dimorph
