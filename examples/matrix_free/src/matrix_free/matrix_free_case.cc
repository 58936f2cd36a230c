// The case for the CPU: elements in batches, one in each lane of a vector, and chunks of batches on threads.
#include "matrix_free_config.h"

#include <dimorph/parallel.h>

#include "element.h"

namespace DIMORPH_CASE {

constexpr int kLanes = 64 / sizeof(DType);
typedef DType Batch __attribute__((vector_size(64)));

struct Team {
  template <typename Body>
  DM_INLINE void planes(int count, const Body& body) const {
    for (int b = 0; b < count; ++b) body(b, true);
  }
  template <typename Body>
  DM_INLINE void lines(bool, int count, const Body& body) const {
    for (int a = 0; a < count; ++a) body(a);
  }
};
struct Scratch {
  Vector<Batch> map[8];
  Batch cubes[kCubes * kCube];
};

// Calls visit(number in the cubes, unknown, whether it is in the interior) for each node of the first `lanes` elements.
template <typename Visit>
DM_INLINE void for_each_node(const int32_t* starts, int lanes, const Visit& visit) {
  constexpr int kFirst[3] = {0, kClasses == 2 ? DEGREE : 1, DEGREE}, kCount[3] = {1, kClasses == 2 ? 1 : DEGREE - 1, 1};
  DM_UNROLL for (int c = 0; c < kClasses; ++c) DM_UNROLL for (int b = 0; b < kClasses; ++b)
      DM_UNROLL for (int a = 0; a < kClasses; ++a) {
    const int block = (c * kClasses + b) * kClasses + a, first = kFirst[a] + kFirst[b] * kRow + kFirst[c] * kPlane;
    for (int lane = 0; lane < lanes; ++lane) {
      int unknown = starts[block * kLanes + lane];
      for (int k = 0; k < kCount[c]; ++k)
        for (int j = 0; j < kCount[b]; ++j)
          for (int i = 0; i < kCount[a]; ++i)
            visit((first + i + j * kRow + k * kPlane) * kLanes + lane, unknown++, block == kInterior);
    }
  }
}

void apply_to_batch(const Physics& physics, const DType* map, const int32_t* starts, int lanes, const DType* x,
                    DType* y, Scratch& scratch) {
  __builtin_memcpy(scratch.map, map, sizeof scratch.map);  // which may not be aligned as vectors have to be
  auto* nodes = reinterpret_cast<DType*>(scratch.cubes);
  for_each_node(starts, kLanes, [=](int node, int unknown, bool) { nodes[node] = x[unknown]; });
  apply_to_element(Team{}, physics, scratch.map, scratch.cubes);
  for_each_node(starts, lanes,
                [=](int node, int unknown, bool interior) { y[unknown] = nodes[node] + (interior ? 0 : y[unknown]); });
}

void apply(ConstTensor maps, ConstTensor starts, View<const int32_t, 2> chunks, View<const int32_t, 1> colours,
           ConstTensor x, Tensor y, Extra extra) {
  Params params{};
  if (!extra.fill(params)) return;
  maps.expect<DType>({maps.size(0), 24, kLanes});
  starts.expect<int32_t>({maps.size(0), kBlocks, kLanes});
  const Physics physics(params);
  DType* to = y.data<DType>();
  for (int64_t i = chunks(chunks.size(0) - 1, 3); i < y.size(0); ++i) to[i] = 0;  // on the boundary
  for (int64_t colour = 0; colour + 1 < colours.size(0); ++colour) {
    dimorph::parallel_for(colours(colour + 1) - colours(colour), [&](int64_t i) {
      auto* scratch = static_cast<Scratch*>(dimorph::thread_scratch(sizeof(Scratch)));
      if (!scratch) return;
      const int64_t row = colours(colour) + i;
      for (int64_t j = chunks(row, 2); j < chunks(row, 3); ++j) to[j] = 0;
      int64_t batch = chunks(row, 0);
      for (int left = chunks(row, 1); left > 0; left -= kLanes, ++batch)
        apply_to_batch(physics, maps.data<DType>() + batch * 24 * kLanes,
                       starts.data<int32_t>() + batch * kBlocks * kLanes, left < kLanes ? left : kLanes,
                       x.data<DType>(), to, *scratch);
    });
  }
}

}  // namespace DIMORPH_CASE
