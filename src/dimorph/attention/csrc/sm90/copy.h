// The warp that copies: finds blocks of work, says which they are, and copies their queries and then their tiles of
// keys and values, as slots become free.
#pragma once

namespace DIMORPH_CASE {

class Copier {
 public:
  __device__ Copier(const Params& p, unsigned char* shared, Signals& signals)
      : p_(p), shared_(shared_address(shared)), signals_(signals) {
    if (threadIdx.x % 32 != 0) return;
    prefetch_map(p.q_map);
    prefetch_map(p.k_map);
    prefetch_map(p.v_map);
  }

  // All lanes of the warp call it; one copies.
  __device__ __forceinline__ void copy_all() {
    Schedule schedule(p_);
    for (int number = schedule.first(); number < schedule.end(); number = schedule.next(number)) {
      Block block;
      if (!schedule.find(number, block)) continue;
      announce(block);
      Variant variant = dm::hooks::make<Variant>(p_, block.batch);
      copy(block, variant);
    }
    Block none{};
    none.batch = -1;
    announce(none);
  }

 private:
  __device__ __forceinline__ void announce(const Block& block) {
    barrier_wait(shared_address(&signals_.blocks_empty[blocks_.slot()]), blocks_.round() ^ 1);
    if (threadIdx.x % 32 == 0) {
      signals_.blocks[blocks_.slot()] = block;
      barrier_arrive(shared_address(&signals_.blocks_full[blocks_.slot()]));
    }
    blocks_.next();
  }

  __device__ __forceinline__ void copy(const Block& block, Variant& variant) {
    KeyTiles tiles(p_, block, variant);
    int tile = tiles.first;
    if (tile < 0) return;
    load_keys(block, tile, tiles_);
    load_queries(block);
    // Keys are a tile ahead: their product is wanted before that with the values.
#pragma unroll 1
    while (tile >= 0) {
      const int next = tiles.after(tile);
      if (next >= 0) load_keys(block, next, tiles_.following());
      load_values(block, tile, tiles_);
      tiles_.next();
      tile = next;
    }
  }

  const Params& p_;
  uint32_t shared_;
  Signals& signals_;
  Position tiles_, blocks_;
  uint32_t queries_round_ = 0;

  // Where a sequence begins in the tensors: ragged ones are one long sequence.
  __device__ __forceinline__ int batch(const Block& block) const { return p_.cu_seqlens_q ? 0 : block.batch; }

  __device__ __forceinline__ void load_queries(const Block& block) {
    const uint32_t full = shared_address(&signals_.queries_full);
    barrier_wait(shared_address(&signals_.queries_empty), queries_round_ ^ 1);
    queries_round_ ^= 1;
    if (threadIdx.x % 32 != 0) return;
    barrier_announce(full, kConfig.query_bytes());
    const int row = first_query(p_, block) + row_at(p_, block, block.row0).q;
#pragma unroll 1
    for (int c = 0; c < kConfig.columns(HEAD_DIM_QK); ++c)
      load_box(shared_ + kConfig.queries_at() + c * kConfig.rows() * 128, p_.q_map, full, kOnce, c * 64, 0, row,
               block.first_head / p_.pack, batch(block));
  }

  __device__ __forceinline__ void load_keys(const Block& block, int tile, Position at) {
    const uint32_t full = shared_address(&signals_.keys_full[at.slot()]);
    barrier_wait(shared_address(&signals_.keys_empty[at.slot()]), at.round() ^ 1);
    load(block, tile, p_.k_map, full, kConfig.keys_at() + at.slot() * kConfig.key_bytes(), kConfig.key_bytes());
  }
  __device__ __forceinline__ void load_values(const Block& block, int tile, Position at) {
    const uint32_t full = shared_address(&signals_.values_full[at.slot()]);
    barrier_wait(shared_address(&signals_.values_empty[at.slot()]), at.round() ^ 1);
    load(block, tile, p_.v_map, full, kConfig.values_at() + at.slot() * kConfig.value_bytes(), kConfig.value_bytes());
  }
  __device__ __forceinline__ void load(const Block& block, int tile, const TensorMap& map, uint32_t full, int to,
                                       int bytes) {
    if (threadIdx.x % 32 != 0) return;
    barrier_announce(full, bytes);
    const int row = first_key(p_, block) + tile * kKeys;
#pragma unroll 1
    for (int c = 0; c * kKeys * 128 < bytes; ++c)
      load_box(shared_ + to + c * kKeys * 128, map, full, kKeep, c * 64, row, block.kv_head, batch(block));
  }
};

}  // namespace DIMORPH_CASE
