// Makes the schedule (schedule.h) of one problem on the GPU: one thread block, which reads the lengths of sequences.
#include <dimorph/attention/math.h>
#include <dimorph/attention/variants.h>
#include <dimorph/device.h>
#include <dimorph/ints.h>

#include "contract.h"
#include "key_tiles.h"
#include "schedule.h"
#include "work_tile.h"

namespace DIMORPH_CASE {

__device__ inline int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }
__device__ inline int64_t larger(int64_t a, int64_t b) { return a < b ? b : a; }

// The sum of the values of this lane and those before it.
__device__ inline int64_t warp_scan(int64_t value) {
#pragma unroll
  for (int step = 1; step < 32; step *= 2) {
    const int64_t other = __shfl_up_sync(0xffffffffu, value, step);
    if (static_cast<int>(threadIdx.x % 32) >= step) value += other;
  }
  return value;
}

// Replaces each thread's value by the sum of those before it; returns the sum of all.
__device__ inline int64_t exclusive_scan(int64_t& value) {
  __shared__ int64_t sums[32];
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  const int64_t own = value, sum = warp_scan(own);
  if (lane == 31) sums[warp] = sum;
  __syncthreads();
  const int64_t warps = warp_scan(sums[lane]);  // each warp adds up all
  value = sum - own + (warp > 0 ? __shfl_sync(0xffffffffu, warps, (warp + 31) % 32) : 0);
  const int64_t all = __shfl_sync(0xffffffffu, warps, 31);
  __syncthreads();  // before the next scan writes
  return all;
}

// The largest of all threads' values.
__device__ inline int block_max(int value) {
  __shared__ int most;
  if (threadIdx.x == 0) most = 0;
  __syncthreads();
  for (int step = 16; step > 0; step /= 2) value = dm::math::max(value, shuffle_xor(value, step));
  if (threadIdx.x % 32 == 0) atomicMax(&most, value);
  __syncthreads();
  return most;
}

// The tiles of keys that a query tile needs, among those that step by `step` from `first` on.
__device__ inline int count_tiles(const Params& p, int batch, int tile, int first, int step) {
  WorkTile work;
  work.batch = batch;
  work.first_head = 0;
  work.qo_len = p.get_qo_len(batch);
  work.kv_len = p.get_kv_len(batch);
  const int all = (work.kv_len + kTileKeys - 1) / kTileKeys;
  set_rows(p, tile, work);
  Variant variant = dm::hooks::make<Variant>(p, batch);
  const int q0 = row_at(p, work, work.first_row).q, q1 = row_at(p, work, work.last_row).q + 1;
  int count = 0;
#pragma unroll 1
  for (int i = first; i < all; i += step) {
    const int k0 = i * kTileKeys;
    count +=
        dm::hooks::classify_tile(variant, q0, q1, k0, dm::math::min(k0 + kTileKeys, work.kv_len)) != TileClass::kSkip;
  }
  return count;
}

// Sets the tiles of keys of each unit. Few units may have many: then a warp counts those of one.
__device__ inline void set_counts(const Params& p, gpu::Unit* units, int count) {
  const int thread = static_cast<int>(threadIdx.x);
  constexpr bool kClassified = KeyTileIterator::kClassified;
  const bool by_warps = kClassified && count <= 8 * 32;
#pragma unroll 1
  for (int i = by_warps ? thread / 32 : thread; i < count; i += by_warps ? 32 : gpu::kScheduleThreads) {
    const int batch = units[i].batch;
    if constexpr (!kClassified) {
      units[i].count = (units[i].kv_len + kTileKeys - 1) / kTileKeys;
    } else {
      int tiles = count_tiles(p, batch, units[i].tile, by_warps ? thread % 32 : 0, by_warps ? 32 : 1);
      if (by_warps) tiles = __reduce_add_sync(0xffffffffu, tiles);
      units[i].count = tiles;
    }
  }
}

// Replaces query tiles that are long beside the share of a thread block by a unit for each part of their keys, as far
// as there are slots: the longest ones. Returns the number of units.
__device__ inline int split_units(const Params& p, const gpu::Schedule& s, int units) {
  const int thread = static_cast<int>(threadIdx.x), blocks = s.groups * s.lanes;
  const int slots = gpu::invariant_slots(blocks, s.slot_rows);
  const gpu::PartTable table = gpu::part_table(s, slots);
  const auto parts_of = [&](int unit) {
    return (s.units[unit].kv_len + gpu::kPartTiles * kTileKeys - 1) / (gpu::kPartTiles * kTileKeys);
  };
  // The sum of value(unit) over all units.
  const auto sum = [&](auto value) {
    int64_t all = 0;
#pragma unroll 1
    for (int first = 0; first < units; first += gpu::kScheduleThreads) {
      int64_t before = first + thread < units ? value(first + thread) : 0;
      all += exclusive_scan(before);
    }
    return all;
  };
  const int64_t cost = sum([&](int unit) -> int64_t { return s.units[unit].count + gpu::kUnitCost; });
  int64_t least = larger(gpu::kPartTiles, cost * p.head_packs / blocks * 5 / 4);
  const auto parts_if_long = [&](int unit) -> int64_t { return s.units[unit].count > least ? parts_of(unit) : 0; };
#pragma unroll 1
  while (sum(parts_if_long) * p.head_packs > slots) least *= 2;
  int all = units;
  int64_t done = 0;  // parts of the units before
#pragma unroll 1
  for (int first = 0; first < units; first += gpu::kScheduleThreads) {
    const int unit = first + thread, parts = unit < units ? static_cast<int>(parts_if_long(unit)) : 0;
    int64_t before = parts, more = parts > 1 ? parts - 1 : 0;
    const int64_t all_before = exclusive_scan(before), all_more = exclusive_scan(more);
    if (unit < units) table.units[unit] = {parts > 1 ? 0 : -1, static_cast<int>((done + before) * p.head_packs)};
#pragma unroll 1
    for (int i = 1; i < parts; ++i) {
      const int place = all + static_cast<int>(more) + i - 1;
      s.units[place] = s.units[unit];
      table.units[place] = {i, table.units[unit].first_slot};
    }
    done += all_before;
    all += static_cast<int>(all_more);
  }
  for (int i = thread; i < slots; i += gpu::kScheduleThreads) table.arrivals[i] = table.nonfinite[i] = 0;
  __syncthreads();
  // A warp counts the tiles of a part.
#pragma unroll 1
  for (int unit = thread / 32; unit < all; unit += 32) {
    const int part = table.units[unit].number;
    if (part < 0) continue;
    const int tile = part * gpu::kPartTiles + thread % 32;
    const int count = count_tiles(p, s.units[unit].batch, s.units[unit].tile, tile, 1 << 30);
    const int tiles = __reduce_add_sync(0xffffffffu, static_cast<unsigned>(count));
    if (thread % 32 == 0) s.units[unit].count = tiles;
  }
  return all;
}

// The cut near x on the line of all units, of which each pack has `units` with these costs before each: between two
// units or, unless `whole`, at least kLeastPart tiles of keys from the ends of one. Sets x to where it is.
__device__ inline gpu::Cut find_cut(const gpu::Schedule& s, const int64_t* costs, int units, int64_t cost, bool whole,
                                    int64_t& x) {
  const int pack = static_cast<int>(x / cost);
  const int64_t rest = x - pack * cost;
  int low = 0, high = units;  // the last unit that begins at `rest` or before it lies in [low, high)
  while (high - low > 1) {
    const int middle = (low + high) / 2;
    (costs[middle] <= rest ? low : high) = middle;
  }
  const int count = s.units[low].count;
  int skip = dm::math::max(0, static_cast<int>(rest - costs[low]) - gpu::kUnitCost);
  // One that needs no tiles is not passed over either: nothing would be written for it.
  const int least = whole ? dm::math::max(1, (count + 1) / 2) : gpu::kLeastPart;
  if (skip < least)
    skip = 0;
  else if (whole || count - skip < least)
    skip = 0, ++low;
  x = pack * cost + (low == units ? cost : costs[low]) + skip + (skip > 0 ? gpu::kUnitCost : 0);
  return {low == units ? pack + 1 : pack, low == units ? 0 : low, skip, 0, 0, units, 0, 0, {}};
}

extern "C" __global__ void __launch_bounds__(gpu::kScheduleThreads)
    attention_schedule(const __grid_constant__ Params params) {
  const Params& p = params;
  const gpu::Schedule& s = p.schedule;
  const int thread = static_cast<int>(threadIdx.x);
  dimorph::cuda::let_next_start();
  dimorph::cuda::wait_for_previous();

  int units = 0;
#pragma unroll 1
  for (int first = 0; first < p.batch_size; first += gpu::kScheduleThreads) {
    const int batch = first + thread;
    const int tiles = batch < p.batch_size ? query_tiles(p, p.get_qo_len(batch)) : 0;
    int64_t before = tiles;
    const int64_t all = exclusive_scan(before);
#pragma unroll 1
    for (int tile = 0; tile < tiles && units + before + tile < s.most_units; ++tile)
      s.units[units + before + tile] = {batch, tile, 0, p.get_kv_len(batch)};
    units = dm::math::min(units + static_cast<int>(all), s.most_units);
  }
  __syncthreads();
  set_counts(p, s.units, units);
  __syncthreads();
  if constexpr (BATCH_INVARIANT) {
    units = split_units(p, s, units);
    __syncthreads();
  }
  // Of few units the costs are searched in shared memory.
  __shared__ int64_t near[gpu::kScheduleThreads];
  int64_t* const costs = units <= gpu::kScheduleThreads ? near : s.costs;
  int64_t cost = 0, longest = 0;
#pragma unroll 1
  for (int first = 0; first < units; first += gpu::kScheduleThreads) {
    const int unit = first + thread;
    int64_t before = unit < units ? s.units[unit].count + gpu::kUnitCost : 0;
    longest = larger(longest, before);
    const int64_t all = exclusive_scan(before);
    if (unit < units) costs[unit] = cost + before;
    cost += all;
  }
  __syncthreads();

  // Waves whose pieces are longer than any unit, so that no piece is far from its length.
  const int packs = p.head_packs / s.lanes;
  const int64_t all = cost * packs;
  const int64_t wave = int64_t{s.groups} * (block_max(static_cast<int>(longest)) + 2 * gpu::kLeastPart);
  const int waves = static_cast<int>(larger(1, smaller(all / wave, s.most_waves)));
  // Pieces of the last wave are at least kLeastPart long, so that no two cuts lie at one place inside of a unit.
  const bool few = all < int64_t{s.groups} * gpu::kLeastPart;
  const auto share = [&](int group) {
    return few ? smaller(int64_t{group} * gpu::kLeastPart, all) : all * group / s.groups;
  };
  __shared__ gpu::Cut cuts[gpu::kMostBlocks + 1];
  __shared__ int64_t places[gpu::kMostBlocks + 1];
  int64_t begin = 0, done = 0;  // of the wave; by this thread's group
#pragma unroll 1
  for (int w = 0; w < waves; ++w) {
    const bool last = w == waves - 1;
    const int64_t target = last ? share(thread + 1) - share(thread) : all * (w + 1) / waves / s.groups;
    int64_t x = thread < s.groups ? larger(target - done, 0) : 0;
    exclusive_scan(x);
    x = thread == s.groups && last ? all : smaller(begin + x, all);
    if (thread <= s.groups) {
      cuts[thread] = x == all ? gpu::Cut{packs, 0, 0, 0, 0, units, 0, 0}
                              : find_cut(s, costs, units, cost, BATCH_INVARIANT || !last, x);
      places[thread] = x;
    }
    __syncthreads();
    if (thread <= s.groups) {
      gpu::Cut cut = cuts[thread];
      const auto inside = [&](int i) {
        return cuts[i].skip > 0 && cuts[i].unit == cut.unit && cuts[i].pack == cut.pack;
      };
      if (cut.skip > 0) {
        cut.first = cut.last = thread;
        while (inside(cut.first)) --cut.first;  // the first cut is inside of no unit, and neither is the last one
        while (inside(cut.last + 1)) ++cut.last;
      }
      cut.waves = waves;
      if (cut.unit < units) cut.at = s.units[cut.unit];
      s.cuts[w * (s.groups + 1) + thread] = cut;
    }
    if (thread < s.groups) done += places[thread + 1] - places[thread];
    begin = places[s.groups];
    __syncthreads();  // before the next wave writes
  }
  if (thread < s.groups * s.lanes) s.arrivals[thread] = 0;
}

}  // namespace DIMORPH_CASE
