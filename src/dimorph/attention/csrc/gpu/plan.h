// How the host cuts one problem for a GPU: describe (problem.h) -> choose (the family's config.h) -> plan -> launch.
// Pure functions of numbers: no GPU, no allocation.
#pragma once
#include <dimorph/ints.h>

#include "../problem.h"
#include "work.h"

namespace dimorph {
namespace attention {
namespace gpu {

// One launch of attention_forward and, with more than one split, one of attention_merge after it.
struct Plan {
  Work work;             // without partial_out and partial_state
  int64_t grid;          // thread blocks of attention_forward; 0: there is nothing to do
  int32_t threads;       // in each
  int32_t shared_bytes;  // dynamic, in each
  int64_t merge_grid;    // thread blocks of attention_merge; 0: not launched
  // Floats of the workspace: partial_out comes first, then partial_state.
  int64_t partial_out_size, partial_state_size;
};

constexpr int64_t divide_up(int64_t a, int64_t b) { return (a + b - 1) / b; }

// Heads that share keys share a tile's rows where that makes fewer tiles, that is where queries are few; up to a
// million rows, so that the kernel's division by `pack` stays exact.
template <typename Config>
constexpr int choose_pack(const Config& c, int max_qo_len, int group) {
  const int64_t packed = int64_t{max_qo_len} * group;
  const bool fewer = divide_up(packed, c.rows()) < group * divide_up(max_qo_len, c.rows());
  return fewer && c.packs(group) && packed <= 1 << 20 && group <= 1 << 9 ? group : 1;
}

// Keys are split where query tiles alone leave multiprocessors without work: into as many parts as fit at once, but of
// at least 128 keys, which cost as much as writing and merging a part; 64 parts keep the merge short.
template <typename Config>
constexpr int choose_splits(const Config& c, int64_t blocks, int max_kv_len, int multiprocessors) {
  const int64_t room = blocks > 0 ? int64_t{multiprocessors} * c.blocks / blocks : 1, most = max_kv_len / 128;
  const int64_t splits = room < most ? room : most;
  return static_cast<int>(splits < 1 ? 1 : splits > 64 ? 64 : splits);
}

// `tokens` are the queries of all sequences: batch_size * max_qo_len where they are dense.
template <typename Config>
constexpr Plan plan(const Config& c, const Problem& problem, int64_t tokens, int multiprocessors) {
  Plan result{};
  Work& work = result.work;
  work.sharing = problem.num_qo_heads / problem.num_kv_heads;
  work.pack = choose_pack(c, problem.max_qo_len, work.sharing);
  work.pack_reciprocal = static_cast<uint32_t>(divide_up(int64_t{1} << 31, work.pack));
  work.packs = problem.num_qo_heads / work.pack;
  work.tiles = static_cast<int32_t>(divide_up(int64_t{problem.max_qo_len} * work.pack, c.rows()));
  const int64_t blocks = int64_t{work.tiles} * work.packs * problem.batch_size;
  work.splits = choose_splits(c, blocks, problem.max_kv_len, multiprocessors);
  work.rows = tokens * problem.num_qo_heads;
  result.grid = blocks * work.splits;
  result.threads = c.threads();
  result.shared_bytes = c.shared_bytes();
  if (work.splits > 1) {
    const int64_t rows = int64_t{problem.batch_size} * problem.max_qo_len * problem.num_qo_heads;
    result.merge_grid = divide_up(rows, kMergeRows);
    result.partial_out_size = work.splits * work.rows * c.dim_vo;
    result.partial_state_size = work.splits * work.rows * 2;
  }
  return result;
}

}  // namespace gpu
}  // namespace attention
}  // namespace dimorph
