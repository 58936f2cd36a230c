// How the work of one problem is cut: what plan() decides and the kernels of every GPU family follow.
#pragma once
#include <dimorph/ints.h>

namespace dimorph {
namespace attention {
namespace gpu {

struct Work {
  // Rows of a tile are queries of one head (pack 1), or of all heads that share a head of keys: row = query * pack +
  // head.
  int32_t pack;
  uint32_t pack_reciprocal;  // ceil(2^31 / pack)
  int32_t packs;             // of a sequence
  int32_t sharing;           // heads that share a head of keys
  int32_t tiles;             // query tiles of the longest sequence and one head
  int32_t splits;            // parts of the keys; with more than one, attention_merge joins them
  int64_t rows;              // queries of all sequences and heads
  float* partial_out;        // [splits, rows, HEAD_DIM_VO], not normalised
  float* partial_state;      // [splits, rows, 2]: maximum in units of log2, sum
};

constexpr int kMergeThreads = 128;
constexpr int kMergeRows = kMergeThreads / 32;  // one warp a row

}  // namespace gpu
}  // namespace attention
}  // namespace dimorph
