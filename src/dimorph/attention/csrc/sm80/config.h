// Tile sizes of the sm80 family, as pure functions of the head dims: the device code and the host's plan read the same.
#pragma once
#include <dimorph/attention/host_device.h>

namespace dimorph {
namespace attention {
namespace sm80 {

DM_HD constexpr int smaller(int a, int b) { return a < b ? a : b; }
DM_HD constexpr int larger(int a, int b) { return a < b ? b : a; }

struct Config {
  int dim_qk, dim_vo;
  int m_tiles;  // tiles of 16 query rows a warp
  int warps;
  int blocks;  // thread blocks an SM
  int keys;    // a tile, whose logits are in registers at a time
  int held;    // parts of 16 along dim_qk whose queries stay in registers; the others are read again for each tile

  DM_HD constexpr int warp_rows() const { return 16 * m_tiles; }
  DM_HD constexpr int rows() const { return warp_rows() * warps; }
  DM_HD constexpr int threads() const { return 32 * warps; }
  DM_HD constexpr bool packs(int) const { return true; }
  // Bytes from one row to the next in shared memory. An odd number of 16-byte chunks puts any 8 consecutive rows into
  // different banks, so matrices load without conflicts, for every head dim and at constant offsets from one address.
  DM_HD constexpr int pitch_qk() const { return 2 * dim_qk + 16; }
  DM_HD constexpr int pitch_vo() const { return 2 * dim_vo + 16; }
  // Rows that the block's threads copy at once, 16 bytes each.
  DM_HD constexpr int rows_at_once(int dim) const { return threads() / (dim / 8); }
  // Shared memory: two tiles of keys, two of values, the queries; at last the output.
  DM_HD constexpr int keys_at() const { return 0; }
  DM_HD constexpr int values_at() const { return 2 * keys * pitch_qk(); }
  DM_HD constexpr int queries_at() const { return values_at() + 2 * keys * pitch_vo(); }
  DM_HD constexpr int shared_bytes() const { return larger(queries_at() + rows() * pitch_qk(), rows() * pitch_vo()); }
  // Whether a multiprocessor with so much shared memory runs the blocks; the kernel has a few bytes of its own.
  DM_HD constexpr bool fits(int kilobytes) const { return blocks * (shared_bytes() + keys + 1024) <= kilobytes * 1024; }
};

// Shared memory of a multiprocessor, in KB; a block may have 1 KB less, which is what each block costs besides its own.
DM_HD constexpr int shared_kilobytes(int arch) {
  return arch >= 90 && arch < 120 ? 228 : arch == 80 || arch == 87 ? 164 : 100;
}

// `arch` is what the device code is compiled for: 80, 86, 90. `transforms`: the variant changes logits.
DM_HD constexpr Config choose(int dim_qk, int dim_vo, int arch, bool transforms) {
  Config c{dim_qk, dim_vo, 0, 0, 0, 0, 0};
  const int shared = shared_kilobytes(arch);
  // Each row of a warp adds a use to the keys and values it reads from shared memory, which is the bound after the
  // tensor cores; 32 rows of more than 128 outputs do not fit the registers.
  c.m_tiles = dim_vo <= 128 ? 2 : 1;
  // Two blocks that wait at different times keep the tensor cores busy; with one, its eight warps must.
  c.warps = dim_vo <= 128 || shared < 164 ? 4 : 8;
  c.blocks = dim_vo <= 128 ? 2 : 1;
  // A tile costs some 350 cycles beside its products, so it is as large as shared memory and registers allow.
  c.keys = 64;
  if (!c.fits(shared)) c.keys = 32;
  if (!c.fits(shared)) c.blocks = 1;
  if (!c.fits(shared)) c.keys = 16;
  // What registers are left after output and logits. Fewer loads pay less than loads ahead of their use.
  c.held = smaller(dim_qk / 16, dim_vo <= 64 ? 2 : dim_vo <= 128 || transforms ? 0 : 8);
  return c;
}

}  // namespace sm80
}  // namespace attention
}  // namespace dimorph
