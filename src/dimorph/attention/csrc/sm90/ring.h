// Blocks of work and tiles on their way from the warp that copies to the warpgroups that compute: what is in which
// slot, and who waits.
#pragma once

namespace DIMORPH_CASE {

using dimorph::attention::sm90::kStages;

constexpr int kComputeWarps = 4 * kConfig.groups, kComputeThreads = 32 * kComputeWarps;

// Behind the tiles in shared memory.
struct Signals {
  uint64_t queries_full[kConfig.query_stages], queries_empty[kConfig.query_stages];
  uint64_t keys_full[kStages], keys_empty[kStages];
  uint64_t values_full[kStages], values_empty[kStages];
  uint64_t blocks_full[kStages], blocks_empty[kStages];
  Block blocks[kStages];   // without rows: there are no more
  KeyTile first[kStages];  // tile of a block
  int32_t last[kStages];   // tile's number, where all count
  KeyTile next[kStages];   // tile after that in the slot for keys, where not all count
  int32_t again;           // whether some output was not finite
  bool aside[kStages][kKeys];
};
static_assert(sizeof(Signals) <= kConfig.shared_bytes() - kConfig.signals_at(), "room for the signals");

// Counts what went through a ring of slots: in which slot the next is, and the parity of the round.
template <int kSlots>
struct Position {
  uint32_t count = 0;
  __device__ __forceinline__ uint32_t slot() const { return count % kSlots; }
  __device__ __forceinline__ uint32_t round() const { return count / kSlots % 2; }
  __device__ __forceinline__ void next() { ++count; }
  __device__ __forceinline__ Position before() const { return {count - 1}; }
};

// The numbered barriers. A warpgroup has its turn to multiply when the one before it has passed it on.
constexpr int kTurn = 1, kGroup = kTurn + kConfig.groups, kCompute = kGroup + kConfig.groups, kAll = kCompute + 1;

__device__ inline void init_signals(Signals& signals) {
  for (int i = 0; i < kConfig.query_stages; ++i) {
    barrier_init(shared_address(&signals.queries_full[i]), 1);
    barrier_init(shared_address(&signals.queries_empty[i]), kComputeWarps);
  }
  for (int i = 0; i < kStages; ++i) {
    barrier_init(shared_address(&signals.keys_full[i]), 1);
    barrier_init(shared_address(&signals.keys_empty[i]), kComputeWarps);
    barrier_init(shared_address(&signals.values_full[i]), 1);
    barrier_init(shared_address(&signals.values_empty[i]), kComputeWarps);
    barrier_init(shared_address(&signals.blocks_full[i]), 1);
    barrier_init(shared_address(&signals.blocks_empty[i]), kComputeWarps);
  }
  signals.again = 0;
  barrier_init_done();
}

}  // namespace DIMORPH_CASE
