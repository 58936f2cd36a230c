// The device code: a thread for each line of an element's points, some elements in a block.
#include "apply_params.h"

namespace DIMORPH_CASE {

// Sets the unknowns that elements share to zero; apply_to_elements adds to them.
extern "C" __global__ void __launch_bounds__(256) clear_shared(const __grid_constant__ ApplyParams params) {
  int64_t i = params.first_shared + static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  for (; i < params.unknowns; i += static_cast<int64_t>(gridDim.x) * blockDim.x) params.y[i] = 0;
}

struct Plane {
  const int a, b, count;  // this thread's line
  template <typename Body>
  __device__ __forceinline__ void lines(int number, const Body& body) const {
    if (a < number && b < count) body(a);
    __syncthreads();
  }
};
struct Team {
  const int a, b;
  template <typename Body>
  __device__ __forceinline__ void planes(int count, const Body& body) const {
    body(Plane{a, b, count});
  }
};

// Calls visit(number in the cube, first unknown of the block + offset) for some of an element's nodes.
template <typename Visit>
__device__ __forceinline__ void for_each_node(int begin, const int32_t* starts, const Visit& visit) {
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

extern "C" __global__ void __launch_bounds__(kThreads) apply_to_elements(const __grid_constant__ ApplyParams params) {
  extern __shared__ DType shared[];
  const int slot = threadIdx.x / kLines, line = threadIdx.x % kLines;
  const int number = blockIdx.x * ELEMENTS + slot;
  const bool idle = slot == ELEMENTS || number >= params.elements;
  DType* cube = shared + slot * kCubes * kCube;
  const int32_t* starts = params.starts + static_cast<int64_t>(number) * kBlocks;
  const auto* map = reinterpret_cast<const Vector<DType>*>(params.maps) + static_cast<int64_t>(number) * 8;
  const int begin = idle ? kCube : line;
  for_each_node(begin, starts, [=](int node, int unknown, bool) { cube[node] = params.x[unknown]; });
  __syncthreads();
  apply_to_element(Team{line % kPoints, idle ? kPoints : line / kPoints}, Physics(params), map, cube);
  for_each_node(begin, starts, [=](int node, int unknown, bool interior) {
    if (interior)
      params.y[unknown] = cube[node];
    else
      atomicAdd(params.y + unknown, cube[node]);
  });
}

}  // namespace DIMORPH_CASE
