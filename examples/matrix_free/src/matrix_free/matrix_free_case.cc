// The case for the CPU: elements in batches, one in each lane of a vector, and chunks of batches on threads.
#include "matrix_free_config.h"

#include <dimorph/parallel.h>

#include "element.h"

namespace DIMORPH_CASE {

struct Params : AdditionalParams {
  using Element = DType;
};
using Physics = PHYSICS_OF_POINT<Params>;

constexpr int kLanes = 64 / sizeof(DType);
typedef DType Batch __attribute__((vector_size(64)));

struct Plane {
  const int b;
  template <typename Body>
  HD void lines(int count, const Body& body) const {
    for (int a = 0; a < count; ++a) body(a);
  }
};
struct Team {
  template <typename Body>
  HD void planes(int count, const Body& body) const {
    for (int b = 0; b < count; ++b) body(Plane{b});
  }
};
struct Scratch {
  Vector<Batch> map[8];
  Batch cubes[kCube * (Physics::kGradient ? 3 : 1)];
};

// Calls visit(number, place) for each node.
template <typename Visit>
HD void for_each_node(const Visit& visit) {
  for (int k = 0; k < kNodes; ++k)
    for (int j = 0; j < kNodes; ++j)
      for (int i = 0; i < kNodes; ++i) visit(i + j * kRow + k * kPlane, place_of(i, j, k));
}

void apply_to_batch(const Physics& physics, const DType* map, const int32_t* starts, int lanes, const DType* x,
                    DType* y, Scratch& scratch) {
  __builtin_memcpy(scratch.map, map, sizeof scratch.map);  // which may not be aligned as vectors have to be
  Batch* nodes = scratch.cubes;
  for_each_node([=](int node, Place place) {
    const int32_t* start = starts + place.block * kLanes;
    for (int lane = 0; lane < kLanes; ++lane) nodes[node][lane] = x[start[lane] + place.offset];
  });
  apply_to_element(Team{}, physics, scratch.map, nodes);
  for_each_node([=](int node, Place place) {
    const int32_t* start = starts + place.block * kLanes;
    for (int lane = 0; lane < lanes; ++lane) {
      DType& sum = y[start[lane] + place.offset];
      sum = place.block == kInterior ? nodes[node][lane] : sum + nodes[node][lane];
    }
  });
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
