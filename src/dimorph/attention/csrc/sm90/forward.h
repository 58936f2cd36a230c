// The sm90 family's forward pass: one warp copies, warpgroups compute. The products of one tile run while the softmax
// of the next is computed, and warpgroups take turns, so that one multiplies while the other does not (Shah et al.
// 2024, https://arxiv.org/abs/2407.08608). Thread blocks stay and take blocks of work in turns.
#pragma once
#include <dimorph/attention/math.h>
#include <dimorph/attention/variants.h>
#include <dimorph/ints.h>

#include "../gpu/block.h"
#include "../gpu/contract.h"
#include "../gpu/epilogue.h"
#include "../gpu/nonfinite.h"
#include "../gpu/ptx.h"
#include "../gpu/softmax.h"
#include "barriers.h"
#include "multiply.h"
#include "ring.h"
#include "wgmma.h"

namespace DIMORPH_CASE {

class Computer {
 public:
  __device__ Computer(const Params& p, unsigned char* shared, Signals& signals)
      : p_(p),
        shared_(shared),
        signals_(signals),
        unit_(logit_unit(p)),
        warp_(__shfl_sync(0xffffffffu, threadIdx.x / 32, 0) - 4),
        group_(warp_ / 4) {
    if (group_ == kConfig.groups - 1) pass(kTurn, 256);
  }

  // Computes all blocks of work. `careful`: keys whose values are not finite are set aside.
  __device__ __forceinline__ void compute_all(bool careful) {
    Block block;
    KeyTile first;
    bool there = receive(block, first);
    while (there) {
      Variant variant = dm::hooks::make<Variant>(p_, block.batch);
      const int warp_row = block.row0 + warp_ * kConfig.warp_rows();
      Softmax rows;
      Output out;
      Weights weights;
      start_rows(p_, block, variant, rows, warp_row);
      clear(out);
      bool pending = false;  // whether the last product with values is under way
      if (first.there()) {
        barrier_wait(shared_address(&signals_.queries_full[queries_.slot()]), queries_.round());
        transform_queries(variant);
        pending = run(block, first, variant, rows, out, weights, warp_row, careful);
      }
      // While that is computed: what comes next, and all of the output but itself.
      const Block ended = block;
      there = receive(block, first);
      finish_sums(rows);
      float factors[kRows];
      if (p_.splits == 1) normalise(p_, ended, variant, rows, factors, warp_row);
      multiply_wait<0>();
      if (pending) end_values(out, weights);
      if (!careful && warp_row <= ended.last_row && __any_sync(0xffffffffu, !all_finite(out)))
        atomicOr(&signals_.again, 1);
      if (p_.splits > 1)
        store_partial(p_, ended, rows, out, warp_row);
      else
        store_output(p_, ended, variant, factors, out, warp_row,
                     [&](int row, Row at, uint32_t (&pairs)[kValueChunks]) { store_row(ended, row, at, pairs); });
    }
  }

 private:
  const Params& p_;
  unsigned char* shared_;
  Signals& signals_;
  const float unit_;
  const int warp_, group_;  // of those that compute
  Position<kStages> keys_, values_, blocks_;
  Position<kConfig.query_stages> queries_;
  int last_tile_ = 0;

  // The next block of work and its first tile of keys; false: there are no more. What lies at an address that the warp
  // has in common is known to be common, too.
  __device__ __forceinline__ bool receive(Block& block, KeyTile& first) {
    const uint32_t slot = blocks_.slot();
    barrier_wait(shared_address(&signals_.blocks_full[slot]), blocks_.round());
    const uint32_t place = blocks_.of_two();
    block = signals_.blocks[place];
    first = signals_.first[place];
    if constexpr (!KeyTiles::kClassified) last_tile_ = signals_.last[place];
    release(signals_.blocks_empty[slot]);
    blocks_.next();
    return block.last_row >= 0;
  }

  // Neighbouring lanes exchange elements, so that those that share a row write 32 bytes of it at a time, a sector. By
  // way of shared memory it takes longer: there is room only where the next queries are to come.
  __device__ __forceinline__ void store_row(const Block& block, int row, Row at, uint32_t (&pairs)[kValueChunks]) {
    const bool odd = threadIdx.x % 2;
#pragma unroll
    for (int n = 0; n < kValueChunks; n += 2) {
      const uint32_t own = odd ? pairs[n + 1] : pairs[n], received = shuffle_xor(odd ? pairs[n] : pairs[n + 1], 1);
      pairs[n] = odd ? received : own;
      pairs[n + 1] = odd ? own : received;
    }
    if (row > block.last_row) return;
    DType* to = output_of(p_, block, at) + odd * 8 + threadIdx.x % 4 / 2 * 4;
#pragma unroll
    for (int n = 0; n < kValueChunks; n += 2) *reinterpret_cast<uint2*>(to + n * 8) = uint2{pairs[n], pairs[n + 1]};
  }

  // Changes the group's queries in shared memory as the variant asks and, for a negative scale, their sign.
  __device__ __forceinline__ void transform_queries(Variant& variant) {
    const bool negate = Traits::use_softmax && !Traits::has_logits_transform && p_.sm_scale < 0.f;
    if (!Traits::has_query_transform && !negate) return;
    const float sign = negate ? -1.f : 1.f;
#pragma unroll 1
    for (int i = threadIdx.x % 128; i < kConfig.columns(HEAD_DIM_QK) * 64 * 64; i += 128) {
      DType& q =
          reinterpret_cast<DType*>(shared_ + queries_at())[i / 4096 * (kConfig.rows() * 64) + group_ * 4096 + i % 4096];
      q = static_cast<DType>(dm::hooks::query_transform(variant, p_, static_cast<float>(q)) * sign);
    }
    publish_writes();
    meet(kGroup + group_, 128);
  }

  __device__ __forceinline__ uint32_t queries_at() const {
    return kConfig.queries_at() + queries_.slot() * kConfig.query_bytes();
  }
  __device__ __forceinline__ void release_queries() {
    release(signals_.queries_empty[queries_.slot()]);
    queries_.next();
  }

  __device__ __forceinline__ void begin_keys(Logits& s) {
    barrier_wait(shared_address(&signals_.keys_full[keys_.slot()]), keys_.round());
    multiply_begin();
    multiply_keys(s, shared_address(shared_ + queries_at() + group_ * 64 * 128),
                  shared_address(shared_ + kConfig.keys_at() + keys_.slot() * kConfig.key_bytes()));
    multiply_end();
  }
  __device__ __forceinline__ void end_keys(Logits& s) {
    hold(s);
    release(signals_.keys_empty[keys_.slot()]);
    keys_.next();
  }
  __device__ __forceinline__ void begin_values(Output& out, const Weights& weights) {
    barrier_wait(shared_address(&signals_.values_full[values_.slot()]), values_.round());
    multiply_begin();
    multiply_values(out, weights,
                    shared_address(shared_ + kConfig.values_at() + values_.slot() * kConfig.value_bytes()));
  }
  __device__ __forceinline__ void end_values(Output& out, Weights& weights) {
    hold(out);
    hold(weights);
    release(signals_.values_empty[values_.slot()]);
    values_.next();
  }
  __device__ __forceinline__ void release(uint64_t& empty) {
    __syncwarp();
    if (threadIdx.x % 32 == 0) barrier_arrive(shared_address(&empty));
  }

  // Whether some logit of the warp may not count.
  __device__ __forceinline__ bool is_masked(const Block& block, Variant& variant, KeyTile tile, int warp_row) const {
    const int k0 = tile.first_key();
    if (k0 + kKeys > block.kv_len) return true;
    if (tile.full()) return false;
    const int q0 = row_at(p_, block, warp_row).q, q1 = row_at(p_, block, warp_row + kConfig.warp_rows() - 1).q + 1;
    return dm::hooks::classify_tile(variant, q0, q1, k0, k0 + kKeys) != TileClass::kFull;
  }

  // Logits of the keys from k0 on, transformed and masked; whether the output is to be rescaled by the factors.
  __device__ __forceinline__ bool prepare(const Block& block, Variant& variant, Softmax& rows, Logits& s,
                                          float (&factors)[kRows], int warp_row, int k0, bool masked) {
    transform_logits(p_, block, variant, s, warp_row, k0);
    if (masked) mask_logits(p_, block, variant, s, warp_row, k0);
    float max[kRows];
    find_maxima(max, s);
    // What most tiles do not need, behind one branch.
    if (!masked && !outgrown(rows, max, unit_)) return false;
    if constexpr (Traits::use_softmax) raise_maxima(rows, factors, max, unit_);
    return Traits::use_softmax;
  }

  __device__ __forceinline__ void weigh(Softmax& rows, float& x, int r) const {
    x = weight(rows, x, r, unit_);
    if constexpr (Traits::use_softmax) rows.sum[r] += x;
  }
  __device__ __forceinline__ void pack_all(Weights& weights, const Logits& s) const {
#pragma unroll
    for (int i = 0; i < kValueSteps; ++i)
#pragma unroll
      for (int j = 0; j < 4; ++j)
        weights[i][j] = pack(s[0][2 * i + j / 2][j % 2 * 2], s[0][2 * i + j / 2][j % 2 * 2 + 1]);
  }

  // Takes keys with values that are not finite out of the tile, and adds them where they count; `s` are weights.
  __device__ __forceinline__ void set_aside_and_add(const Block& block, Output& out, const Logits& s, int k0) {
    const int slot = values_.slot();
    barrier_wait(shared_address(&signals_.values_full[slot]), values_.round());
    set_aside(shared_ + kConfig.values_at() + slot * kConfig.value_bytes(), signals_.aside[slot], warp_, kComputeWarps);
    publish_writes();
    meet(kCompute, kComputeThreads);
    add_aside(p_, block, out, s, signals_.aside[slot], k0, [](float x, int) { return x; });
  }

  // Whether the group has nothing to do with a tile that the block as a whole needs. All take part in setting aside.
  __device__ __forceinline__ bool skips(const Block& block, Variant& variant, KeyTile tile, bool careful) const {
    if (careful) return false;
    const int row = block.row0 + group_ * 64, k0 = tile.first_key();
    if (row > block.last_row) return true;
    if (tile.full()) return false;
    const int q0 = row_at(p_, block, row).q, q1 = row_at(p_, block, row + 63).q + 1;
    return dm::hooks::classify_tile(variant, q0, q1, k0, dm::math::min(k0 + kKeys, block.kv_len)) == TileClass::kSkip;
  }
  // The tile after one whose keys are there.
  __device__ __forceinline__ KeyTile after(KeyTile tile) const {
    if constexpr (KeyTiles::kClassified) return signals_.next[keys_.of_two()];
    return tile.number() > last_tile_ ? KeyTile{tile.code - 2} : KeyTile{};
  }
  // Gives back a tile of keys and one of values that are not needed, in their turn. Returns the tile after it.
  __device__ __forceinline__ KeyTile pass_by(KeyTile tile) {
    pass_turn();
    barrier_wait(shared_address(&signals_.keys_full[keys_.slot()]), keys_.round());
    // One lane reads: others might still do so when the slot is given back.
    KeyTile next;
    if constexpr (KeyTiles::kClassified)
      next.code = common(threadIdx.x % 32 == 0 ? after(tile).code : 0);
    else
      next = after(tile);
    release(signals_.keys_empty[keys_.slot()]);
    keys_.next();
    barrier_wait(shared_address(&signals_.values_full[values_.slot()]), values_.round());
    release(signals_.values_empty[values_.slot()]);
    values_.next();
    return next;
  }
  __device__ __forceinline__ void take_turn() { meet(kTurn + group_, 256); }
  __device__ __forceinline__ void pass_turn() { pass(kTurn + (group_ + 1) % kConfig.groups, 256); }

  // The block's tiles. Returns whether the last product with values is under way.
  __device__ __forceinline__ bool run(const Block& block, KeyTile tile, Variant& variant, Softmax& rows, Output& out,
                                      Weights& weights, int warp_row, bool careful) {
    bool skip = skips(block, variant, tile, careful);
    while (tile.there()) {
      Logits s;
      bool pending = false;  // whether weights of the tile before are to be multiplied with its values
#pragma unroll 1
      while (!skip) {
        const int k0 = tile.first_key();
        take_turn();
        // Two groups in both cases, or products would be serialised. An empty one costs a product, so it has a branch.
        begin_keys(s);
        if (pending) {
          begin_values(out, weights);
          multiply_end();
        } else {
          multiply_end();
        }
        pass_turn();
        // While that is computed: what this tile and the next one are.
        const bool masked = is_masked(block, variant, tile, warp_row);
        tile = after(tile);
        skip = !tile.there() || skips(block, variant, tile, careful);
        multiply_wait<1>();
        end_keys(s);
        float factors[kRows];
        bool raised = false;
        Row at[kRows];
        if constexpr (kForesees) find_rows(p_, block, at, warp_row);
        if (!masked && !careful && foresees(p_, variant, rows, s, at)) {
          // Each logit by itself, so that transforms go among the exponentials.
          for_each_logit([&](int m, int n, int e, int r, int step) {
            s[m][n][e] = transform_foreseen(p_, block, variant, s[m][n][e], at[r], k0, step);
            weigh(rows, s[m][n][e], r);
          });
        } else {
          raised = prepare(block, variant, rows, s, factors, warp_row, k0, masked);
          for_each_logit([&](int m, int n, int e, int r, int) { weigh(rows, s[m][n][e], r); });
        }
        multiply_wait<0>();
        if (pending) end_values(out, weights);
        if (raised) rescale(out, factors);
        if (careful) set_aside_and_add(block, out, s, k0);
        pack_all(weights, s);
        pending = true;
      }
      if (!tile.there()) release_queries();
      if (pending) {
        begin_values(out, weights);
        multiply_end();
        if (!tile.there()) return true;
        multiply_wait<0>();
        end_values(out, weights);
      }
      if (!tile.there()) return false;
#pragma unroll 1
      while (skip) {
        take_turn();
        tile = pass_by(tile);
        if (!tile.there()) break;
        skip = skips(block, variant, tile, careful);
      }
    }
    release_queries();
    return false;
  }
};

}  // namespace DIMORPH_CASE
