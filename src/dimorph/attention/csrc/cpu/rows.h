// The CPU family's forward pass for few queries: the head dimension lies in SIMD lanes, keys and values are read once,
// in place, and the keys are split over threads where there are too few heads for them (flash decoding, Dao et al.
// 2023, https://pytorch.org/blog/flash-decoding/). Query heads that share a head of keys are rows of one task.
#pragma once
#include <dimorph/attention/math.h>
#include <dimorph/attention/simd.h>
#include <dimorph/attention/variants.h>
#include <dimorph/parallel.h>
#include <stdlib.h>

#include "../problem.h"
#include "pairs.h"
#include "params.h"
#include "sequence.h"
#include "tiles.h"

namespace DIMORPH_CASE {

constexpr int kQueries = 4;                   // rows computed together: each load serves four multiply-adds
constexpr int kAtOnce = kRows / 2;            // keys computed together: 4 x 4 sums beside 8 operands fill 32 registers
constexpr int kMaxRows = 32;                  // rows of a task, of all its heads of keys
constexpr int kMinSplitKeys = 4 * TILE_KEYS;  // fewer are not worth a merge
constexpr int kMaxSplitKeys = 16 * 1024;      // sums over more would lose a digit
// Bytes of a tile of all heads of a task: with what is asked for meanwhile it fills a second-level cache.
constexpr int kTileBytes = 512 * 1024;
constexpr int kHeadTileBytes = TILE_KEYS * (HEAD_DIM_QK + HEAD_DIM_VO) * static_cast<int>(sizeof(DType));

// Pairs of bfloat16 are multiplied as they lie in memory: whole vectors of them, by queries that are bfloat16 too.
constexpr int kPairLanes = 2 * kLanes;
constexpr bool kRowPairs =
    kPaired && !Traits::has_query_transform && HEAD_DIM_QK % kPairLanes == 0 && HEAD_DIM_VO % kPairLanes == 0;
constexpr int kRowLanes = kRowPairs ? kPairLanes : kLanes;  // elements a vector

// Vectors of output whose sums are in registers together.
constexpr int largest_divisor(int n, int most) { return n % most == 0 ? most : largest_divisor(n, most - 1); }
constexpr int kValueVectors = largest_divisor(HEAD_DIM_VO / kRowLanes, kRows / 2 / (kRowPairs ? 2 : 1));

// Rows [first, first + rows) of a sequence, counted through all queries and then through the query heads that share a
// head of keys, for each of the `heads` heads of keys from `kv_head` on; the keys [k0, k1), the split-th share of all.
struct RowsTask {
  int kv_head, heads, first, rows, split, k0, k1;
  int padded() const { return (rows + kQueries - 1) / kQueries * kQueries; }
};

// Asks for rows, line by line in the order they lie in memory, as many lines at a time as are computed on meanwhile.
struct Ahead {
  const char* row;
  int64_t stride;  // in bytes
  int bytes;       // of a row
  int rows;
  int at = 0;

  Ahead(const DType* from, int64_t row_stride, int elements, int count)
      : row(reinterpret_cast<const char*>(from)),
        stride(row_stride * static_cast<int64_t>(sizeof(DType))),
        bytes(elements * static_cast<int>(sizeof(DType))),
        rows(count) {}
  DM_INLINE void ask(int lines) {
    for (; lines > 0 && rows > 0; --lines) {
      __builtin_prefetch(row + at, 0, 2);
      if ((at += 64) < bytes) continue;
      at = 0;
      row += stride;
      --rows;
    }
  }
};

// A row's unfinished result. Where pairs are multiplied, a vector's even elements of `out` lie before its odd ones.
struct RowState {
  alignas(64) float out[HEAD_DIM_VO];
  float max, sum;
};

struct RowsScratch {
  alignas(64) float q[kMaxRows][HEAD_DIM_QK];  // bfloat16 where pairs are multiplied
  RowState state[kMaxRows];
  float weights[kQueries][TILE_KEYS];  // first the logits
  bfloat16 rounded[kQueries][TILE_KEYS];
};

// One vector of a row: floats, or pairs in floats' place.
template <typename Storage>
DM_INLINE FloatV load_row(const Storage* from) {
  FloatV x;
  if constexpr (kRowPairs)
    __builtin_memcpy(&x, from, sizeof x);
  else
    convert<kLanes>(reinterpret_cast<float*>(&x), from);
  return x;
}

DM_INLINE RawFloat multiply_add_row(RawFloat sum, FloatV a, FloatV b) {
  return kRowPairs ? multiply_add_pairs(sum, a.raw, b.raw) : sum + a.raw * b.raw;
}

// `count` vectors to their sums, in order.
template <int count, int lanes>
DM_INLINE void sum_lanes(FloatV* vectors) {
  if constexpr (lanes > 1) {
    DM_UNROLL
    for (int i = 0; i < count / 2; ++i) vectors[i] = add_neighbours(vectors[2 * i], vectors[2 * i + 1]);
    sum_lanes<count / 2, lanes / 2>(vectors);
  }
}

// weights[row][key] = k.q
inline void multiply_rows(RowsScratch& s, int r0, const DType* k, int64_t stride, int keys, Ahead& ahead) {
  for (int c = 0; c < keys; c += kAtOnce) {
    const DType* rows[kAtOnce];
    for (int i = 0; i < kAtOnce; ++i) rows[i] = k + dm::math::min(c + i, keys - 1) * stride;
    ahead.ask(kAtOnce * HEAD_DIM_QK * static_cast<int>(sizeof(DType)) / 64);
    RawFloat sums[kQueries * kAtOnce] = {};
    DM_NO_UNROLL
    for (int d = 0; d < HEAD_DIM_QK; d += kRowLanes) {
      FloatV key[kAtOnce];
      DM_UNROLL
      for (int i = 0; i < kAtOnce; ++i) key[i] = load_row(rows[i] + d);
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

// Logits of one row to weights, 0 from the last key up to a whole vector. Returns what the output so far must be
// multiplied with.
inline float weigh_row(Sequence& seq, RowsScratch& s, int r, RowState& state, int qo_idx, int head, int k0, int keys,
                       bool masked) {
  const float scale = Traits::use_softmax ? seq.params.sm_scale * kQueryUnit : 1.f;
  FloatV max = kLowest, sum = 0.f;
  for (int c = 0; c < keys; c += kLanes) {
    float* logits = s.weights[r] + c;
    const IntV key = IntV::sequence(c), kv_idx = dm::math::min(key, IntV(keys - 1)) + k0;
    FloatV x = FloatV::load(logits) * scale;
    x = dm::hooks::logits_transform(seq.variant, seq.params, x, seq.batch, qo_idx, kv_idx, head, seq.kv_head);
    if (Traits::use_softmax) x = x * kLogitUnit;
    MaskV keep = key < keys;
    if (Traits::has_logits_mask && masked)
      keep =
          keep && dm::hooks::logits_mask<MaskV>(seq.variant, seq.params, seq.batch, qo_idx, kv_idx, head, seq.kv_head);
    x = dm::math::select(keep, x, FloatV(Traits::use_softmax ? -dm::math::infinity : 0.f));
    x.store(logits);
    max = dm::math::max(max, x);
  }
  float new_max = state.max;
  for (int i = 0; i < kLanes; ++i) new_max = dm::math::max(new_max, dm::lane(max, i));
  for (int c = 0; c < keys; c += kLanes) {
    FloatV x = FloatV::load(s.weights[r] + c);
    if (Traits::use_softmax) {
      x = dm::math::exp2_nonpositive(x - new_max);
      sum += x;
      x.store(s.weights[r] + c);
    }
    if constexpr (kRowPairs) store_rounded(s.rounded[r] + c, x);
  }
  if (!Traits::use_softmax) return 1.f;
  const float rescale = dm::lane(dm::math::exp2_nonpositive(FloatV(state.max - new_max)), 0);
  state.sum *= rescale;
  for (int i = 0; i < kLanes; ++i) state.sum += dm::lane(sum, i);
  state.max = new_max;
  return rescale;
}

// Which element of a row an element of RowState::out is.
inline int dim_of(int i) {
  const int lane = i % kRowLanes;
  return kRowPairs ? i - lane + lane % kLanes * 2 + lane / kLanes : i;
}

// The elements [first, last) of row r's `out` once more, without the values whose weight is 0: 0 * NaN is NaN.
__attribute__((cold, noinline)) inline void add_nonfinite_values(RowsScratch& s, int r, float* out, const DType* v,
                                                                 int64_t stride, int keys, float rescale, int first,
                                                                 int last) {
  for (int i = first; i < last; ++i) {
    out[i] *= rescale;
    for (int c = 0; c < keys; ++c) {
      const float weight = kRowPairs ? static_cast<float>(s.rounded[r][c]) : s.weights[r][c];
      if (weight != 0.f) out[i] += weight * static_cast<float>(v[c * stride + dim_of(i)]);
    }
  }
}

// out = out * rescale + weights.v
inline void add_values(RowsScratch& s, RowState* states, const DType* v, int64_t stride, int keys, const float* rescale,
                       Ahead& ahead) {
  constexpr int kSums = kValueVectors * kRowLanes / kLanes;
  for (int d = 0; d < HEAD_DIM_VO; d += kSums * kLanes) {
    RawFloat sums[kQueries][kSums] = {};
    const DType* row = v + d;
    DM_NO_UNROLL
    for (int c = 0; c < keys; c += kRowLanes / kLanes, row += kRowLanes / kLanes * stride) {
      FloatV value[kSums];
      if (d == 0) ahead.ask(kRowLanes / kLanes * HEAD_DIM_VO * static_cast<int>(sizeof(DType)) / 64);
      DM_UNROLL
      for (int j = 0; j < kValueVectors; ++j) {
        const FloatV x = load_row(row + j * kRowLanes);
        if constexpr (kRowPairs) {  // of two keys, where the second of the last may be none: its weight is 0
          typedef uint32_t Bits __attribute__((vector_size(4 * kLanes)));
          const Bits one = Bits(x.raw), next = Bits(load_row(row + (c + 1 < keys) * stride + j * kRowLanes).raw);
          value[2 * j] = FloatV(RawFloat((one & 0xffffu) | next << 16));
          value[2 * j + 1] = FloatV(RawFloat(one >> 16 | (next & 0xffff0000u)));
        } else {
          value[j] = x;
        }
      }
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
        add_nonfinite_values(s, r, states[r].out, v, stride, keys, rescale[r], d, d + kSums * kLanes);
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

inline void start_rows(Sequence& seq, RowsScratch& s, const RowsTask& task, int base) {
  const Params& p = seq.params;
  for (int r = 0; r < task.padded(); ++r) {
    const RowIndex row = row_index(seq, task, r);
    const DType* q = seq.q + row.qo_idx * p.q_strides.row + row.head * p.q_strides.head;
    float* to = s.q[base + r];
    if constexpr (kRowPairs) __builtin_memcpy(to, q, sizeof(DType) * HEAD_DIM_QK);
    for (int d = 0; !kRowPairs && d < HEAD_DIM_QK; ++d)
      to[d] = dm::hooks::query_transform(seq.variant, p, static_cast<float>(q[d]));
    dm::RowState<float> state{kLowest, 0.f};
    if (task.split == 0) state = initial_state<float>(seq, row.qo_idx, row.head);
    RowState& unfinished = s.state[base + r];
    unfinished.max = state.max;
    unfinished.sum = state.sum;
    for (float& x : unfinished.out) x = 0.f;
  }
}

// One tile of keys for the rows of one head of keys.
inline void run_tile(Sequence& seq, RowsScratch& s, const RowsTask& task, int base, int k0, int keys, Ahead& ahead_k,
                     Ahead& ahead_v) {
  const int64_t k_stride = seq.params.k_strides.row, v_stride = seq.params.v_strides.row;
  for (int r0 = 0; r0 < task.rows; r0 += kQueries) {
    const int q0 = row_index(seq, task, r0).qo_idx, q1 = row_index(seq, task, r0 + kQueries - 1).qo_idx + 1;
    const TileClass tile = dm::hooks::classify_tile(seq.variant, q0, q1, k0, k0 + keys);
    if (tile == TileClass::kSkip) continue;
    multiply_rows(s, base + r0, seq.k + k0 * k_stride, k_stride, keys, ahead_k);
    float rescale[kQueries];
    RowState* states = s.state + base + r0;
    for (int r = 0; r < kQueries; ++r) {
      const RowIndex row = row_index(seq, task, r0 + r);
      rescale[r] = weigh_row(seq, s, r, states[r], row.qo_idx, row.head, k0, keys, tile == TileClass::kPartial);
    }
    add_values(s, states, seq.v + k0 * v_stride, v_stride, keys, rescale, ahead_v);
  }
}

inline void run_rows(Sequence& seq, RowsScratch& s, const RowsTask& task) {
  const Params& p = seq.params;
  for (int h = 0; h < task.heads; ++h) {
    seq.select(task.kv_head + h);
    start_rows(seq, s, task, h * task.padded());
  }
  for (int k0 = task.k0; k0 < task.k1; k0 += TILE_KEYS) {
    const int keys = dm::math::min(TILE_KEYS, task.k1 - k0), next = k0 + keys;
    const int asked = dm::math::min(TILE_KEYS, task.k1 - next);
    seq.select(task.kv_head);
    Ahead ahead_k(seq.k + next * p.k_strides.row, p.k_strides.row, task.heads * HEAD_DIM_QK, asked);
    Ahead ahead_v(seq.v + next * p.v_strides.row, p.v_strides.row, task.heads * HEAD_DIM_VO, asked);
    for (int h = 0; h < task.heads; ++h) {
      seq.select(task.kv_head + h);
      run_tile(seq, s, task, h * task.padded(), k0, keys, ahead_k, ahead_v);
    }
  }
}

inline void finish_rows(Sequence& seq, const RowsTask& task, const RowState* states) {
  const Params& p = seq.params;
  for (int h = 0; h < task.heads; ++h, states += task.padded()) {
    seq.select(task.kv_head + h);
    for (int r = 0; r < task.rows; ++r) {
      const RowIndex row = row_index(seq, task, r);
      float lse;
      const float normalise = normalisation(seq, states[r].max, states[r].sum, row.qo_idx, row.head, lse);
      if (seq.lse) seq.lse[row.qo_idx * p.lse_strides.row + row.head * p.lse_strides.head] = lse;
      DType* out = seq.out + row.qo_idx * p.out_strides.row + row.head * p.out_strides.head;
      for (int i = 0; i < HEAD_DIM_VO; ++i) {
        const float x = states[r].out[i] * normalise;
        out[dim_of(i)] = static_cast<DType>(
            dm::hooks::output_transform(seq.variant, p, x, seq.batch, row.qo_idx, row.head, dim_of(i)));
      }
    }
  }
}

// Adds to `states` what other keys of the same rows gave.
inline void merge_rows(RowState* states, const RowState* others, int rows) {
  for (int r = 0; r < rows; ++r) {
    const float max = dm::math::max(states[r].max, others[r].max);
    const auto factor = [&](const RowState& state) {
      return Traits::use_softmax ? dm::lane(dm::math::exp2_nonpositive(FloatV(state.max - max)), 0) : 1.f;
    };
    const float mine = factor(states[r]), theirs = factor(others[r]);
    for (int i = 0; i < HEAD_DIM_VO; ++i) states[r].out[i] = states[r].out[i] * mine + others[r].out[i] * theirs;
    states[r].sum = states[r].sum * mine + others[r].sum * theirs;
    states[r].max = max;
  }
}

// Heads of keys for one task. Where they follow each other in memory, as many as fit: then a task reads whole rows of
// all heads, and not a piece of each.
inline int heads_at_once(const Params& params, int rows) {
  const auto follow = [](const dimorph::attention::Strides& strides, int dim) {
    return strides.head == dim && strides.row > strides.head;
  };
  if (!follow(params.k_strides, HEAD_DIM_QK) || !follow(params.v_strides, HEAD_DIM_VO)) return 1;
  const int fit = dm::math::min(kTileBytes / kHeadTileBytes, kMaxRows / RowsTask{0, 1, 0, rows, 0, 0, 0}.padded());
  return dm::math::max(1, dm::math::min(fit, params.num_kv_heads));
}

inline void forward_rows(const Params& params) {
  const int group = params.num_qo_heads / params.num_kv_heads, rows = group * params.max_qo_len;
  if (rows == 0 || params.batch_size == 0) return;
  const int64_t row_tasks = (rows + kMaxRows - 1) / kMaxRows;
  const int heads = heads_at_once(params, dm::math::min(rows, kMaxRows));
  const int64_t head_tasks = (params.num_kv_heads + heads - 1) / heads;
  const int64_t whole = row_tasks * head_tasks * params.batch_size;
  // Four tasks a thread let them finish together.
  int splits = dm::math::min(static_cast<int>((4 * dimorph::num_threads() + whole - 1) / whole),
                             params.max_kv_len / kMinSplitKeys);
  splits = dm::math::max(splits, (params.max_kv_len + kMaxSplitKeys - 1) / kMaxSplitKeys);
  RowState* partial = nullptr;  // [whole][splits][kMaxRows]
  if (splits > 1) partial = static_cast<RowState*>(aligned_alloc(64, whole * splits * kMaxRows * sizeof(RowState)));
  if (!partial) splits = 1;  // out of memory, too: slower and less exact, but the same result
  const int share = (params.max_kv_len / TILE_KEYS / splits + 1) * TILE_KEYS;

  const auto task_of = [&](const Sequence& seq, int64_t i, int split) {
    const int first = static_cast<int>(i % row_tasks) * kMaxRows;
    const int kv_head = static_cast<int>(i / row_tasks % head_tasks) * heads;
    return RowsTask{kv_head,
                    dm::math::min(heads, params.num_kv_heads - kv_head),
                    first,
                    dm::math::min(kMaxRows, group * seq.qo_len - first),
                    split,
                    dm::math::min(seq.kv_len, split * share),
                    dm::math::min(seq.kv_len, (split + 1) * share)};
  };
  const auto batch_of = [&](int64_t i) { return static_cast<int>(i / (row_tasks * head_tasks)); };
  dimorph::parallel_for(whole * splits, [&](int64_t i) {
    Sequence seq(params, batch_of(i / splits), 0);
    const RowsTask task = task_of(seq, i / splits, static_cast<int>(i % splits));
    if (task.rows <= 0) return;
    RowsScratch& s = *static_cast<RowsScratch*>(dimorph::thread_scratch(sizeof(RowsScratch)));
    run_rows(seq, s, task);
    if (partial)
      __builtin_memcpy(partial + i * kMaxRows, s.state, task.heads * task.padded() * sizeof(RowState));
    else
      finish_rows(seq, task, s.state);
  });
  if (!partial) return;
  dimorph::parallel_for(whole, [&](int64_t i) {
    Sequence seq(params, batch_of(i), 0);
    const RowsTask task = task_of(seq, i, 0);
    if (task.rows <= 0) return;
    RowState* states = partial + i * splits * kMaxRows;
    for (int split = 1; split < splits; ++split)
      merge_rows(states, states + split * kMaxRows, task.heads * task.padded());
    finish_rows(seq, task, states);
  });
  free(partial);
}

}  // namespace DIMORPH_CASE
