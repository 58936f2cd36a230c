// The work tiles of a thread block, one after the other, by a schedule (gpu/schedule.h).
#pragma once
#include <dimorph/attention/math.h>
#include <dimorph/ints.h>

#include "../../gpu/contract.h"
#include "../../gpu/ptx.h"
#include "../../gpu/schedule.h"
#include "../../gpu/work_tile.h"

namespace DIMORPH_CASE {

class WorkTiles {
 public:
  __device__ explicit WorkTiles(const Params& p) : p_(p) {}

  // Finds the next work tile; false after the last. All lanes of a warp must call it together. Little is kept from one
  // to the next, because registers are few.
  __device__ __forceinline__ bool next(WorkTile& work) {
    const int group = static_cast<int>(blockIdx.y);
#pragma unroll 1
    for (;; ++wave_, done_ = 0) {
      const gpu::Cut* const cut = p_.schedule.cuts + wave_ * (p_.schedule.groups + 1) + group;
      const gpu::Cut &begin = cut[0], &end = cut[1];
      const int place = begin.unit + done_, packs = divide_uniform(place, dm::math::max(begin.units, 1));
      const int pack = begin.pack + packs, index = place - packs * begin.units, skip = done_ == 0 ? begin.skip : 0;
      const bool at_end = pack == end.pack && index == end.unit;
      if (pack > end.pack || (pack == end.pack && index > end.unit) || (at_end && skip >= end.skip)) {
        if (wave_ + 1 >= begin.waves) return false;
        continue;
      }
      ++done_;
      // The last part takes all tiles that are left, even if they are more than the schedule was made for.
      work.set(skip, at_end ? end.skip - skip : 0x7fffffff, skip > 0 ? begin.first : group,
               skip > 0 ? begin.last
               : at_end ? end.last
                        : group);
      const gpu::Unit unit = done_ == 1 ? begin.at : p_.schedule.units[index];
      const int own_pack = pack * static_cast<int>(gridDim.x) + static_cast<int>(blockIdx.x);
      work.set_unit(p_, index, own_pack, unit.kv_len);
      set_sequence(p_, unit.batch, unit.kv_len, own_pack, work);
      set_rows(p_, unit.tile, work);
      return true;
    }
  }

 private:
  const Params& p_;
  int wave_ = 0, done_ = 0;  // work tiles of the wave
};

}  // namespace DIMORPH_CASE
