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

extern "C" __global__ void __launch_bounds__(kThreads) apply_to_elements(const __grid_constant__ ApplyParams params) {
  extern __shared__ DType shared[];
  const int slot = threadIdx.x / kLines, line = threadIdx.x % kLines;
  const int number = blockIdx.x * ELEMENTS + slot;
  const bool idle = slot == ELEMENTS || number >= params.elements;
  DType* cube = shared + slot * kCubes * kCube;
  const int32_t* starts = params.starts + static_cast<int64_t>(number) * kBlocks;
  const auto* map = reinterpret_cast<const Vector<DType>*>(params.maps) + static_cast<int64_t>(number) * 8;
  constexpr int kAll = kNodes * kNodes * kNodes;

  for (int n = idle ? kAll : line; n < kAll; n += kLines) {
    const int i = n % kNodes, j = n / kNodes % kNodes, k = n / kNodes / kNodes;
    const Place place = place_of(i, j, k);
    cube[i + j * kRow + k * kPlane] = params.x[starts[place.block] + place.offset];
  }
  __syncthreads();
  apply_to_element(Team{line % kPoints, idle ? kPoints : line / kPoints}, Physics(params), map, cube);
  for (int n = idle ? kAll : line; n < kAll; n += kLines) {
    const int i = n % kNodes, j = n / kNodes % kNodes, k = n / kNodes / kNodes;
    const Place place = place_of(i, j, k);
    DType* y = params.y + starts[place.block] + place.offset;
    const DType value = cube[i + j * kRow + k * kPlane];
    if (place.block == kInterior)
      *y = value;
    else
      atomicAdd(y, value);
  }
}

}  // namespace DIMORPH_CASE
