// Copies new keys and values to their places in a cache. 2^lanes_log threads copy one token, so that its place is
// looked up once for all heads.
#include "append_gpu_config.h"
#include "append_params.h"

namespace DIMORPH_CASE {

namespace gpu = dimorph::attention::gpu;
using gpu::AppendArray;
using gpu::AppendParams;

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
__device__ __forceinline__ DType* find_place(const AppendParams& p, const AppendArray& array, int token) {
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
  return static_cast<DType*>(array.to) + batch * array.to_strides.batch + row * array.to_strides.row;
}

// Chunk: what a thread copies at a time, of kWidth elements. A group of threads goes through the tokens, each thread
// with up to kAppendLoads chunks of a token, whose places in the token it computes once.
template <typename Chunk, int kWidth>
__device__ __forceinline__ void copy(const AppendParams& p) {
  const AppendArray& array = p.arrays[blockIdx.y];
  const int lanes = 1 << p.lanes_log, group_tokens = gpu::kAppendThreads >> p.lanes_log;  // of a block at a time
  const int first_token = blockIdx.x * group_tokens + (threadIdx.x >> p.lanes_log);
  for (int chunk = threadIdx.x & (lanes - 1); chunk < array.chunks; chunk += gpu::kAppendLoads * lanes) {
    int64_t from[gpu::kAppendLoads], to[gpu::kAppendLoads];  // from the token's first element
#pragma unroll
    for (int i = 0; i < gpu::kAppendLoads; ++i) {
      const int head = quotient(chunk + i * lanes, array.by_head_chunks);
      const int element = (chunk + i * lanes - head * array.head_chunks) * kWidth;
      from[i] = head * array.from_strides.head + element;
      to[i] = head * array.to_strides.head + element;
      // Otherwise the compiler computes them anew for each token, which takes as many instructions as all the rest.
      asm volatile("" : "+l"(from[i]), "+l"(to[i]));
    }
    for (int token = first_token; token < p.tokens; token += gridDim.x * group_tokens) {
      const int sequence = p.starts ? 0 : quotient(token, p.by_rows);
      const DType* source = static_cast<const DType*>(array.from) + sequence * array.from_strides.batch +
                            (token - sequence * p.rows) * array.from_strides.row;
      Chunk held[gpu::kAppendLoads];
#pragma unroll
      for (int i = 0; i < gpu::kAppendLoads; ++i)
        if (chunk + i * lanes < array.chunks) held[i] = *reinterpret_cast<const Chunk*>(source + from[i]);
      // The loads are on their way while the place is looked up.
      DType* const place = find_place(p, array, token);
      if (!place) continue;
#pragma unroll
      for (int i = 0; i < gpu::kAppendLoads; ++i)
        if (chunk + i * lanes < array.chunks) *reinterpret_cast<Chunk*>(place + to[i]) = held[i];
    }
  }
}

extern "C" __global__ void __launch_bounds__(gpu::kAppendThreads, gpu::kAppendBlocks)
    append_wide(const __grid_constant__ AppendParams params) {
  static_assert(sizeof(uint4) == gpu::kAppendWidth * sizeof(DType), "a chunk is 16 bytes");
  copy<uint4, gpu::kAppendWidth>(params);
}
extern "C" __global__ void __launch_bounds__(gpu::kAppendThreads, gpu::kAppendBlocks)
    append_narrow(const __grid_constant__ AppendParams params) {
  copy<DType, 1>(params);
}

}  // namespace DIMORPH_CASE
