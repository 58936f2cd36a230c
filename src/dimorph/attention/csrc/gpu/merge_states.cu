// Merges the outputs of attention over disjoint sets of keys. 2^lanes_log threads compute one token and head.
#include "merge_states_config.h"
#include "merge_states_params.h"

namespace DIMORPH_CASE {

namespace gpu = dimorph::attention::gpu;
using dimorph::attention::MergedRow;
using dimorph::attention::MergeParams;

// kWidth elements that one access moves.
template <int kWidth>
struct alignas(kWidth * sizeof(DType)) Chunk {
  DType elements[kWidth];
};

template <int kWidth>
__device__ __forceinline__ void merge(const MergeParams& p, int lanes_log) {
  const int lane = threadIdx.x & ((1 << lanes_log) - 1);
  const int64_t index = (int64_t{blockIdx.x} * gpu::kMergeStatesThreads + threadIdx.x) >> lanes_log;
  if (index >= p.tokens * p.heads) return;
  const int64_t token = index / p.heads;
  const int head = static_cast<int>(index - token * p.heads);
  const MergedRow row(p, token, head);
  if (lane == 0) p.lse[token * p.lse_strides.token + head * p.lse_strides.head] = row.lse();
  DType* out = static_cast<DType*>(p.out) + token * p.out_strides.token + head * p.out_strides.head;
  for (int first = lane * kWidth; first < p.head_dim; first += kWidth << lanes_log) {
    float merged[kWidth];
    dimorph::attention::merge_elements<DType>(
        p, row, token, head, first, merged, [](const DType* from, float (&values)[kWidth]) {
          const Chunk<kWidth> chunk = *reinterpret_cast<const Chunk<kWidth>*>(from);
#pragma unroll
          for (int j = 0; j < kWidth; ++j) values[j] = static_cast<float>(chunk.elements[j]);
        });
    Chunk<kWidth> chunk;
#pragma unroll
    for (int j = 0; j < kWidth; ++j) chunk.elements[j] = static_cast<DType>(merged[j]);
    *reinterpret_cast<Chunk<kWidth>*>(out + first) = chunk;
  }
}

extern "C" __global__ void __launch_bounds__(gpu::kMergeStatesThreads)
    merge_states_wide(const __grid_constant__ MergeParams params, int lanes_log) {
  merge<16 / sizeof(DType)>(params, lanes_log);
}
extern "C" __global__ void __launch_bounds__(gpu::kMergeStatesThreads)
    merge_states_narrow(const __grid_constant__ MergeParams params, int lanes_log) {
  merge<1>(params, lanes_log);
}

}  // namespace DIMORPH_CASE
