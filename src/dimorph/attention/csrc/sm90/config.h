// Tile sizes of the sm90 family, as pure functions of the head dims. Device code and host read the same ones.
#pragma once
#include <dimorph/attention/host_device.h>
#include <dimorph/ints.h>

#include "../gpu/head_dims.h"

namespace dimorph {
namespace attention {
namespace sm90 {

// In shared memory a matrix lies as panels of 64 columns. The 128 bytes of a panel's row are swizzled, in the way that
// TMA and wgmma have in common.
//
// Where they lie, in bytes: from a panel of keys (values) to the next, and from 8 rows of a panel to the next 8.
struct TileLayout {
  int32_t panel, group;
};
// Where a tile with this layout holds a row of its first panel, in bytes from the tile's start.
DM_HD constexpr int row_offset(TileLayout layout, int row) { return row / 8 * layout.group + row % 8 * 128; }
// The same for the 16 bytes from 16 * chunk on of a row.
DM_HD constexpr int value_chunk(TileLayout layout, int row, int chunk) {
  return chunk / 8 * layout.panel + row_offset(layout, row) + (chunk ^ row) % 8 * 16;
}

struct Config {
  int dim_qk, dim_vo;   // head dims
  int consumer_groups;  // warpgroups that compute 64 query rows each; one more warpgroup is the producer
  int tile_keys;        // keys of a tile
  int blocks_per_sm;    // thread blocks that an SM runs at once
  int query_stages;     // query tiles that shared memory holds
  int kv_stages;        // tiles of keys, and of values, that shared memory holds
  bool finds_pages;     // keys lie in pages, which the producers look up

  DM_HD constexpr int tile_rows() const { return 64 * consumer_groups; }
  // TMA loads whole queries, so a tile must hold a whole number of them.
  DM_HD constexpr bool can_pack(int heads) const { return tile_rows() % heads == 0; }
  // Of a schedule (gpu/schedule.h). A single small tile of queries for each sequence and head shares no keys.
  DM_HD constexpr int most_waves() const { return consumer_groups == 1 ? 1 : 32; }
  DM_HD constexpr int warp_rows() const { return 16; }
  DM_HD constexpr int threads() const { return 128 * (consumer_groups + 1); }
  // Registers a thread: at the launch, then of the producer's and of the consumers' threads. In all they must not be
  // more than at the launch, or a warpgroup that asks for more waits for ever.
  DM_HD constexpr int launch_registers() const { return 65536 / threads() / launch_blocks() / 8 * 8; }
  // Thread blocks that the registers of an SM suffice for at the launch, as __launch_bounds__ takes it.
  DM_HD constexpr int launch_blocks() const { return consumer_groups == 1 ? 2 : 1; }
  // A producer that looks up pages needs more.
  DM_HD constexpr int producer_registers() const {
    return finds_pages && consumer_groups < 3 ? (dim_vo > 128 ? 40 : 56) : consumer_groups == 3 ? 32 : 24;
  }
  DM_HD constexpr int consumer_registers() const {
    if (consumer_groups == 1) return 200;
    if (consumer_groups == 3) return 160;
    return finds_pages ? (dim_vo > 128 ? 232 : 224) : 240;
  }
  DM_HD constexpr bool registers_suffice() const {
    return producer_registers() + consumer_groups * consumer_registers() <= (consumer_groups + 1) * launch_registers();
  }
  DM_HD static constexpr int panels(int dim) { return (dim + 63) / 64; }
  // Of a tile of keys (values). In pages, TMA loads all panels of a few rows at once if the head dim fills them: then a
  // group of 8 rows follows the panels of the one before. Otherwise one panel follows the other.
  DM_HD constexpr TileLayout layout(int dim) const {
    return finds_pages && dim % 64 == 0 ? TileLayout{1024, panels(dim) * 1024} : TileLayout{tile_keys * 128, 1024};
  }
  DM_HD constexpr int query_bytes() const { return tile_rows() * panels(dim_qk) * 128; }
  DM_HD constexpr int key_bytes() const { return tile_keys * panels(dim_qk) * 128; }
  DM_HD constexpr int value_bytes() const { return tile_keys * panels(dim_vo) * 128; }
  // Offsets in shared memory, in bytes: the stages of queries, of keys, of values, then PipelineStorage (pipeline.h).
  DM_HD constexpr int query_offset() const { return 0; }
  DM_HD constexpr int key_offset() const { return query_stages * query_bytes(); }
  DM_HD constexpr int value_offset() const { return key_offset() + kv_stages * key_bytes(); }
  DM_HD constexpr int pipeline_offset() const { return value_offset() + kv_stages * value_bytes(); }
  DM_HD constexpr int shared_bytes() const { return pipeline_offset() + 128 + kv_stages * (192 + tile_keys); }
};

// `masks`: the variant has LogitsMask. `transforms`: it has LogitsTransform. `paged`: keys lie in pages. `few`:
// there are at most 64 query rows. `most_keys`: of a tile.
DM_HD constexpr Config choose_config(int dim_qk, int dim_vo, bool masks, bool transforms, bool paged, bool few,
                                     int most_keys = 128) {
  Config c{dim_qk, dim_vo, 0, 0, 1, 1, 2, paged};
  // Three consumers keep the tensor cores busier. Two have more registers each, which longer rows of output, and the
  // intermediate results of a transform, need.
  c.consumer_groups = dim_vo <= 64 || (dim_vo <= 128 && !transforms) ? 3 : 2;
  // As many keys as fit into the registers: per key a thread holds half a logit and a quarter of a register of weights,
  // and besides them half a row of output.
  int registers = c.consumer_groups == 3 ? 128 : dim_vo > 128 ? 180 : 196;
  if (paged && c.consumer_groups == 2) registers -= 16;
  c.tile_keys = (registers - gpu::padded(dim_vo) / 2) * 4 / 3 / 16 * 16;
  // Larger tiles compute more logits in vain at the edges of masks.
  const int most = masks && c.consumer_groups == 3 && dim_vo > 64 ? 80 : 128;
  if (c.tile_keys > most) c.tile_keys = most;
  // Few queries wait for memory alone: small tiles, so that many are under way.
  few = few && dim_vo <= 128;  // longer rows of output need the registers of two
  if (few) c.consumer_groups = 1, c.tile_keys = dim_qk <= 64 && dim_vo <= 64 ? 128 : 64;
  // Without masks and transforms a tile costs little beside its products, and a fourth stage is worth more than larger
  // tiles.
  if (!masks && !transforms && dim_qk == 128 && dim_vo == 128) c.tile_keys = 64;
  if (c.tile_keys > most_keys) c.tile_keys = most_keys;
  constexpr int kMost = 227 * 1024;  // shared memory of a thread block
  while (c.shared_bytes() > kMost) c.tile_keys -= 16;
  // With the next tile's queries already loaded, a warpgroup goes on while another still computes the current one.
  if (!few && c.shared_bytes() + c.query_bytes() <= kMost) c.query_stages = 2;
  // With more stages, the loads for the next work tile begin before the last products of the current one. With more
  // than four, multiprocessors drift apart, and some end late.
  while (c.kv_stages <= 4 && c.shared_bytes() <= kMost) ++c.kv_stages;
  --c.kv_stages;
  return c;
}

// The same where results must not depend on the batch (gpu/invariant.h): tiles have as many keys in pages as in one
// piece, and for few queries as for many.
DM_HD constexpr Config choose_invariant_config(int dim_qk, int dim_vo, bool masks, bool transforms, bool paged,
                                               bool few) {
  int most = 128;
  for (int kind = 0; kind < 4; ++kind) {
    const int keys = choose_config(dim_qk, dim_vo, masks, transforms, kind / 2, kind % 2).tile_keys;
    if (keys < most) most = keys;
  }
  return choose_config(dim_qk, dim_vo, masks, transforms, paged, few, most);
}

}  // namespace sm90
}  // namespace attention
}  // namespace dimorph
