// Tile sizes of the sm80 family, as pure functions of the head dims. Device code and host read the same ones.
#pragma once
#include <dimorph/attention/host_device.h>

#include "../gpu/head_dims.h"

namespace dimorph {
namespace attention {
namespace sm80 {

DM_HD constexpr int smaller(int a, int b) { return a < b ? a : b; }
DM_HD constexpr int larger(int a, int b) { return a < b ? b : a; }

struct Config {
  int dim_qk, dim_vo;  // head dims
  int row_tiles;       // tiles of 16 query rows that a warp computes
  int warps;           // of a thread block
  int blocks_per_sm;   // thread blocks that an SM runs at once
  int tile_keys;       // keys of a tile, whose logits are in registers at once
  int kv_bytes;        // of an element of keys and values in storage
  // Parts of 16 along dim_qk whose queries stay in registers; the others are loaded again for each tile.
  int resident_query_parts;

  DM_HD constexpr int warp_rows() const { return 16 * row_tiles; }
  DM_HD constexpr int tile_rows() const { return warp_rows() * warps; }
  DM_HD constexpr int threads() const { return 32 * warps; }
  DM_HD constexpr bool can_pack(int) const { return true; }
  // Bytes from one row to the next in shared memory. An odd number of 16-byte chunks puts any 8 consecutive rows into
  // different banks, so that ldmatrix has no conflicts, for every head dim and at constant offsets from one address.
  DM_HD static constexpr int pitch(int dim) { return 2 * gpu::padded(dim) + 16; }
  DM_HD constexpr int pitch_qk() const { return pitch(dim_qk); }
  DM_HD constexpr int pitch_vo() const { return pitch(dim_vo); }
  // The same for keys (values) in storage.
  DM_HD constexpr int kv_pitch(int dim) const { return kv_bytes == 2 ? pitch(dim) : (dim / 16 | 1) * 16; }
  // Rows that the thread block copies at a time, 16 bytes a thread.
  DM_HD constexpr int rows_per_copy(int dim) const { return threads() / (dim * kv_bytes / 16); }
  // Offsets in shared memory, in bytes: two stages of keys, two of values, the queries. The output lies over all of
  // them at the end.
  DM_HD constexpr int key_offset() const { return 0; }
  DM_HD constexpr int value_offset() const { return 2 * tile_keys * kv_pitch(dim_qk); }
  DM_HD constexpr int query_offset() const { return value_offset() + 2 * tile_keys * kv_pitch(dim_vo); }
  DM_HD constexpr int shared_bytes() const {
    return larger(query_offset() + tile_rows() * pitch_qk(), tile_rows() * pitch_vo());
  }
  // Whether an SM with so much shared memory runs blocks_per_sm thread blocks. Besides the dynamic part each needs 1 KB
  // that the system takes, and one byte a key (nonfinite.h).
  DM_HD constexpr bool fits(int kilobytes) const {
    return blocks_per_sm * (shared_bytes() + tile_keys + 1024) <= kilobytes * 1024;
  }
};

// Shared memory of an SM in KB (CUDA C++ programming guide, compute capabilities).
DM_HD constexpr int shared_kilobytes(int arch) {
  return arch >= 90 && arch < 120 ? 228 : arch == 80 || arch == 87 ? 164 : 100;
}

// `arch`: what the device code is compiled for, such as 80, 86, 90. `transforms`: the variant has LogitsTransform.
// `float8`: keys and values have 8 bits. `few_rows`: a KV head's queries fit the rows of one warp.
DM_HD constexpr Config choose_config(int dim_qk, int dim_vo, int arch, bool transforms, bool float8 = false,
                                     bool few_rows = false) {
  Config c{dim_qk, dim_vo, 0, 0, 0, 0, float8 ? 1 : 2, 0};
  const int shared = shared_kilobytes(arch);
  if (few_rows) {
    // Keys are converted and multiplied by every warp that there is work for: with blocks of one warp, as many as fit,
    // by all of an SM. 255 registers a thread leave room for eight.
    c.row_tiles = c.warps = 1;
    c.tile_keys = 32;
    c.blocks_per_sm = 8;
    while (!c.fits(shared)) --c.blocks_per_sm;
    c.resident_query_parts = smaller(dim_qk / 16, dim_vo <= 128 ? 8 : 0);
    return c;
  }
  // Each row of a warp uses the keys and values that the warp reads from shared memory once more, and after the tensor
  // cores these reads are the bottleneck. 32 rows of more than 128 outputs do not fit into the registers.
  // Nor do 32 rows of more than 64 beside converted elements and a transform.
  const bool narrow = dim_vo <= (float8 && transforms ? 64 : 128);
  c.row_tiles = narrow ? 2 : 1;
  // Two blocks that wait at different times keep the tensor cores busy; a single block needs eight warps for that.
  c.warps = narrow || shared < 164 ? 4 : 8;
  c.blocks_per_sm = narrow ? 2 : 1;
  // A tile costs about 350 cycles beside its products, so it is as large as shared memory and registers allow.
  c.tile_keys = float8 ? 32 : 64;  // converting takes registers
  if (!c.fits(shared)) c.tile_keys = 32;
  if (!c.fits(shared)) c.blocks_per_sm = 1;
  if (!c.fits(shared)) c.tile_keys = 16;
  // As many as there are registers left for, after output and logits. Where that is none, registers are worth more for
  // loading keys and values ahead of their use.
  const int resident = float8 ? 0 : dim_vo <= 64 ? 2 : dim_vo <= 128 || transforms ? 0 : 8;
  c.resident_query_parts = smaller(gpu::padded(dim_qk) / 16, resident);
  return c;
}

}  // namespace sm80
}  // namespace attention
}  // namespace dimorph
