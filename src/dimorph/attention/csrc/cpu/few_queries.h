// The CPU family's forward pass for few queries: the head dim lies in SIMD lanes, keys and values are read once, in
// place, in shares that are merged, and split among threads if there are too few heads for all threads (flash decoding,
// Dao et al. 2023, https://pytorch.org/blog/flash-decoding/). A task's rows are the queries of all heads that share a
// KV head.
#pragma once
#include <dimorph/attention/math.h>
#include <dimorph/attention/simd.h>
#include <dimorph/attention/variants.h>
#include <dimorph/parallel.h>
#include <stdlib.h>

#include "../problem.h"
#include "bf16_pairs.h"
#include "key_rows.h"
#include "kinds.h"
#include "params.h"
#include "sequence.h"
#include "tiles.h"

namespace DIMORPH_CASE {

constexpr int kQueries = 4;         // rows computed together: each load serves four multiply-adds
constexpr int kAtOnce = kRows / 2;  // keys computed together: 4 x 4 sums and 8 operands fill 32 registers
constexpr int kMaxRows = 32;        // rows of a task, over all of its KV heads
// The keys of a sequence are computed in shares, which are merged in order. They depend on the number of keys alone, so
// that a result depends neither on the number of threads nor on the sequences beside it.
constexpr int kShares = 64;                   // of up to a million keys; more of them cost more merges
constexpr int kMinShareKeys = 4 * TILE_KEYS;  // fewer keys are not worth a merge
constexpr int kMaxShareKeys = 16 * 1024;      // sums over more keys would lose a digit
// Bytes of a tile of all KV heads of a task: together with what is prefetched meanwhile it fills an L2 cache.
constexpr int kTileBytes = 512 * 1024;
constexpr int kHeadTileBytes = TILE_KEYS * (HEAD_DIM_QK + HEAD_DIM_VO) * static_cast<int>(sizeof(DTypeKV));

// Pairs of bfloat16 are multiplied as they lie in memory, in whole vectors. The queries must be bfloat16 too, so the
// variant must not transform them.
constexpr int kPairLanes = 2 * kLanes;
constexpr bool kRowPairs =
    kPaired && !Traits::has_query_transform && HEAD_DIM_QK % kPairLanes == 0 && HEAD_DIM_VO % kPairLanes == 0;
constexpr int kRowLanes = kRowPairs ? kPairLanes : kLanes;  // elements of a vector
// Head dims of whole vectors; elements past those of the tensors are 0.
constexpr int kRowDimQK = round_up(HEAD_DIM_QK, kRowLanes);
constexpr int kRowDimVO = round_up(HEAD_DIM_VO, kRowLanes);

// Vectors of an output row whose sums are in registers at the same time.
constexpr int largest_divisor(int n, int most) { return n % most == 0 ? most : largest_divisor(n, most - 1); }
constexpr int kValueVectors = largest_divisor(kRowDimVO / kRowLanes, kRows / 2 / (kRowPairs ? 2 : 1));

struct Shares {
  int keys, count;
};
// Where results must not depend on the batch, all shares have one length, because a chunk of a prefill sees fewer keys
// than the whole.
inline Shares shares_of(int kv_len) {
  const int even = round_up((kv_len + kShares - 1) / kShares, TILE_KEYS);
  const int keys = BATCH_INVARIANT ? kMinShareKeys : dm::math::min(dm::math::max(even, kMinShareKeys), kMaxShareKeys);
  return {keys, dm::math::max(1, (kv_len + keys - 1) / keys)};  // one without keys, if there are none
}

// Rows [first, first + rows) of a sequence, for each of the KV heads [kv_head, kv_head + heads), over the keys [k0,
// k1) of a share. The thread goes on to the key `end`. Row r is query r / group of head r % group of those that share
// the KV head.
struct RowsTask {
  int kv_head, heads, first, rows, k0, k1, end;
  int padded() const { return (rows + kQueries - 1) / kQueries * kQueries; }
};

// The row that is prefetched next.
template <bool kPaged = PAGED>
struct PrefetchedRow {
  const char* row;
  int64_t stride;  // in bytes

  PrefetchedRow(const DTypeKV* from, int64_t row_stride)
      : row(reinterpret_cast<const char*>(from)), stride(row_stride * static_cast<int64_t>(sizeof(DTypeKV))) {}
  DM_INLINE void go_on() { row += stride; }
};
template <>
struct PrefetchedRow<true> {
  const char* row;
  const DTypeKV* pool;
  const int64_t* offsets;
  // Not a pointer to the offset: stores of two pointers become one of a vector, for which later loads would wait.
  int index = 0;

  PrefetchedRow(const DTypeKV* from, const int64_t* row_offsets) : pool(from), offsets(row_offsets) { locate(); }
  DM_INLINE void go_on() { ++index, locate(); }

 private:
  DM_INLINE void locate() { row = reinterpret_cast<const char*>(pool + offsets[index]); }
};

// Prefetches rows, cache line by cache line in the order in which they lie in memory, as fast as others are computed.
struct Prefetcher : PrefetchedRow<> {
  int bytes;  // of a row
  int rows;
  int at = 0;

  Prefetcher(const DTypeKV* from, Places places, int elements, int count)
      : PrefetchedRow<>(from, places), bytes(elements * static_cast<int>(sizeof(DTypeKV))), rows(count) {}
  DM_INLINE void prefetch_lines(int lines) {
    for (; lines > 0 && rows > 0; --lines) {
      __builtin_prefetch(row + at, 0, 2);
      if ((at += 64) < bytes) continue;
      at = 0;
      go_on();
      --rows;
    }
  }
};

// A row's output and state over the keys so far. If pairs are multiplied, the even elements of a vector of `out` lie
// before its odd ones.
struct PartialRow {
  alignas(64) float out[kRowDimVO];
  float row_max, row_sum;
};

struct RowsScratch : TilePlaces<> {
  alignas(64) float q[kMaxRows][kRowDimQK];  // bfloat16 if pairs are multiplied
  PartialRow states[2][kMaxRows];            // of the shares so far, and of the current one
  float weights[kQueries][TILE_KEYS];        // first the logits
  bfloat16 rounded[kQueries][TILE_KEYS];
};

// Loads the vector of a row that begins at its element d: floats, or pairs in the place of floats.
template <int kDim>
DM_INLINE FloatV load_row(const DTypeKV* from, [[maybe_unused]] int d) {
  FloatV x;
  if constexpr (kRowPairs) {
    convert_to_pairs<kPairLanes>(reinterpret_cast<bfloat16*>(&x), from);
  } else if (kDim % kLanes == 0 || d + kLanes <= kDim) {
    convert<kLanes>(reinterpret_cast<float*>(&x), from);
  } else {
    x = 0.f;
    convert<kDim % kLanes>(reinterpret_cast<float*>(&x), from);
  }
  return x;
}

DM_INLINE RawFloat multiply_add_row(RawFloat sum, FloatV a, FloatV b) {
  return kRowPairs ? multiply_add_pairs(sum, a.raw, b.raw) : sum + a.raw * b.raw;
}

// Replaces `count` vectors of `lanes` lanes each by their sums, in order.
template <int count, int lanes>
DM_INLINE void sum_lanes(FloatV* vectors) {
  if constexpr (lanes > 1) {
    DM_UNROLL
    for (int i = 0; i < count / 2; ++i) vectors[i] = add_neighbours(vectors[2 * i], vectors[2 * i + 1]);
    sum_lanes<count / 2, lanes / 2>(vectors);
  }
}

// weights[row][key] = sum over d of k[key][d] * q[row][d], the logits.
inline void multiply_rows(RowsScratch& s, int r0, const DTypeKV* k, Places places, int keys, Prefetcher& next) {
  for (int c = 0; c < keys; c += kAtOnce) {
    const DTypeKV* rows[kAtOnce];
    for (int i = 0; i < kAtOnce; ++i) rows[i] = row_at(k, places, dm::math::min(c + i, keys - 1));
    next.prefetch_lines(kAtOnce * HEAD_DIM_QK * static_cast<int>(sizeof(DTypeKV)) / 64);
    RawFloat sums[kQueries * kAtOnce] = {};
    DM_NO_UNROLL
    for (int d = 0; d < kRowDimQK; d += kRowLanes) {
      FloatV key[kAtOnce];
      DM_UNROLL
      for (int i = 0; i < kAtOnce; ++i) key[i] = load_row<HEAD_DIM_QK>(rows[i] + d, d);
      DM_UNROLL
      for (int r = 0; r < kQueries; ++r) {
        const FloatV query = FloatV::load(s.q[r0 + r] + d * kLanes / kRowLanes);
        DM_UNROLL
        for (int i = 0; i < kAtOnce; ++i)
          sums[r * kAtOnce + i] = multiply_add_row(sums[r * kAtOnce + i], query, key[i]);
      }
    }
    FloatV logits[kQueries * kAtOnce];
    DM_UNROLL
    for (int i = 0; i < kQueries * kAtOnce; ++i) logits[i] = FloatV(sums[i]);
    sum_lanes<kQueries * kAtOnce, kLanes>(logits);
    DM_UNROLL
    for (int r = 0; r < kQueries; ++r)
      __builtin_memcpy(s.weights[r] + c, reinterpret_cast<float*>(logits) + r * kAtOnce, 4 * kAtOnce);
  }
}

// Turns the logits of one row into weights, with 0 from the last key up to a whole vector, and updates the row's state.
// Returns the factor by which the output so far must be multiplied.
inline float online_softmax_row(Sequence& seq, RowsScratch& s, int r, PartialRow& state, int qo_idx, int head, int k0,
                                int keys, bool masked) {
  const float scale = (Traits::use_softmax ? seq.params.sm_scale * kQueryUnit : 1.f) * seq.key_scale();
  FloatV max = kLowest, sum = 0.f;
  for (int c = 0; c < keys; c += kLanes) {
    float* logits = s.weights[r] + c;
    const IntV key = IntV::sequence(c), kv_idx = dm::math::min(key, IntV(keys - 1)) + k0;
    FloatV x = FloatV::load(logits) * scale;
    x = dm::hooks::logits_transform(seq.variant, seq.params, x, seq.batch, qo_idx, kv_idx, head, seq.kv_head);
    MaskV keep = key < keys;
    if (Traits::has_logits_mask && masked)
      keep =
          keep && dm::hooks::logits_mask<MaskV>(seq.variant, seq.params, seq.batch, qo_idx, kv_idx, head, seq.kv_head);
    x = dm::math::select(keep, x, FloatV(Traits::use_softmax ? -dm::math::infinity : 0.f));
    x.store(logits);
    max = dm::math::max(max, x);
  }
  float new_max = state.row_max;
  for (int i = 0; i < kLanes; ++i) new_max = dm::math::max(new_max, dm::lane(max, i));
  for (int c = 0; c < keys; c += kLanes) {
    FloatV x = FloatV::load(s.weights[r] + c);
    if (Traits::use_softmax) {
      x = weight_of(x - new_max);
      sum += x;
      x.store(s.weights[r] + c);
    }
    if constexpr (kRowPairs) store_rounded(s.rounded[r] + c, x);
  }
  if (!Traits::use_softmax) return 1.f;
  const float rescale = dm::lane(weight_of(FloatV(state.row_max - new_max)), 0);
  state.row_sum *= rescale;
  for (int i = 0; i < kLanes; ++i) state.row_sum += dm::lane(sum, i);
  state.row_max = new_max;
  return rescale;
}

// The head dim index of element i of PartialRow::out.
inline int dim_of(int i) {
  const int lane = i % kRowLanes;
  return kRowPairs ? i - lane + lane % kLanes * 2 + lane / kLanes : i;
}

// Loads what the weights of the first of `keys` keys are multiplied with: a vector of its row from element d on, to
// which `row` points, or pairs of two keys. The last key may have no second one: its own row takes that place, with
// weight 0.
DM_INLINE void load_value(FloatV* value, const DTypeKV* row, Places places, int keys, int d) {
  const FloatV x = load_row<HEAD_DIM_VO>(first_row(row, places), d);
  if constexpr (kRowPairs) {
    typedef uint32_t Bits __attribute__((vector_size(4 * kLanes)));
    const Bits first = Bits(x.raw), second = Bits(load_row<HEAD_DIM_VO>(row_at(row, places, keys > 1), d).raw);
    value[0] = FloatV(RawFloat((first & 0xffffu) | second << 16));
    value[1] = FloatV(RawFloat(first >> 16 | (second & 0xffff0000u)));
  } else {
    value[0] = x;
  }
}

// Computes `count` vectors of row r's output from element d on anew, without the values whose weight is 0: 0 * NaN is
// NaN. The others are added in the same way as before, so that rows that need no such care have the same result.
__attribute__((cold, noinline)) inline void add_nonfinite_values(RowsScratch& s, int r, float* out, const DTypeKV* v,
                                                                 Places places, int keys, float rescale, int d,
                                                                 int count) {
  constexpr int kAtOnceVO = kRowLanes / kLanes;  // vectors, and keys
  for (int j = 0; j < count; j += kAtOnceVO) {
    RawFloat sums[kAtOnceVO] = {};
    for (int c = 0; c < keys; c += kAtOnceVO) {
      FloatV value[kAtOnceVO];
      const int at = d + j * kLanes;
      load_value(value, rows_from(v + at, places, c), places_from(places, c), keys - c, at);
      float cell = s.weights[r][c];
      if (kRowPairs) __builtin_memcpy(&cell, s.rounded[r] + c, sizeof cell);
      uint32_t bits;
      __builtin_memcpy(&bits, &cell, sizeof bits);
      uint32_t counts = bits & 0x7fffffffu ? ~0u : 0u;
      if (kRowPairs) counts = (bits & 0x7fffu ? 0xffffu : 0u) | (bits & 0x7fff0000u ? 0xffff0000u : 0u);
      for (int i = 0; i < kAtOnceVO; ++i) {
        const FloatV counted = FloatV(RawFloat(RawInt(value[i].raw) & static_cast<int>(counts)));
        sums[i] = multiply_add_row(sums[i], FloatV(cell), counted);
      }
    }
    for (int i = 0; i < kAtOnceVO; ++i) {
      float* to = out + d + (j + i) * kLanes;
      FloatV(sums[i] + (FloatV::load(to) * rescale).raw).store(to);
    }
  }
}

// out = out * rescale + sum over keys of weights[key] * v[key]
inline void add_values(RowsScratch& s, PartialRow* states, const DTypeKV* v, Places v_places, int keys,
                       const float* rescale, Prefetcher& next) {
  constexpr int kSums = kValueVectors * kRowLanes / kLanes;
  for (int d = 0; d < kRowDimVO; d += kSums * kLanes) {
    RawFloat sums[kQueries][kSums] = {};
    const DTypeKV* row = v + d;
    Places places = v_places;
    DM_NO_UNROLL
    for (int c = 0; c < keys; c += kRowLanes / kLanes, advance(row, places, kRowLanes / kLanes)) {
      FloatV value[kSums];
      if (d == 0) next.prefetch_lines(kRowLanes / kLanes * HEAD_DIM_VO * static_cast<int>(sizeof(DTypeKV)) / 64);
      DM_UNROLL
      for (int j = 0; j < kValueVectors; ++j)
        load_value(value + j * (kRowLanes / kLanes), row + j * kRowLanes, places, keys - c, d + j * kRowLanes);
      DM_UNROLL
      for (int r = 0; r < kQueries; ++r) {
        float cell;
        __builtin_memcpy(&cell, kRowPairs ? static_cast<const void*>(s.rounded[r] + c) : s.weights[r] + c, sizeof cell);
        DM_UNROLL
        for (int j = 0; j < kSums; ++j) sums[r][j] = multiply_add_row(sums[r][j], FloatV(cell), value[j]);
      }
    }
    DM_UNROLL
    for (int r = 0; r < kQueries; ++r) {
      float* out = states[r].out + d;
      MaskV finite = true;
      DM_UNROLL
      for (int j = 0; j < kSums; ++j) {
        sums[r][j] += (FloatV::load(out + j * kLanes) * rescale[r]).raw;
        finite = finite && dm::math::abs(FloatV(sums[r][j])) < dm::math::infinity;
      }
      if (any(!finite)) {
        add_nonfinite_values(s, r, states[r].out, v, v_places, keys, rescale[r], d, kSums);
        continue;
      }
      DM_UNROLL
      for (int j = 0; j < kSums; ++j) FloatV(sums[r][j]).store(out + j * kLanes);
    }
  }
}

struct RowIndex {
  int qo_idx, head;
};
inline RowIndex row_index(const Sequence& seq, const RowsTask& task, int r) {
  const int group = seq.params.num_qo_heads / seq.params.num_kv_heads;
  const int row = task.first + dm::math::min(r, task.rows - 1);  // rows past the last repeat it
  return {row / group, seq.kv_head * group + row % group};
}

inline void start_rows(Sequence& seq, RowsScratch& s, PartialRow* states, const RowsTask& task, int base) {
  const Params& p = seq.params;
  for (int r = 0; r < task.padded(); ++r) {
    const RowIndex row = row_index(seq, task, r);
    const DType* q = seq.q + row.qo_idx * p.q_strides.row + row.head * p.q_strides.head;
    float* to = s.q[base + r];
    if constexpr (kRowPairs) __builtin_memcpy(to, q, sizeof(DType) * HEAD_DIM_QK);
    for (int d = 0; !kRowPairs && d < HEAD_DIM_QK; ++d)
      to[d] = dm::hooks::query_transform(seq.variant, p, static_cast<float>(q[d]));
    for (int d = HEAD_DIM_QK; d < kRowDimQK; ++d) to[d] = 0.f;
    dm::RowState<float> state{kLowest, 0.f};
    if (task.k0 == 0) state = initial_state<float>(seq, row.qo_idx, row.head);
    PartialRow& unfinished = states[base + r];
    unfinished.row_max = state.max;
    unfinished.row_sum = state.sum;
    for (float& x : unfinished.out) x = 0.f;
  }
}

// Computes one tile of keys for the rows of one KV head.
inline void run_tile(Sequence& seq, RowsScratch& s, PartialRow* all_states, const RowsTask& task, int base, int k0,
                     int keys, Prefetcher& next_keys, Prefetcher& next_values) {
  const Places k_places = s.key_places(seq.params), v_places = s.value_places(seq.params);
  for (int r0 = 0; r0 < task.rows; r0 += kQueries) {
    const int q0 = row_index(seq, task, r0).qo_idx, q1 = row_index(seq, task, r0 + kQueries - 1).qo_idx + 1;
    const TileClass tile = dm::hooks::classify_tile(seq.variant, q0, q1, k0, k0 + keys);
    if (tile == TileClass::kSkip) continue;
    multiply_rows(s, base + r0, rows_from(seq.k, k_places, k0), k_places, keys, next_keys);
    float rescale[kQueries];
    PartialRow* states = all_states + base + r0;
    for (int r = 0; r < kQueries; ++r) {
      const RowIndex row = row_index(seq, task, r0 + r);
      rescale[r] =
          online_softmax_row(seq, s, r, states[r], row.qo_idx, row.head, k0, keys, tile == TileClass::kPartial);
    }
    add_values(s, states, rows_from(seq.v, v_places, k0), v_places, keys, rescale, next_values);
  }
}

inline void run_share(Sequence& seq, RowsScratch& s, PartialRow* states, const RowsTask& task) {
  const Params& p = seq.params;
  for (int h = 0; h < task.heads; ++h) {
    seq.select(task.kv_head + h);
    start_rows(seq, s, states, task, h * task.padded());
  }
  for (int k0 = task.k0; k0 < task.k1; k0 += TILE_KEYS) {
    const int keys = dm::math::min(TILE_KEYS, task.k1 - k0), next = k0 + keys;
    const int asked = dm::math::min(TILE_KEYS, task.end - next);
    seq.select(task.kv_head);
    s.locate(seq, k0);
    Prefetcher next_keys(rows_from(seq.k, s.key_places(p), next), places_from(s.key_places(p), keys),
                         task.heads * HEAD_DIM_QK, asked);
    Prefetcher next_values(rows_from(seq.v, s.value_places(p), next), places_from(s.value_places(p), keys),
                           task.heads * HEAD_DIM_VO, asked);
    for (int h = 0; h < task.heads; ++h) {
      seq.select(task.kv_head + h);
      run_tile(seq, s, states, task, h * task.padded(), k0, keys, next_keys, next_values);
    }
  }
}

inline void finish_rows(Sequence& seq, const RowsTask& task, const PartialRow* states) {
  const Params& p = seq.params;
  for (int h = 0; h < task.heads; ++h, states += task.padded()) {
    seq.select(task.kv_head + h);
    for (int r = 0; r < task.rows; ++r) {
      const RowIndex row = row_index(seq, task, r);
      float lse;
      const float normalise = normaliser(seq, states[r].row_max, states[r].row_sum, row.qo_idx, row.head, lse);
      if (seq.lse) seq.lse[row.qo_idx * p.lse_strides.row + row.head * p.lse_strides.head] = lse;
      DType* out = seq.out + row.qo_idx * p.out_strides.row + row.head * p.out_strides.head;
      for (int i = 0; i < HEAD_DIM_VO; ++i) {
        float x = states[r].out[i] * normalise;
        if (BATCH_INVARIANT) x += 0.f;  // not -0, which sums with the masked keys of a longer sequence are not
        out[dim_of(i)] = static_cast<DType>(
            dm::hooks::output_transform(seq.variant, p, x, seq.batch, row.qo_idx, row.head, dim_of(i)));
      }
    }
  }
}

// Merges `others`, partial rows over the keys that follow, into `states`.
inline void merge_rows(PartialRow* states, const PartialRow* others, int rows) {
  for (int r = 0; r < rows; ++r) {
    const float max = dm::math::max(states[r].row_max, others[r].row_max);
    const auto factor = [&](const PartialRow& state) {
      return Traits::use_softmax ? dm::lane(weight_of(FloatV(state.row_max - max)), 0) : 1.f;
    };
    const float mine = factor(states[r]), theirs = factor(others[r]);
    for (int i = 0; i < HEAD_DIM_VO; ++i) states[r].out[i] = states[r].out[i] * mine + others[r].out[i] * theirs;
    states[r].row_sum = states[r].row_sum * mine + others[r].row_sum * theirs;
    states[r].row_max = max;
  }
}

// KV heads of one task. If heads follow each other in memory, as many as fit, so that a task reads whole rows of all
// heads and not a piece of each.
inline int heads_at_once(const Params& params, int rows) {
  const auto follow = [](const dimorph::attention::Strides& strides, int dim) {
    return strides.head == dim && strides.row > strides.head;
  };
  if (!follow(params.k_strides, HEAD_DIM_QK) || !follow(params.v_strides, HEAD_DIM_VO)) return 1;
  const int fit = dm::math::min(kTileBytes / kHeadTileBytes, kMaxRows / RowsTask{0, 1, 0, rows, 0, 0, 0}.padded());
  return dm::math::max(1, dm::math::min(fit, params.num_kv_heads));
}

// Whether a sequence is computed here: where results must not depend on the batch, every one.
inline bool computes_rows(const Params& params, int qo_len) {
  return BATCH_INVARIANT || dimorph::attention::computes(params, qo_len);
}

inline void forward_few_queries(const Params& params) {
  const int most_queries = dimorph::attention::queries_differ(params) && !BATCH_INVARIANT
                               ? dm::math::min(params.max_qo_len, dimorph::attention::kFewQueries)
                               : params.max_qo_len;
  const int group = params.num_qo_heads / params.num_kv_heads, rows = group * most_queries;
  int64_t sequences = 0;  // that are computed here
  int most_shares = 1;
  for (int b = 0; b < params.batch_size; ++b) {
    const int qo_len = params.get_qo_len(b);
    if (qo_len == 0 || !computes_rows(params, qo_len)) continue;
    ++sequences;
    most_shares = dm::math::max(most_shares, shares_of(params.get_kv_len(b)).count);
  }
  if (rows == 0 || sequences == 0) return;
  const int64_t row_tasks = (rows + kMaxRows - 1) / kMaxRows;
  const int heads = heads_at_once(params, dm::math::min(rows, kMaxRows));
  const int64_t head_tasks = (params.num_kv_heads + heads - 1) / heads;
  // With four tasks a thread, the threads finish at about the same time.
  const int64_t whole = row_tasks * head_tasks * sequences, wanted = (4 * dimorph::num_threads() + whole - 1) / whole;
  int at_once = wanted < most_shares ? (most_shares + static_cast<int>(wanted) - 1) / static_cast<int>(wanted) : 1;
  int parts = (most_shares + at_once - 1) / at_once;
  const int64_t places = row_tasks * head_tasks * params.batch_size;
  const int most_rows = heads * RowsTask{0, 1, 0, dm::math::min(rows, kMaxRows), 0, 0, 0}.padded();
  PartialRow* partial = nullptr;  // [places][most_shares][most_rows]
  if (parts > 1)
    partial = static_cast<PartialRow*>(aligned_alloc(64, places * most_shares * most_rows * sizeof(PartialRow)));
  if (!partial) {  // also if there is no memory: slower, but the same result
    at_once = most_shares;
    parts = 1;
  }

  const auto task_of = [&](const Sequence& seq, int64_t place) {
    const int first = static_cast<int>(place % row_tasks) * kMaxRows;
    const int kv_head = static_cast<int>(place / row_tasks % head_tasks) * heads;
    const int left = computes_rows(params, seq.qo_len) ? group * seq.qo_len - first : 0;
    return RowsTask{
        kv_head, dm::math::min(heads, params.num_kv_heads - kv_head), first, dm::math::min(kMaxRows, left), 0, 0, 0};
  };
  const auto batch_of = [&](int64_t place) { return static_cast<int>(place / (row_tasks * head_tasks)); };
  const auto partial_of = [&](int64_t place, int share) { return partial + (place * most_shares + share) * most_rows; };
  dimorph::parallel_for(places * parts, [&](int64_t i) {
    const int64_t place = i / parts;
    Sequence seq(params, batch_of(place), 0);
    RowsTask task = task_of(seq, place);
    const Shares shares = shares_of(seq.kv_len);
    const int first = static_cast<int>(i % parts) * at_once, last = dm::math::min(first + at_once, shares.count);
    if (task.rows <= 0 || first >= last) return;
    auto* scratch = static_cast<RowsScratch*>(dimorph::thread_scratch(sizeof(RowsScratch)));
    if (!scratch) return;
    RowsScratch& s = *scratch;
    task.end = dm::math::min(seq.kv_len, last * shares.keys);
    for (int share = first; share < last; ++share) {
      task.k0 = share * shares.keys;
      task.k1 = dm::math::min(seq.kv_len, task.k0 + shares.keys);
      run_share(seq, s, partial ? partial_of(place, share) : s.states[share > 0], task);
      if (!partial && share > 0) merge_rows(s.states[0], s.states[1], task.heads * task.padded());
    }
    if (!partial) finish_rows(seq, task, s.states[0]);
  });
  if (!partial) return;
  dimorph::parallel_for(places, [&](int64_t place) {
    Sequence seq(params, batch_of(place), 0);
    const RowsTask task = task_of(seq, place);
    if (task.rows <= 0) return;
    PartialRow* states = partial_of(place, 0);
    const int count = shares_of(seq.kv_len).count;
    for (int share = 1; share < count; ++share)
      merge_rows(states, partial_of(place, share), task.heads * task.padded());
    finish_rows(seq, task, states);
  });
  free(partial);
}

}  // namespace DIMORPH_CASE
