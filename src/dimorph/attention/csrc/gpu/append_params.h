// New keys and values on their way into a cache on a GPU, as plain data: made by the entry, received by the kernels.
#pragma once
#include <dimorph/ints.h>

#include "../kv_dtype.h"
#include "../problem.h"

namespace dimorph {
namespace attention {
namespace gpu {

// Threads of a block, blocks that an SM runs at once, half of them for keys, and loads that each thread has in flight.
// An SM of an H200 keeps its share of the memory's bandwidth busy with some 20 KB in flight. This is up to 64 KB,
// because a thread also waits for the place of its token.
constexpr int kAppendThreads = 256, kAppendBlocks = 4, kAppendLoads = 4;
// Bytes of new rows that a thread copies at a time where addresses and strides allow it.
constexpr int kAppendBytes = 16;

// A quotient by a number from 1 on is then the upper half of a product, exact below 2^31: as page_reciprocal
// (problem.h).
struct Divisor {
  uint32_t reciprocal;
  int32_t shift;
};
constexpr Divisor divisor(int64_t number) {
  int32_t shift = 0;
  while (int64_t{1} << shift < number) ++shift;
  return {static_cast<uint32_t>(((int64_t{1} << (31 + shift)) + number - 1) / number), shift};
}

// Keys, or values.
struct AppendArray {
  const void* from;
  void* to;
  Strides from_strides, to_strides;
  int32_t chunks;       // of a token, of all heads: what a thread copies at a time
  int32_t head_chunks;  // of a head
  Divisor by_head_chunks;
  KvScale scale;  // only for a cache in 8 bits
};

// Token i is row i % rows of sequence i / rows; ragged rows follow each other, with `starts` of each sequence.
struct AppendParams {
  AppendArray arrays[2];
  const int32_t* positions;
  const int32_t* starts;  // [batch_size + 1], or null
  const int32_t* rooms;   // of a ragged cache: where the room of each sequence begins, [batch_size + 1]; or null
  PageTable table;
  int64_t room;  // keys that each sequence has room for; of a ragged cache and by indptr, all sequences
  int32_t batch_size, tokens, rows;
  Divisor by_rows;
  // 2^lanes_log threads copy a token's keys, or values.
  int32_t lanes_log;
};

}  // namespace gpu
}  // namespace attention
}  // namespace dimorph
