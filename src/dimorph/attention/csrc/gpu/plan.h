// Plans the launches for one problem: describe (problem.h) -> choose_config (the family's config.h) -> plan -> launch.
// Pure functions of numbers: they ask no GPU and allocate nothing.
#pragma once
#include <dimorph/ints.h>

#include "../problem.h"
#include "partition.h"

namespace dimorph {
namespace attention {
namespace gpu {

// One launch of attention_forward and, with more than one split, one of attention_merge after it.
struct Plan {
  Partition partition;   // without partial_out and partial_state
  int64_t grid;          // thread blocks of attention_forward; 0: there is nothing to do
  int32_t threads;       // in each
  int32_t shared_bytes;  // dynamic shared memory of each
  int64_t merge_grid;    // thread blocks of attention_merge; 0: it is not launched
  // Floats of the workspace: partial_out comes first, then partial_state.
  int64_t partial_out_size, partial_state_size;
};

constexpr int64_t divide_up(int64_t a, int64_t b) { return (a + b - 1) / b; }

// Whether the kernel's division by packed_heads (rows_to_queries) is exact: up to a million rows.
constexpr bool may_pack(int64_t packed_rows, int group_size) { return packed_rows <= 1 << 20 && group_size <= 1 << 9; }

// Packs the heads of a KV head into the rows of a tile if that makes fewer tiles, that is, if queries are few.
template <typename Config>
constexpr int choose_packed_heads(const Config& c, int max_qo_len, int group_size) {
  const int64_t packed_rows = int64_t{max_qo_len} * group_size;
  const bool fewer = divide_up(packed_rows, c.tile_rows()) < group_size * divide_up(max_qo_len, c.tile_rows());
  return fewer && c.can_pack(group_size) && may_pack(packed_rows, group_size) ? group_size : 1;
}

// Splits the keys if query tiles alone leave SMs without work: into as many parts as run at once, but of at least 128
// keys, which cost as much as writing and merging a part. More than 64 parts would make the merge long.
template <typename Config>
constexpr int choose_splits(const Config& c, int64_t work_tiles, int max_kv_len, int multiprocessors) {
  const int64_t room = work_tiles > 0 ? int64_t{multiprocessors} * c.blocks_per_sm / work_tiles : 1;
  const int64_t most = max_kv_len / 128;
  const int64_t splits = room < most ? room : most;
  return static_cast<int>(splits < 1 ? 1 : splits > 64 ? 64 : splits);
}

// The same where results must not depend on the batch: into the parts that one thread block would compute one after the
// other, with the same result, or not at all.
template <typename Config>
constexpr int choose_invariant_splits(const Config& c, int64_t work_tiles, int max_kv_len, int multiprocessors) {
  const bool room = work_tiles > 0 && int64_t{multiprocessors} * c.blocks_per_sm >= 2 * work_tiles;
  return room && max_kv_len > 0 ? static_cast<int>(divide_up(max_kv_len, kPartTiles * c.tile_keys)) : 1;
}

// How the heads of a problem are packed; all else of the partition is 0.
constexpr Partition pack_heads(const Problem& problem, int32_t packed_heads) {
  Partition partition{};
  partition.group_size = problem.num_qo_heads / problem.num_kv_heads;
  partition.packed_heads = packed_heads;
  partition.packed_heads_reciprocal = static_cast<uint32_t>(divide_up(int64_t{1} << 31, packed_heads));
  partition.head_packs = problem.num_qo_heads / packed_heads;
  return partition;
}

// `tokens`: queries of all sequences, which is batch_size * max_qo_len for dense tensors.
template <typename Config>
constexpr Plan plan(const Config& c, const Problem& problem, int64_t tokens, int multiprocessors,
                    bool batch_invariant = false) {
  Plan result{};
  Partition& partition = result.partition;
  partition =
      pack_heads(problem, choose_packed_heads(c, problem.max_qo_len, problem.num_qo_heads / problem.num_kv_heads));
  partition.query_tiles =
      static_cast<int32_t>(divide_up(int64_t{problem.max_qo_len} * partition.packed_heads, c.tile_rows()));
  const int64_t work_tiles = int64_t{partition.query_tiles} * partition.head_packs * problem.batch_size;
  partition.splits = batch_invariant ? choose_invariant_splits(c, work_tiles, problem.max_kv_len, multiprocessors)
                                     : choose_splits(c, work_tiles, problem.max_kv_len, multiprocessors);
  partition.total_rows = tokens * problem.num_qo_heads;
  result.grid = work_tiles * partition.splits;
  result.threads = c.threads();
  result.shared_bytes = c.shared_bytes();
  if (partition.splits > 1) {
    const int64_t rows = int64_t{problem.batch_size} * problem.max_qo_len * problem.num_qo_heads;
    result.merge_grid = divide_up(rows, kMergeRows);
    result.partial_out_size = partition.splits * partition.total_rows * c.dim_vo;
    result.partial_state_size = partition.splits * partition.total_rows * 2;
  }
  return result;
}

}  // namespace gpu
}  // namespace attention
}  // namespace dimorph
