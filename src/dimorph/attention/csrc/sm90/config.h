// Tile sizes of the sm90 family, as pure functions of the head dims: the device code and the host's plan read the same.
#pragma once
#include <dimorph/attention/host_device.h>

namespace dimorph {
namespace attention {
namespace sm90 {

// Matrices lie in shared memory as columns of 64 elements, whose rows of 128 bytes are swizzled as the copy engine and
// the matrix instructions do it.
struct Config {
  int dim_qk, dim_vo;
  int groups;        // warpgroups that compute, of 64 query rows each; one more copies
  int keys;          // a tile
  int blocks;        // thread blocks an SM
  int query_stages;  // tiles of queries in shared memory at a time
  int stages;        // tiles of keys, and of values, in shared memory at a time

  DM_HD constexpr int rows() const { return 64 * groups; }
  // Whether rows of a tile may be queries of so many heads: a copy moves whole queries.
  DM_HD constexpr bool packs(int heads) const { return rows() % heads == 0; }
  DM_HD constexpr int warp_rows() const { return 16; }
  DM_HD constexpr int threads() const { return 128 * (groups + 1); }
  // Registers a thread: at the start, then of the warpgroup that copies and of those that compute. They are no more
  // than at the start, or those that want more wait for ever.
  DM_HD constexpr int start_registers() const { return 65536 / threads() / 8 * 8; }
  DM_HD constexpr int copy_registers() const { return groups == 3 ? 32 : 24; }
  DM_HD constexpr int compute_registers() const { return groups == 3 ? 160 : 240; }
  DM_HD constexpr bool registers_suffice() const {
    return copy_registers() + groups * compute_registers() <= (groups + 1) * start_registers();
  }
  DM_HD static constexpr int columns(int dim) { return (dim + 63) / 64; }
  DM_HD constexpr int query_bytes() const { return rows() * columns(dim_qk) * 128; }
  DM_HD constexpr int key_bytes() const { return keys * columns(dim_qk) * 128; }
  DM_HD constexpr int value_bytes() const { return keys * columns(dim_vo) * 128; }
  // Shared memory: tiles of queries; of keys, of values; then Signals.
  DM_HD constexpr int queries_at() const { return 0; }
  DM_HD constexpr int keys_at() const { return query_stages * query_bytes(); }
  DM_HD constexpr int values_at() const { return keys_at() + stages * key_bytes(); }
  DM_HD constexpr int signals_at() const { return values_at() + stages * value_bytes(); }
  DM_HD constexpr int shared_bytes() const { return signals_at() + 128 + stages * (192 + keys); }
};

// Whether the variant masks logits, whether it changes them.
DM_HD constexpr Config choose(int dim_qk, int dim_vo, bool masks, bool transforms) {
  Config c{dim_qk, dim_vo, 0, 0, 1, 1, 2};
  // Three warpgroups keep the tensor cores busier than two, whose registers hold more: longer rows of output, and what
  // transforms work on.
  c.groups = dim_vo <= 64 || (dim_vo <= 128 && !transforms) ? 3 : 2;
  // A thread holds a logit for every two keys, half as many weights and half a row of output.
  const int registers = c.groups == 3 ? 128 : dim_vo > 128 ? 180 : 196;
  c.keys = (registers - dim_vo / 2) * 4 / 3 / 16 * 16;
  // Large tiles waste work at the edges of masks.
  const int most = masks && c.groups == 3 && dim_vo > 64 ? 80 : 128;
  if (c.keys > most) c.keys = most;
  // Without masks a tile costs little beside its products, and a fourth slot is worth more than larger tiles.
  if (!masks && !transforms && dim_qk == 128 && dim_vo == 128) c.keys = 64;
  constexpr int kMost = 227 * 1024;
  while (c.shared_bytes() > kMost) c.keys -= 16;
  // With the next queries there, a warpgroup goes on while another one is not done with its block of work.
  if (c.shared_bytes() + c.query_bytes() <= kMost) c.query_stages = 2;
  // With more tiles there, the copies for the next block of work begin before the last products of one.
  while (c.stages <= 4 && c.shared_bytes() <= kMost) ++c.stages;
  --c.stages;
  return c;
}

}  // namespace sm90
}  // namespace attention
}  // namespace dimorph
