// Copies new keys and values to their places in a cache. A group of threads copies one token, so that its place is
// looked up once for all heads.
#include "append_gpu_config.h"
#include "append_params.h"

namespace DIMORPH_CASE {

namespace gpu = dimorph::attention::gpu;
using gpu::AppendArray;
using gpu::AppendParams;

// The chunks of a token that one thread copies: every 2^lanes_log-th one.
struct Chunks {
  int head, chunk;  // the next one

  __device__ Chunks(const AppendArray& array, int first)
      : head(first / array.head_chunks), chunk(first % array.head_chunks) {}

  // Returns where the next chunk begins, in elements from the token's first one, and goes on.
  __device__ __forceinline__ int64_t next(const AppendArray& array, int64_t head_stride, int width) {
    const int64_t at = head * head_stride + int64_t{chunk} * width;
    head += array.step_heads;
    chunk += array.step_chunks;
    if (chunk >= array.head_chunks) chunk -= array.head_chunks, ++head;
    return at;
  }
};

// The sequence of a ragged row: the last one that begins at or before it; none behind the last one's end.
__device__ __forceinline__ int sequence_of(const AppendParams& p, int token) {
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

// Sets where a token begins in the cache, in elements; false if it is not to be copied.
__device__ __forceinline__ bool find_place(const AppendParams& p, const AppendArray& array, int token, int position,
                                           int64_t& place) {
  const int sequence = p.starts ? sequence_of(p, token) : token / p.rows;
  if (position < 0 || sequence >= p.batch_size) return false;
  int64_t batch = sequence, row = position;
  if (p.table.pages) {
    const int page = position / p.table.page_size;
    const int64_t first = p.table.starts ? p.table.starts[sequence] : sequence * p.table.stride;
    batch = p.table.pages[first + page];
    row = position - page * p.table.page_size;
  } else if (p.rooms) {
    row += p.rooms[sequence];
  }
  place = batch * array.to_strides.batch + row * array.to_strides.row;
  return true;
}

// Chunk: what a thread copies at a time, of kWidth elements.
template <typename Chunk, int kWidth>
__device__ __forceinline__ void copy(const AppendParams& p) {
  const AppendArray& array = p.arrays[blockIdx.y];
  const int lanes = 1 << p.lanes_log, lane = threadIdx.x & (lanes - 1);
  const int64_t token = (int64_t{blockIdx.x} * gpu::kAppendThreads + threadIdx.x) >> p.lanes_log;
  if (token >= p.tokens || lane >= array.chunks) return;
  const int position = p.positions[token];
  const int64_t sequence = p.starts ? 0 : token / p.rows;
  const DType* from = static_cast<const DType*>(array.from) + sequence * array.from_strides.batch +
                      (token - sequence * p.rows) * array.from_strides.row;
  DType* to = static_cast<DType*>(array.to);
  Chunks read(array, lane), written = read;
  for (int chunk = lane; chunk < array.chunks; chunk += gpu::kAppendLoads * lanes) {
    Chunk held[gpu::kAppendLoads];
#pragma unroll
    for (int i = 0; i < gpu::kAppendLoads; ++i)
      if (chunk + i * lanes < array.chunks)
        held[i] = *reinterpret_cast<const Chunk*>(from + read.next(array, array.from_strides.head, kWidth));
    // The first loads are on their way while the place is looked up.
    if (chunk == lane) {
      int64_t place = 0;
      if (!find_place(p, array, static_cast<int>(token), position, place)) return;
      to += place;
    }
#pragma unroll
    for (int i = 0; i < gpu::kAppendLoads; ++i)
      if (chunk + i * lanes < array.chunks)
        *reinterpret_cast<Chunk*>(to + written.next(array, array.to_strides.head, kWidth)) = held[i];
  }
}

extern "C" __global__ void __launch_bounds__(gpu::kAppendThreads)
    append_wide(const __grid_constant__ AppendParams params) {
  static_assert(sizeof(uint4) == gpu::kAppendWidth * sizeof(DType), "a chunk is 16 bytes");
  copy<uint4, gpu::kAppendWidth>(params);
}
extern "C" __global__ void __launch_bounds__(gpu::kAppendThreads)
    append_narrow(const __grid_constant__ AppendParams params) {
  copy<DType, 1>(params);
}

}  // namespace DIMORPH_CASE
