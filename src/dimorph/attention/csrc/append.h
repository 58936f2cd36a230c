// New keys and values on their way into a cache, as plain data: made by the entry, received by the case.
#pragma once
#include <dimorph/ints.h>

#include "kv_dtype.h"
#include "problem.h"

namespace dimorph {
namespace attention {

// The offset of a token that is padding: its position is negative, and it is not copied.
constexpr int64_t kPadding = INT64_MIN;

// Token i of `tokens` is row i % rows of sequence i / rows in k and v; ragged rows are those of one sequence.
struct Append {
  const void *k, *v;
  void *k_cache, *v_cache;
  Strides k_strides, v_strides;          // of the new rows
  int64_t k_head, v_head;                // strides of the cache's heads
  const int64_t *k_offsets, *v_offsets;  // of each token in the cache, in elements
  int64_t tokens, rows;
  int32_t heads, head_dim_qk, head_dim_vo;
  KvScale k_scale, v_scale;  // only for a cache in 8 bits
};

}  // namespace attention
}  // namespace dimorph
