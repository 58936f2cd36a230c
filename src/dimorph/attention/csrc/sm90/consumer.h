// The consumers: warpgroups that compute 64 query rows of a work tile each. The products of one tile of keys run while
// the softmax of the next is computed, and warpgroups take turns, so that one issues products while another computes
// its softmax (Shah et al. 2024, https://arxiv.org/abs/2407.08608).
#pragma once
#include <dimorph/attention/math.h>
#include <dimorph/attention/variants.h>
#include <dimorph/ints.h>

#include "../gpu/contract.h"
#include "../gpu/epilogue.h"
#include "../gpu/head_dims.h"
#include "../gpu/invariant.h"
#include "../gpu/key_tiles.h"
#include "../gpu/nonfinite.h"
#include "../gpu/ptx.h"
#include "../gpu/softmax.h"
#include "../gpu/work_tile.h"
#include "barriers.h"
#include "finish_part.h"  // of dense or paged
#include "mma.h"
#include "pipeline.h"
#include "wgmma.h"

namespace DIMORPH_CASE {

class Consumer {
 public:
  __device__ Consumer(const Params& p, unsigned char* shared, PipelineStorage& pipeline)
      : p_(p),
        shared_(shared),
        pipeline_(pipeline),
        scale_(logit_scale(p)),
        warp_(__shfl_sync(0xffffffffu, threadIdx.x / 32, 0) - 4),
        group_(warp_ / 4) {
    if (group_ == kConfig.consumer_groups - 1) named_barrier_arrive(kMmaTurn, 256);  // the first turn is consumer 0's
  }

  // Computes all work tiles of the thread block. `careful`: keys whose values are not finite are treated apart
  // (nonfinite.h).
  __device__ __forceinline__ void run(bool careful) {
    WorkTile work;
    KeyTile first;
    bool more = receive(work, first);
    while (more) {
      Variant variant = dm::hooks::make<Variant>(p_, work.batch);
      const int warp_row = work.first_row + warp_ * kConfig.warp_rows();
      OnlineSoftmax softmax;
      OutputFragment out;
      WeightsFragment weights;
      [[maybe_unused]] Total total;
      init_softmax(p_, work, variant, softmax, warp_row);
      clear(out);
      bool pending = false;  // whether a product with values is under way
      if (first.valid()) {
        mbarrier_wait(shared_address(&pipeline_.queries_full[queries_.stage()]), queries_.phase());
        transform_queries(variant);
        pending = mainloop(work, first, variant, softmax, out, weights, total, warp_row, careful);
      }
      // While the last product runs: the next work tile is received, and all of the epilogue but the output is done.
      const WorkTile done = work;
      more = receive(work, first);
      if constexpr (BATCH_INVARIANT) {
        wgmma_wait<0>();
        if (pending) finish_pv(out, weights);
        pending = false;
        total.finish(p_, done, variant, softmax, out, warp_row);
      } else {
        reduce_row_sums(softmax);
      }
      float factors[kThreadRows];
      if (!done.is_part(p_)) finish_softmax(p_, done, variant, softmax, factors, warp_row);
      wgmma_wait<0>();
      if (pending) finish_pv(out, weights);
      const bool nonfinite = !careful && warp_row <= done.last_row && __any_sync(0xffffffffu, !all_finite(out));
      if (nonfinite) atomicOr(&pipeline_.nonfinite, 1);
      if (done.is_part(p_))
        finish_part(p_, pipeline_, done, variant, softmax, out, warp_, warp_row, careful, nonfinite);
      else
        store_output(p_, done, variant, factors, out, warp_row,
                     [&](int row, Row at, uint32_t (&pairs)[kValueChunks]) { store_row(done, row, at, pairs); });
    }
  }

 private:
  const Params& p_;
  unsigned char* shared_;
  PipelineStorage& pipeline_;
  const float scale_;
  const int warp_, group_;  // of the consumers
  PipelineState<kStages> keys_, values_, work_;
  PipelineState<kConfig.query_stages> queries_;
  int last_number_ = 0;

  // Receives the next work tile and its first tile of keys; false if there are no more. The compiler knows that what is
  // read from an address that is the same in all lanes is the same in all lanes.
  __device__ __forceinline__ bool receive(WorkTile& work, KeyTile& first) {
    const uint32_t stage = work_.stage();
    mbarrier_wait(shared_address(&pipeline_.work_full[stage]), work_.phase());
    const uint32_t place = work_.message();
    work = pipeline_.work[place];
    first = pipeline_.first_tile[place];
    if constexpr (!KeyTileIterator::kClassified) last_number_ = pipeline_.last_number[place];
    release(pipeline_.work_empty[stage]);
    work_.advance();
    return work.last_row >= 0;
  }

  // Stores a row. Neighbouring lanes exchange elements, so that the lanes of a row write 32 bytes of it at a time, one
  // sector, and 16 bytes of an odd last chunk. Shared memory would be slower: it has room only where the next queries
  // are loaded.
  __device__ __forceinline__ void store_row(const WorkTile& work, int row, Row at, uint32_t (&pairs)[kValueChunks]) {
    const bool odd = threadIdx.x % 2;
#pragma unroll
    for (int n = 0; n + 1 < kValueChunks; n += 2) {
      const uint32_t own = odd ? pairs[n + 1] : pairs[n], received = shuffle_xor(odd ? pairs[n] : pairs[n + 1], 1);
      pairs[n] = odd ? received : own;
      pairs[n + 1] = odd ? own : received;
    }
    if (row > work.last_row) return;
    DType* first = output_pointer(p_, work, at);
    DType* to = first + odd * 8 + threadIdx.x % 4 / 2 * 4;
#pragma unroll
    for (int n = 0; n + 1 < kValueChunks; n += 2) *reinterpret_cast<uint2*>(to + n * 8) = uint2{pairs[n], pairs[n + 1]};
    constexpr int kLast = kValueChunks - 1;
    if constexpr (kLast % 2 == 0) *reinterpret_cast<uint32_t*>(first + kLast * 8 + thread_column()) = pairs[kLast];
  }

  // Applies QueryTransform to the warpgroup's queries in shared memory and, if logit_scale leaves the scale's sign to
  // them, the sign.
  __device__ __forceinline__ void transform_queries(Variant& variant) {
    const bool negate = Traits::use_softmax && !Traits::has_logits_transform && p_.sm_scale < 0.f;
    if (!Traits::has_query_transform && !negate) return;
    const float sign = negate ? -1.f : 1.f;
#pragma unroll 1
    for (int i = threadIdx.x % 128; i < kConfig.panels(HEAD_DIM_QK) * 64 * 64; i += 128) {
      // The padding stays 0, in place i because of the swizzle: it takes part in the product.
      const int chunk = i / 4096 * 8 + (i / 8 ^ i / 64) % 8;
      if (gpu::padded(HEAD_DIM_QK) != HEAD_DIM_QK && chunk == HEAD_DIM_QK / 8) continue;
      DType& q = reinterpret_cast<DType*>(
          shared_ + query_stage())[i / 4096 * (kConfig.tile_rows() * 64) + group_ * 4096 + i % 4096];
      q = static_cast<DType>(dm::hooks::query_transform(variant, p_, static_cast<float>(q)) * sign);
    }
    fence_async_proxy();
    named_barrier_sync(kConsumerGroup + group_, 128);
  }

  // Where the current queries are in shared memory.
  __device__ __forceinline__ uint32_t query_stage() const {
    return kConfig.query_offset() + queries_.stage() * kConfig.query_bytes();
  }
  __device__ __forceinline__ void release_queries() {
    release(pipeline_.queries_empty[queries_.stage()]);
    queries_.advance();
  }

  // Issues the product with the keys of the next stage; after it has ended, finish_qk releases the stage.
  __device__ __forceinline__ void issue_qk(LogitsFragment& s) {
    mbarrier_wait(shared_address(&pipeline_.keys_full[keys_.stage()]), keys_.phase());
    wgmma_fence();
    mma_qk(s, shared_address(shared_ + query_stage() + group_ * 64 * 128),
           shared_address(shared_ + kConfig.key_offset() + keys_.stage() * kConfig.key_bytes()), kKeyLayout);
    wgmma_commit();
  }
  __device__ __forceinline__ void finish_qk(LogitsFragment& s) {
    fence_operand(s);
    release(pipeline_.keys_empty[keys_.stage()]);
    keys_.advance();
  }
  // The same for the product with values, whose group the caller commits.
  __device__ __forceinline__ void issue_pv(OutputFragment& out, const WeightsFragment& weights) {
    mbarrier_wait(shared_address(&pipeline_.values_full[values_.stage()]), values_.phase());
    wgmma_fence();
    mma_pv(out, weights, shared_address(shared_ + kConfig.value_offset() + values_.stage() * kConfig.value_bytes()),
           kValueLayout);
  }
  __device__ __forceinline__ void finish_pv(OutputFragment& out, WeightsFragment& weights) {
    fence_operand(out);
    fence_operand(weights);
    release(pipeline_.values_empty[values_.stage()]);
    values_.advance();
  }
  // Gives a stage back to the producer.
  __device__ __forceinline__ void release(uint64_t& empty) {
    __syncwarp();
    if (threadIdx.x % 32 == 0) mbarrier_arrive(shared_address(&empty));
  }

  // Whether a logit of the warp may be masked.
  __device__ __forceinline__ bool is_masked(const WorkTile& work, Variant& variant, KeyTile tile, int warp_row) const {
    const int k0 = tile.first_key();
    if (k0 + kTileKeys > work.kv_len) return true;
    if (tile.full()) return false;
    const int q0 = row_at(p_, work, warp_row).q, q1 = row_at(p_, work, warp_row + kConfig.warp_rows() - 1).q + 1;
    return dm::hooks::classify_tile(variant, q0, q1, k0, k0 + kTileKeys) != TileClass::kFull;
  }

  // Transforms and masks the logits of the tile that begins at key k0, and updates the row max. Returns whether the
  // output must be rescaled by `factors`.
  __device__ __forceinline__ bool prepare_logits(const WorkTile& work, Variant& variant, OnlineSoftmax& softmax,
                                                 LogitsFragment& s, float (&factors)[kThreadRows], int warp_row, int k0,
                                                 bool masked) {
    transform_logits(p_, work, variant, s, warp_row, k0);
    if (masked) mask_logits(p_, work, variant, s, warp_row, k0);
    float max[kThreadRows];
    find_thread_max(max, s);
    // One branch around all that most tiles do not need.
    if (!masked && !exceeds_row_max(softmax, max, scale_)) return false;
    if constexpr (Traits::use_softmax) update_row_max(softmax, factors, max, scale_);
    return Traits::use_softmax;
  }

  __device__ __forceinline__ void pack_weights(WeightsFragment& weights, const LogitsFragment& s) const {
#pragma unroll
    for (int i = 0; i < kValueSteps; ++i)
#pragma unroll
      for (int j = 0; j < 4; ++j)
        weights[i][j] = pack(s[0][2 * i + j / 2][j % 2 * 2], s[0][2 * i + j / 2][j % 2 * 2 + 1]);
  }

  // Takes keys whose values are not finite out of the tile, and adds them where they count. `s` holds weights.
  __device__ __forceinline__ void treat_nonfinite_keys(const WorkTile& work, OutputFragment& out,
                                                       const LogitsFragment& s, int k0) {
    const int stage = values_.stage();
    mbarrier_wait(shared_address(&pipeline_.values_full[stage]), values_.phase());
    remove_nonfinite_keys(kValueLayout, shared_ + kConfig.value_offset() + stage * kConfig.value_bytes(),
                          pipeline_.removed[stage], warp_, kConsumerWarps);
    fence_async_proxy();
    named_barrier_sync(kAllConsumers, kConsumerThreads);
    add_removed_keys(p_, work, out, s, pipeline_.removed[stage], k0, [](float x, int) { return x; });
  }

  // Whether this warpgroup has nothing to compute for a tile that other rows of the work tile need. In a careful pass
  // it computes every tile, because all consumers together remove keys.
  __device__ __forceinline__ bool skips(const WorkTile& work, Variant& variant, KeyTile tile, bool careful) const {
    if (careful) return false;
    const int row = work.first_row + group_ * 64, k0 = tile.first_key();
    if (row > work.last_row) return true;
    if (tile.full()) return false;
    const int q0 = row_at(p_, work, row).q, q1 = row_at(p_, work, row + 63).q + 1;
    return dm::hooks::classify_tile(variant, q0, q1, k0, dm::math::min(k0 + kTileKeys, work.kv_len)) ==
           TileClass::kSkip;
  }
  // The tile after this one, whose keys have arrived.
  __device__ __forceinline__ KeyTile next_tile(KeyTile tile) const {
    if constexpr (KeyTileIterator::kClassified) return pipeline_.next_tile[keys_.message()];
    return tile.number() > last_number_ ? KeyTile{tile.code - 2} : KeyTile{};
  }
  // Takes the turn for a tile that is not computed: releases its keys and its values. Returns the next tile.
  __device__ __forceinline__ KeyTile skip_tile(KeyTile tile) {
    pass_turn();
    mbarrier_wait(shared_address(&pipeline_.keys_full[keys_.stage()]), keys_.phase());
    // One lane reads: other lanes might still read when the stage is released.
    KeyTile next;
    if constexpr (KeyTileIterator::kClassified)
      next.code = warp_uniform(threadIdx.x % 32 == 0 ? next_tile(tile).code : 0);
    else
      next = next_tile(tile);
    release(pipeline_.keys_empty[keys_.stage()]);
    keys_.advance();
    mbarrier_wait(shared_address(&pipeline_.values_full[values_.stage()]), values_.phase());
    release(pipeline_.values_empty[values_.stage()]);
    values_.advance();
    return next;
  }
  // The right to issue products goes round the consumers.
  __device__ __forceinline__ void wait_for_turn() { named_barrier_sync(kMmaTurn + group_, 256); }
  __device__ __forceinline__ void pass_turn() {
    named_barrier_arrive(kMmaTurn + (group_ + 1) % kConfig.consumer_groups, 256);
  }

  // Goes through the tiles of keys of the work tile. Returns whether the last product with values is under way.
  __device__ __forceinline__ bool mainloop(const WorkTile& work, KeyTile tile, Variant& variant, OnlineSoftmax& softmax,
                                           OutputFragment& out, WeightsFragment& weights, [[maybe_unused]] Total& total,
                                           int warp_row, bool careful) {
    bool skip = skips(work, variant, tile, careful);
    [[maybe_unused]] int part = tile.first_key() / kPartKeys;  // of the keys, with BATCH_INVARIANT
    while (tile.valid()) {
      LogitsFragment s;
      bool pending = false;  // whether the previous tile's weights are still to be multiplied with its values
#pragma unroll 1
      while (!skip) {
        const int k0 = tile.first_key();
        wait_for_turn();
        // Two groups in both cases, or the assembler would serialise the products. The empty group costs as much as a
        // product, therefore the branch.
        issue_qk(s);
        if (pending) {
          issue_pv(out, weights);
          wgmma_commit();
        } else {
          wgmma_commit();
        }
        pass_turn();
        // While the products run: whether this tile is masked, and which tile comes next.
        const bool masked = is_masked(work, variant, tile, warp_row);
        tile = next_tile(tile);
        skip = !tile.valid() || skips(work, variant, tile, careful);
        wgmma_wait<1>();
        finish_qk(s);
        [[maybe_unused]] OnlineSoftmax before;  // of the part that has ended
        const bool begins = BATCH_INVARIANT && k0 / kPartKeys != part;
        if (begins) {
          before = softmax;
          Total::clear_rows(softmax);
          part = k0 / kPartKeys;
        }
        float factors[kThreadRows];
        bool raised = false;
        Row rows[kThreadRows];
        if constexpr (kCanFuseTransform) find_thread_rows(p_, work, rows, warp_row);
        if (!masked && !careful && may_fuse_transform(p_, variant, softmax, s, rows)) {
          for_each_logit([&](int m, int n, int e, int r, int step) {
            const float logit = fused_transform(p_, work, variant, s[m][n][e], rows[r], k0, step);
            s[m][n][e] = fused_weight_in(softmax, logit, r, scale_);
            add_to_sum(softmax, s[m][n][e], r);
          });
        } else {
          raised = prepare_logits(work, variant, softmax, s, factors, warp_row, k0, masked);
          for_each_logit([&](int m, int n, int e, int r, int) {
            s[m][n][e] = weight_in(softmax, s[m][n][e], r, scale_);
            add_to_sum(softmax, s[m][n][e], r);
          });
        }
        wgmma_wait<0>();
        if (pending) finish_pv(out, weights);
        if (begins)
          total.join(p_, work, variant, before, out, warp_row);
        else if (raised)
          rescale(out, factors);
        if (careful) treat_nonfinite_keys(work, out, s, k0);
        pack_weights(weights, s);
        pending = true;
      }
      if (!tile.valid()) release_queries();
      if (pending) {
        issue_pv(out, weights);
        wgmma_commit();
        if (!tile.valid()) return true;
        wgmma_wait<0>();
        finish_pv(out, weights);
      }
      if (!tile.valid()) return false;
#pragma unroll 1
      while (skip) {
        wait_for_turn();
        tile = skip_tile(tile);
        if (!tile.valid()) break;
        skip = skips(work, variant, tile, careful);
      }
    }
    release_queries();
    return false;
  }
};

}  // namespace DIMORPH_CASE
