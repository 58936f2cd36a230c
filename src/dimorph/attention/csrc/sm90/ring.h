// Blocks of work and tiles on their way from the warp that copies to the warpgroups that compute: what is in which
// slot, and who waits.
#pragma once
#include <dimorph/ints.h>

#include "../gpu/block.h"
#include "../gpu/contract.h"
#include "../gpu/ptx.h"
#include "barriers.h"

namespace DIMORPH_CASE {

constexpr int kStages = kConfig.stages;
constexpr int kComputeWarps = 4 * kConfig.groups, kComputeThreads = 32 * kComputeWarps;

// Behind the tiles in shared memory. There are two of what all lanes of a warp read for each slot, which one of them
// gives back: so all have met others before it is written again. Their own meeting would do, but the assembler leaves
// it out where they are together anyway, and compute-sanitizer knows nothing of it then.
struct Signals {
  uint64_t queries_full[kConfig.query_stages], queries_empty[kConfig.query_stages];
  uint64_t keys_full[kStages], keys_empty[kStages];
  uint64_t values_full[kStages], values_empty[kStages];
  uint64_t blocks_full[kStages], blocks_empty[kStages];
  Block blocks[2 * kStages];   // without rows: there are no more
  KeyTile first[2 * kStages];  // tile of a block
  int32_t last[2 * kStages];   // tile's number, where all count
  KeyTile next[2 * kStages];   // tile after that in the slot for keys, where not all count
  int32_t again;               // whether some output was not finite
  bool aside[kStages][kKeys];
};
static_assert(sizeof(Signals) <= kConfig.shared_bytes() - kConfig.signals_at(), "room for the signals");

// Where in a ring of slots the next is: in which slot, and the parity of the round.
template <int kSlots, bool kCounted = kStages == 2>
struct Position {
  uint32_t at = 0, parity = 0;
  __device__ __forceinline__ uint32_t slot() const { return at; }
  __device__ __forceinline__ uint32_t round() const { return parity; }
  __device__ __forceinline__ uint32_t of_two() const { return parity * kSlots + at; }
  __device__ __forceinline__ void next() {
    at = at == kSlots - 1 ? 0 : at + 1;
    parity ^= at == 0;
  }
  __device__ __forceinline__ Position before() const {
    return {at == 0 ? kSlots - 1 : at - 1, parity ^ uint32_t{at == 0}};
  }
};
// A count says both, in one register, where rings have two slots or one; three would have to be divided by.
template <int kSlots>
struct Position<kSlots, true> {
  uint32_t count = 0;
  __device__ __forceinline__ uint32_t slot() const { return count % kSlots; }
  __device__ __forceinline__ uint32_t round() const { return count / kSlots % 2; }
  __device__ __forceinline__ uint32_t of_two() const { return count % (2 * kSlots); }
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
