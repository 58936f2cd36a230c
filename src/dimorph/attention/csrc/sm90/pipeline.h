// The pipeline from the producer to the consumers: work tiles, queries, keys and values pass through stages in shared
// memory, each with a full barrier, on which consumers wait, and an empty barrier, on which the producer waits.
#pragma once
#include <dimorph/ints.h>

#include "../gpu/contract.h"
#include "../gpu/key_tiles.h"
#include "../gpu/ptx.h"
#include "../gpu/work_tile.h"
#include "barriers.h"

namespace DIMORPH_CASE {

constexpr int kStages = kConfig.kv_stages;
constexpr sm90::TileLayout kKeyLayout = kConfig.layout(HEAD_DIM_QK), kValueLayout = kConfig.layout(HEAD_DIM_VO);
constexpr int kConsumerWarps = 4 * kConfig.consumer_groups, kConsumerThreads = 32 * kConsumerWarps;
constexpr int kProducerThreads = 64;  // those of the producers' warpgroup that load

// Behind the tiles in shared memory: the barriers, and messages that the producer leaves for the consumers.
//
// A stage has two places for messages, used in turns. All lanes of a warp read a message, but one lane releases the
// stage, so with one place a slow lane could read the next message. With two, a place is written again only after the
// warp has waited at another barrier. (A __syncwarp before the release would do, but the assembler removes one where
// the warp has converged, and compute-sanitizer then reports a race.)
struct PipelineStorage {
  uint64_t queries_full[kConfig.query_stages], queries_empty[kConfig.query_stages];
  uint64_t keys_full[kStages], keys_empty[kStages];
  uint64_t values_full[kStages], values_empty[kStages];
  uint64_t work_full[kStages], work_empty[kStages];
  WorkTile work[2 * kStages];        // last_row < 0: there are no more work tiles
  KeyTile first_tile[2 * kStages];   // of the work tile
  int32_t last_number[2 * kStages];  // of the work tile's last tile of keys, if the variant does not classify tiles
  KeyTile next_tile[2 * kStages];    // the tile after the one in the stage, if the variant classifies tiles
  int32_t nonfinite;                 // whether an output was not finite
  // Of the two parts that a thread block may compute (slot_of): that its output was not finite, and that it was
  // the last of its work tile to arrive.
  int32_t part_nonfinite[2], part_last[2];
  bool removed[kStages][kTileKeys];  // keys that were taken out of a tile (nonfinite.h)
};
static_assert(sizeof(PipelineStorage) <= kConfig.shared_bytes() - kConfig.pipeline_offset(), "room for the pipeline");

// Where producer or consumer stands in a pipeline of kSlots stages: the stage, and the parity of its phase.
template <int kSlots, bool kCounted = kStages == 2>
struct PipelineState {
  uint32_t index = 0, parity = 0;
  __device__ __forceinline__ uint32_t stage() const { return index; }
  __device__ __forceinline__ uint32_t phase() const { return parity; }
  __device__ __forceinline__ uint32_t message() const { return parity * kSlots + index; }  // place of a message
  __device__ __forceinline__ void advance() {
    index = index == kSlots - 1 ? 0 : index + 1;
    parity ^= index == 0;
  }
};
// For one or two stages, a single count tells both, in one register. For three it would have to be divided.
template <int kSlots>
struct PipelineState<kSlots, true> {
  uint32_t count = 0;
  __device__ __forceinline__ uint32_t stage() const { return count % kSlots; }
  __device__ __forceinline__ uint32_t phase() const { return count / kSlots % 2; }
  __device__ __forceinline__ uint32_t message() const { return count % (2 * kSlots); }
  __device__ __forceinline__ void advance() { ++count; }
};

__device__ inline void init_pipeline(PipelineStorage& pipeline) {
  for (int i = 0; i < kConfig.query_stages; ++i) {
    mbarrier_init(shared_address(&pipeline.queries_full[i]), 1);
    mbarrier_init(shared_address(&pipeline.queries_empty[i]), kConsumerWarps);
  }
  for (int i = 0; i < kStages; ++i) {
    mbarrier_init(shared_address(&pipeline.keys_full[i]), 1);
    mbarrier_init(shared_address(&pipeline.keys_empty[i]), kConsumerWarps);
    mbarrier_init(shared_address(&pipeline.values_full[i]), 1);
    mbarrier_init(shared_address(&pipeline.values_empty[i]), kConsumerWarps);
    mbarrier_init(shared_address(&pipeline.work_full[i]), 1);
    mbarrier_init(shared_address(&pipeline.work_empty[i]), kConsumerWarps);
  }
  pipeline.nonfinite = pipeline.part_nonfinite[0] = pipeline.part_nonfinite[1] = 0;
  fence_mbarrier_init();
}

}  // namespace DIMORPH_CASE
