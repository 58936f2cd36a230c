// How the work of one problem is divided among thread blocks: decided by plan() on the host, followed by the kernels of
// every GPU family.
#pragma once
#include <dimorph/ints.h>

namespace dimorph {
namespace attention {
namespace gpu {

struct Partition {
  // Query heads whose rows share a tile: 1, or all heads of a KV head (grouped-query attention). A tile's row is
  // query * packed_heads + head.
  int32_t packed_heads;
  uint32_t packed_heads_reciprocal;  // ceil(2^31 / packed_heads), for rows_to_queries
  int32_t head_packs;                // of one sequence: query heads / packed_heads
  int32_t group_size;                // query heads that share a KV head
  int32_t query_tiles;               // of the longest sequence and one pack of heads
  int32_t splits;                    // parts of the keys; with more than one, attention_merge joins their results
  int64_t total_rows;                // queries of all sequences, times query heads
  float* partial_out;                // [splits, total_rows, HEAD_DIM_VO], not normalised; by a schedule: of each slot
  float* partial_state;              // [splits, total_rows, 2]: row max, row sum
};

// Tiles of keys of a part, where results must not depend on the batch: parts are the same for every division of the
// work (invariant.h). So many tiles are classified at a time (key_tiles.h).
constexpr int kPartTiles = 32;

constexpr int kMergeThreads = 128;
constexpr int kMergeRows = kMergeThreads / 32;  // rows of a thread block of attention_merge: one a warp

}  // namespace gpu
}  // namespace attention
}  // namespace dimorph
