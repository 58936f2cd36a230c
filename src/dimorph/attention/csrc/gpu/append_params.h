// New keys and values on their way into a cache on a GPU, as plain data: made by the entry, received by the kernels.
#pragma once
#include <dimorph/ints.h>

#include "../problem.h"

namespace dimorph {
namespace attention {
namespace gpu {

// Threads of a block, and loads that each has in flight. An SM of an H200 keeps its share of the memory's bandwidth
// busy with about 40 KB in flight; this is up to 128 KB, because a thread also waits for the place of its token.
constexpr int kAppendThreads = 256, kAppendLoads = 4;
// Elements that a thread copies at a time where addresses and strides allow it: 16 bytes.
constexpr int kAppendWidth = 8;

// Keys, or values.
struct AppendArray {
  const void* from;
  void* to;
  Strides from_strides, to_strides;
  int32_t head_chunks;  // of a head: what a thread copies at a time
  int32_t chunks;       // of a token: of all heads
  // What lies between two chunks of a thread, 2^lanes_log chunks: so many heads, and so many chunks more.
  int32_t step_heads, step_chunks;
};

// Token i is row i % rows of sequence i / rows; ragged rows follow each other, with `starts` of each sequence.
struct AppendParams {
  AppendArray arrays[2];
  const int32_t* positions;
  const int32_t* starts;  // [batch_size + 1], or null
  const int32_t* rooms;   // of a ragged cache: where the room of each sequence begins, [batch_size + 1]; or null
  PageTable table;
  int32_t batch_size, tokens, rows;
  // 2^lanes_log threads copy a token's keys, or values.
  int32_t lanes_log;
};

}  // namespace gpu
}  // namespace attention
}  // namespace dimorph
