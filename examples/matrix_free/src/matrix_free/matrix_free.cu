// The device code: a thread for each line of an element's points, some elements in a block.
#include "gpu.h"

namespace DIMORPH_CASE {

// Sets the unknowns that elements share to zero; apply_to_elements adds to them.
extern "C" __global__ void __launch_bounds__(256) clear_shared(DType* y, int64_t count) {
  for (int64_t i = blockIdx.x * int64_t{256} + threadIdx.x; i < count; i += gridDim.x * int64_t{256}) y[i] = 0;
}

// What a block may have, in KiB (CUDA C++ Programming Guide, compute capabilities).
constexpr int kMost = __CUDA_ARCH__ == 800 ? 163 : __CUDA_ARCH__ < 900 || __CUDA_ARCH__ >= 1200 ? 99 : 227;
static_assert(kShared <= kMost << 10,
              "DEGREE needs more shared memory than a block has: 227 KiB on GPUs from 9.0 to 11, 163 on 8.0, else 99");

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
    if (!interior) return void(atomicAdd(y + unknown, cube[node]));
    y[unknown] = cube[node];
  });
}

}  // namespace DIMORPH_CASE
