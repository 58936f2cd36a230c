// How the keys of a work tile are divided among thread blocks of a launch that the host has planned (plan.h): into
// equal parts, as many for each work tile, whose results attention_merge joins. A family's family.h includes it.
#pragma once
#include <dimorph/attention/math.h>
#include <dimorph/ints.h>

#include "contract.h"

namespace DIMORPH_CASE {

// The part of the keys that a thread block computes.
struct KeyPart {
  int split;  // its number

  __device__ __forceinline__ bool first(int) const { return split == 0; }
  // Whether it is one of several, whose results are merged.
  __device__ __forceinline__ bool is_part(const Params& p) const { return p.splits > 1; }
  __device__ __forceinline__ int part() const { return split; }  // see invariant.h
  // Sets which of `all` tiles of keys belong to the part.
  static constexpr bool kByCount = true;
  __device__ __forceinline__ void find_range(const Params& p, int all, int& skip, int& remaining) const {
    const int share = (all + p.splits - 1) / p.splits;
    skip = dm::math::min(split * share, all);
    remaining = dm::math::min(share, all - skip);
  }
};

// Where a row of the part's result lies in the workspace.
template <typename WorkTile>
__device__ __forceinline__ int64_t partial_place(const Params& p, const WorkTile& work, int row, int, int) {
  const auto at = row_at(p, work, row);
  return work.split * p.total_rows + (p.get_qo_start(work.batch) + at.q) * p.num_qo_heads + at.head;
}

}  // namespace DIMORPH_CASE
