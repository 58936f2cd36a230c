// The case for the CPU: elements in batches, one in each lane of a vector, and chunks of batches on threads.
#include "matrix_free_config.h"

#include <dimorph/parallel.h>

#include "geometry.h"

namespace DIMORPH_CASE {

struct Params : AdditionalParams {
  using Element = DType;
};
using Physics = PHYSICS_OF_POINT<Params>;

constexpr int kLanes = 64 / sizeof(DType);
typedef DType Batch __attribute__((vector_size(64)));
constexpr int kPlane = kPoints * kPoints;
constexpr int kClasses = kNodes < 3 ? kNodes : 3;  // of the nodes in one direction: first, inner, last
constexpr int kBlocks = kClasses * kClasses * kClasses;
constexpr auto kGauss = gauss<kPoints>();

// Calls visit(block, node, offset) for each node of the element, block by block.
template <typename Visit>
HD void for_each_node(Visit&& visit) {
  constexpr int kSize[3] = {1, kClasses == 2 ? 1 : DEGREE - 1, 1}, kFirst[3] = {0, 1, DEGREE};
  for (int block = 0; block < kBlocks; ++block) {
    const int a = block % kClasses, b = block / kClasses % kClasses, c = block / kClasses / kClasses;
    int offset = 0;
    for (int k = 0; k < kSize[c]; ++k)
      for (int j = 0; j < kSize[b]; ++j)
        for (int i = 0; i < kSize[a]; ++i)
          visit(block, ((kFirst[c] + k) * kNodes + kFirst[b] + j) * kNodes + kFirst[a] + i, offset++);
  }
}

// What one thread works in.
struct Scratch {
  Vector<Batch> map[8];
  Batch nodes[kNodes * kNodes * kNodes];
  Batch columns[kNodes * kPlane];  // interpolated in two directions
  Batch values[kPoints * kPlane], slopes[kPoints * kPlane];
};

// One point: replaces value and gradient in element coordinates, g[A], g[B] and g[C], by what they are tested with.
template <int A>
HD void at_point(const Physics& physics, const LineMap<A, Batch>& map, DType s, DType weight, Batch& value,
                 Batch (&g)[3]) {
  const Batch det = map.determinant(s);
  const Vector<Batch> x = map.position(s);
  if constexpr (Physics::kValue) value *= det * weight;
  Vector<Batch> gradient{}, rows[3];
  if constexpr (Physics::kGradient) {
    map.rows(s, rows);
    gradient = (rows[0] * g[0] + rows[1] * g[1] + rows[2] * g[2]) * (weight / det);
  }
  physics.at(x.at, value, gradient.at);
  if constexpr (Physics::kGradient) UNROLL for (int i = 0; i < 3; ++i) g[i] = dot(rows[i], gradient);
}

// Interpolates in the first two directions.
void to_columns(const Batch* nodes, Batch* columns) {
  for (int k = 0; k < kNodes; ++k) {
    Batch half[kNodes * kPoints];
    for (int j = 0; j < kNodes; ++j) multiply<ToPoints>(nodes + (k * kNodes + j) * kNodes, 1, half + j * kPoints, 1);
    for (int i = 0; i < kPoints; ++i) multiply<ToPoints>(half + i, kPoints, columns + k * kPlane + i, kPoints);
  }
}
void from_columns(const Batch* columns, Batch* nodes) {
  using ToNodes = Transposed<ToPoints>;
  for (int k = 0; k < kNodes; ++k) {
    Batch half[kNodes * kPoints];
    for (int i = 0; i < kPoints; ++i) multiply<ToNodes>(columns + k * kPlane + i, kPoints, half + i, kPoints);
    for (int j = 0; j < kNodes; ++j) multiply<ToNodes>(half + j * kPoints, 1, nodes + (k * kNodes + j) * kNodes, 1);
  }
}

// The third direction, the points, and back, where no gradient is needed: one column at a time.
void values_at_points(const Physics& physics, const Vector<Batch>* map, Batch* columns) {
  for (int j = 0; j < kPoints; ++j)
    for (int i = 0; i < kPoints; ++i) {
      Batch line[kPoints];
      Batch* column = columns + j * kPoints + i;
      multiply<ToPoints>(column, kPlane, line, 1);
      const LineMap<2, Batch> line_map(map, kGauss.at[i], kGauss.at[j]);
      const DType weight = kGauss.weight[i] * kGauss.weight[j];
      Batch no_gradient[3]{};
      for (int k = 0; k < kPoints; ++k)
        at_point(physics, line_map, kGauss.at[k], weight * kGauss.weight[k], line[k], no_gradient);
      multiply<Transposed<ToPoints>>(line, 1, column, kPlane);
    }
}

// The derivatives in the first two directions, the points, and back, in one plane of points.
void gradients_at_points(const Physics& physics, const Vector<Batch>* map, int k, Batch* values, Batch* slopes) {
  Batch second[kPlane];
  for (int i = 0; i < kPoints; ++i) multiply<PointsToSlopes>(values + i, kPoints, second + i, kPoints);
  for (int j = 0; j < kPoints; ++j) {
    Batch* row = values + j * kPoints;
    Batch first[kPoints];
    multiply<PointsToSlopes>(row, 1, first, 1);
    const LineMap<0, Batch> line_map(map, kGauss.at[j], kGauss.at[k]);
    const DType weight = kGauss.weight[j] * kGauss.weight[k];
    for (int i = 0; i < kPoints; ++i) {
      Batch g[3] = {first[i], second[j * kPoints + i], slopes[j * kPoints + i]};
      at_point(physics, line_map, kGauss.at[i], weight * kGauss.weight[i], row[i], g);
      first[i] = g[0];
      second[j * kPoints + i] = g[1];
      slopes[j * kPoints + i] = g[2];
    }
    multiply<Transposed<PointsToSlopes>, Physics::kValue>(first, 1, row, 1);
  }
  for (int i = 0; i < kPoints; ++i)
    multiply<Transposed<PointsToSlopes>, true>(second + i, kPoints, values + i, kPoints);
}

void apply_to_batch(const Physics& physics, Scratch& scratch) {
  to_columns(scratch.nodes, scratch.columns);
  if constexpr (!Physics::kGradient) {
    values_at_points(physics, scratch.map, scratch.columns);
  } else {
    for (int i = 0; i < kPlane; ++i) {
      multiply<ToPoints>(scratch.columns + i, kPlane, scratch.values + i, kPlane);
      multiply<ToSlopes>(scratch.columns + i, kPlane, scratch.slopes + i, kPlane);
    }
    for (int k = 0; k < kPoints; ++k)
      gradients_at_points(physics, scratch.map, k, scratch.values + k * kPlane, scratch.slopes + k * kPlane);
    for (int i = 0; i < kPlane; ++i) {
      multiply<Transposed<ToPoints>>(scratch.values + i, kPlane, scratch.columns + i, kPlane);
      multiply<Transposed<ToSlopes>, true>(scratch.slopes + i, kPlane, scratch.columns + i, kPlane);
    }
  }
  from_columns(scratch.columns, scratch.nodes);
}

void gather(const DType* x, const int32_t* starts, Batch* nodes) {
  for_each_node([=](int block, int node, int offset) {
    for (int lane = 0; lane < kLanes; ++lane) nodes[node][lane] = x[starts[block * kLanes + lane] + offset];
  });
}
void scatter(const Batch* nodes, const int32_t* starts, int lanes, DType* y) {
  for_each_node([=](int block, int node, int offset) {
    for (int lane = 0; lane < lanes; ++lane) y[starts[block * kLanes + lane] + offset] += nodes[node][lane];
  });
}

void apply(ConstTensor maps, ConstTensor starts, View<const int32_t, 2> chunks, View<const int32_t, 1> colours,
           ConstTensor x, Tensor y, Extra extra) {
  Params params{};
  if (!extra.fill(params)) return;
  maps.expect<DType>({maps.size(0), 24, kLanes});
  starts.expect<int32_t>({maps.size(0), kBlocks, kLanes});
  const Physics physics(params);
  const auto* map = maps.data<DType>();
  const int32_t* start = starts.data<int32_t>();
  const DType* from = x.data<DType>();
  DType* to = y.data<DType>();
  for (int64_t i = chunks(chunks.size(0) - 1, 3); i < y.size(0); ++i) to[i] = 0;
  for (int64_t colour = 0; colour + 1 < colours.size(0); ++colour) {
    const int64_t first = colours(colour);
    dimorph::parallel_for(colours(colour + 1) - first, [&](int64_t i) {
      auto* scratch = static_cast<Scratch*>(dimorph::thread_scratch(sizeof(Scratch)));
      if (!scratch) return;
      const int64_t row = first + i, elements = chunks(row, 1);
      for (int64_t j = chunks(row, 2); j < chunks(row, 3); ++j) to[j] = 0;
      for (int64_t done = 0; done < elements; done += kLanes) {
        const int64_t batch = chunks(row, 0) + done / kLanes, left = elements - done;
        const int32_t* of_batch = start + batch * kBlocks * kLanes;
        gather(from, of_batch, scratch->nodes);
        __builtin_memcpy(scratch->map, map + batch * 24 * kLanes, sizeof scratch->map);  // which may not be aligned
        apply_to_batch(physics, *scratch);
        scatter(scratch->nodes, of_batch, left < kLanes ? static_cast<int>(left) : kLanes, to);
      }
    });
  }
}

}  // namespace DIMORPH_CASE
