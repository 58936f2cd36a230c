// The device code: a thread for each line of an element's points, some elements in a block.
#include "gpu.h"

namespace DIMORPH_CASE {

// Sets the unknowns that elements share to zero; apply_to_elements adds to them.
extern "C" __global__ void __launch_bounds__(256) clear_shared(DType* y, int64_t count) {
  int64_t i = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  for (; i < count; i += static_cast<int64_t>(gridDim.x) * blockDim.x) y[i] = 0;
}

struct Team {
  const int own_a, own_b;  // this thread's line
  template <typename Body>
  __device__ DM_INLINE void planes(int count, const Body& body) const {
    body(own_b, own_b < count);
  }
  template <typename Body>
  __device__ DM_INLINE void lines(bool busy, int count, const Body& body) const {
    if (busy && own_a < count) body(own_a);
    __syncthreads();
  }
};

// Calls visit(number in the cube, first unknown of the block + offset) for some of an element's nodes.
template <typename Visit>
__device__ DM_INLINE void for_each_node(int begin, const int32_t* starts, const Visit& visit) {
  for (int n = begin; n < kNodes * kNodes * kNodes; n += kLines) {
    int block = 0, offset = 0;
    const int i = n % kNodes, j = n / kNodes % kNodes, k = n / kNodes / kNodes;
    for (const int at : {k, j, i}) {
      block = block * kClasses + (at == 0 ? 0 : at == DEGREE ? kClasses - 1 : 1);
      if (at != 0 && at != DEGREE) offset = offset * (DEGREE - 1) + at - 1;
    }
    visit(i + j * kRow + k * kPlane, starts[block] + offset, block == kInterior);
  }
}

extern "C" __global__ void __launch_bounds__(kThreads)
    apply_to_elements(const __grid_constant__ Params params, int32_t elements, const DType* maps,
                      const int32_t* all_starts, const DType* x, DType* y) {
  extern __shared__ DType shared[];
  const int slot = threadIdx.x / kLines, line = threadIdx.x % kLines;
  const int64_t number = static_cast<int64_t>(blockIdx.x) * ELEMENTS + slot;
  const bool idle = slot == ELEMENTS || number >= elements;
  const int begin = idle ? kCube : line;
  DType* cube = shared + slot * kCubes * kCube;
  const int32_t* starts = all_starts + number * kBlocks;
  for_each_node(begin, starts, [=](int node, int unknown, bool) { cube[node] = x[unknown]; });
  __syncthreads();
  apply_to_element(Team{line % kPoints, idle ? kPoints : line / kPoints}, Physics(params),
                   reinterpret_cast<const Vector<DType>*>(maps) + number * 8, cube);
  for_each_node(begin, starts, [=](int node, int unknown, bool interior) {
    if (interior)
      y[unknown] = cube[node];
    else
      atomicAdd(y + unknown, cube[node]);
  });
}

}  // namespace DIMORPH_CASE
