// Copies new keys and values to their places in a cache, or rounds them to its elements of 8 bits. 2^lanes_log threads
// copy one token, so that its place is looked up once for all heads.
#include "../float8_formats.h"
#include "../kv_dtype.h"
#include "append_gpu_config.h"
#include "append_params.h"

namespace DIMORPH_CASE {

namespace gpu = dimorph::attention::gpu;
using gpu::AppendArray;
using gpu::AppendParams;
using DTypeKV = dimorph::attention::KvElement<KV_DTYPE, DType>::type;
constexpr bool kRounds = KV_DTYPE != dimorph::attention::KvDtype::as_q;
constexpr int kLoads = kRounds ? gpu::kAppendLoads / 2 : gpu::kAppendLoads;  // rounding takes registers

__device__ __forceinline__ int quotient(int number, const gpu::Divisor& by) {
  return static_cast<int>(__umulhi(2u * number, by.reciprocal) >> by.shift);
}

// The sequence of a token: of ragged rows, the last one that begins at or before it; batch_size behind all of them.
__device__ __forceinline__ int sequence_of(const AppendParams& p, int token) {
  if (!p.starts) return quotient(token, p.by_rows);
  int first = 0, last = p.batch_size;
  while (first < last) {
    const int middle = (first + last) / 2;
    if (p.starts[middle + 1] <= token)
      first = middle + 1;
    else
      last = middle;
  }
  return first;
}

// Returns where a token begins in the cache; null if it is not to be copied.
__device__ __forceinline__ DTypeKV* find_place(const AppendParams& p, const AppendArray& array, int token) {
  const int position = p.positions[token], sequence = sequence_of(p, token);
  if (position < 0 || sequence >= p.batch_size) return nullptr;
  int64_t batch = sequence, row = position;
  if (p.table.pages) {
    const int page = quotient(position, {p.table.page_reciprocal, p.table.page_shift});
    const int64_t first = p.table.starts ? p.table.starts[sequence] : sequence * p.table.stride;
    batch = p.table.pages[first + page];
    row = position - page * p.table.page_size;
  } else if (p.rooms) {
    row += p.rooms[sequence];
  }
  return static_cast<DTypeKV*>(array.to) + batch * array.to_strides.batch + row * array.to_strides.row;
}

// So many bytes as one value.
template <int kBytes>
struct Bytes;
template <>
struct Bytes<1> {
  using type = uint8_t;
};
template <>
struct Bytes<2> {
  using type = uint16_t;
};
template <>
struct Bytes<4> {
  using type = uint32_t;
};
template <>
struct Bytes<8> {
  using type = uint2;
};
template <>
struct Bytes<16> {
  using type = uint4;
};

// The elements of a chunk as the cache stores them.
template <typename Stored, typename Chunk>
__device__ __forceinline__ Stored stored(const Chunk& chunk, [[maybe_unused]] float scale) {
  if constexpr (kRounds) {
    Stored result;
#pragma unroll
    for (int i = 0; i < static_cast<int>(sizeof(Chunk) / sizeof(DType)); ++i) {
      const float number = static_cast<float>(reinterpret_cast<const DType*>(&chunk)[i]) / scale;
      reinterpret_cast<DTypeKV*>(&result)[i] = dimorph::attention::from_float<DTypeKV>(number);
    }
    return result;
  } else {
    return chunk;
  }
}

// Copies kWidth elements, a chunk, at a time. A group of threads goes through the tokens, each thread with up to
// kLoads chunks of a token, whose places in the token it computes once.
template <int kWidth>
__device__ __forceinline__ void copy(const AppendParams& p) {
  using Chunk = typename Bytes<kWidth * sizeof(DType)>::type;
  using Stored = typename Bytes<kWidth * sizeof(DTypeKV)>::type;
  const AppendArray& array = p.arrays[blockIdx.y];
  const int lanes = 1 << p.lanes_log, group_tokens = gpu::kAppendThreads >> p.lanes_log;  // of a block at a time
  const int first_token = blockIdx.x * group_tokens + (threadIdx.x >> p.lanes_log);
  for (int chunk = threadIdx.x & (lanes - 1); chunk < array.chunks; chunk += kLoads * lanes) {
    int64_t from[kLoads], to[kLoads];  // from the token's first element
    float scales[kLoads];
#pragma unroll
    for (int i = 0; i < kLoads; ++i) {
      const int head = quotient(chunk + i * lanes, array.by_head_chunks);
      const int element = (chunk + i * lanes - head * array.head_chunks) * kWidth;
      from[i] = head * array.from_strides.head + element;
      to[i] = head * array.to_strides.head + element;
      // Otherwise the compiler computes them anew for each token, which takes as many instructions as all the rest.
      asm volatile("" : "+l"(from[i]), "+l"(to[i]));
      scales[i] = kRounds && chunk + i * lanes < array.chunks ? array.scale.of(head) : 1.f;
    }
    for (int token = first_token; token < p.tokens; token += gridDim.x * group_tokens) {
      const int sequence = p.starts ? 0 : quotient(token, p.by_rows);
      const DType* source = static_cast<const DType*>(array.from) + sequence * array.from_strides.batch +
                            (token - sequence * p.rows) * array.from_strides.row;
      Chunk held[kLoads];
#pragma unroll
      for (int i = 0; i < kLoads; ++i)
        if (chunk + i * lanes < array.chunks) held[i] = *reinterpret_cast<const Chunk*>(source + from[i]);
      // The loads are on their way while the place is looked up.
      DTypeKV* const place = find_place(p, array, token);
      if (!place) continue;
#pragma unroll
      for (int i = 0; i < kLoads; ++i)
        if (chunk + i * lanes < array.chunks)
          *reinterpret_cast<Stored*>(place + to[i]) = stored<Stored>(held[i], scales[i]);
    }
  }
}

extern "C" __global__ void __launch_bounds__(gpu::kAppendThreads, gpu::kAppendBlocks)
    append_wide(const __grid_constant__ AppendParams params) {
  copy<gpu::kAppendBytes / sizeof(DType)>(params);
}
extern "C" __global__ void __launch_bounds__(gpu::kAppendThreads, gpu::kAppendBlocks)
    append_narrow(const __grid_constant__ AppendParams params) {
  copy<1>(params);
}

}  // namespace DIMORPH_CASE
