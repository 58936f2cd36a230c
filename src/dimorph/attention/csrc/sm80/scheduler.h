// The work tile of each thread block, in the order that scheduler_params.h describes.
#pragma once
#include <dimorph/attention/math.h>

#include "../gpu/contract.h"
#include "../gpu/ptx.h"
#include "../gpu/work_tile.h"

namespace DIMORPH_CASE {

// Finds the work tile of the thread block with that index; false if its sequence has no such tile.
__device__ __forceinline__ bool find_work_tile(const Params& p, int index, WorkTile& work) {
  const int unit = divide_uniform(index, p.splits), group = divide_uniform(unit, p.group * p.query_tiles);
  const int rest = unit - group * p.group * p.query_tiles;
  const int size =
      dm::math::min(p.group, p.all_head_packs - group * p.group);  // of this group; the last one may be smaller
  const int rank = divide_uniform(rest, size), tile = p.query_tiles - 1 - rank;
  const int pack = group * p.group + rest - rank * size;  // of all sequences
  const int batch = divide_uniform(pack, p.head_packs);
  work.split = index - unit * p.splits;
  set_sequence(p, batch, p.get_kv_len(batch), pack - batch * p.head_packs, work);
  if (tile >= query_tiles(p, work.qo_len)) return false;
  set_rows(p, tile, work);
  return true;
}

}  // namespace DIMORPH_CASE
