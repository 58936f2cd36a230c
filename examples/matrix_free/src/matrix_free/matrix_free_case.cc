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
  DM_INLINE void lines(int count, const Body& body) const {
    for (int a = 0; a < count; ++a) body(a);
  }
};
struct Team {
  template <typename Body>
  DM_INLINE void planes(int count, const Body& body) const {
    for (int b = 0; b < count; ++b) body(Plane{b});
  }
};
struct Scratch {
  Vector<Batch> map[8];
  Batch cubes[kCube * (Physics::kGradient ? 3 : 1)];
};

// Calls visit(block, its first node, its number of nodes in each direction) for each block of an element.
template <typename Visit>
DM_INLINE void for_each_block(const Visit& visit) {
  constexpr int kFirst[3] = {0, kClasses == 2 ? DEGREE : 1, DEGREE}, kCount[3] = {1, kClasses == 2 ? 1 : DEGREE - 1, 1};
  DM_UNROLL for (int c = 0; c < kClasses; ++c) DM_UNROLL for (int b = 0; b < kClasses; ++b)
      DM_UNROLL for (int a = 0; a < kClasses; ++a)
          visit((c * kClasses + b) * kClasses + a, kFirst[a] + kFirst[b] * kRow + kFirst[c] * kPlane, kCount[a],
                kCount[b], kCount[c]);
}

void apply_to_batch(const Physics& physics, const DType* map, const int32_t* starts, int lanes, const DType* x,
                    DType* y, Scratch& scratch) {
  __builtin_memcpy(scratch.map, map, sizeof scratch.map);  // which may not be aligned as vectors have to be
  auto* nodes = reinterpret_cast<DType*>(scratch.cubes);
  for_each_block([=](int block, int first, int count_i, int count_j, int count_k) {
    for (int lane = 0; lane < kLanes; ++lane) {
      const DType* from = x + starts[block * kLanes + lane];
      DType* to = nodes + first * kLanes + lane;
      for (int k = 0; k < count_k; ++k)
        for (int j = 0; j < count_j; ++j)
          for (int i = 0; i < count_i; ++i) to[(i + j * kRow + k * kPlane) * kLanes] = *from++;
    }
  });
  apply_to_element(Team{}, physics, scratch.map, scratch.cubes);
  for_each_block([=](int block, int first, int count_i, int count_j, int count_k) {
    for (int lane = 0; lane < lanes; ++lane) {
      const DType* from = nodes + first * kLanes + lane;
      DType* to = y + starts[block * kLanes + lane];
      for (int k = 0; k < count_k; ++k)
        for (int j = 0; j < count_j; ++j)
          for (int i = 0; i < count_i; ++i, ++to)
            *to = from[(i + j * kRow + k * kPlane) * kLanes] + (block == kInterior ? 0 : *to);
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
