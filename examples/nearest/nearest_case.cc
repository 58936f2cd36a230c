// The case: nanoflann's tree, for one dtype, dimension and metric.
#include "nearest_config.h"

#include <dimorph/parallel.h>
#include <nanoflann.hpp>

namespace DIMORPH_CASE {

struct Params : AdditionalParams {
  using Element = DType;
};

// Points and metric, as nanoflann asks for them.
struct Space {
  using ElementType = DType;
  using DistanceType = DType;
  const DType* points;
  size_t count;
  METRIC<Params> metric;

  size_t kdtree_get_point_count() const { return count; }
  DType kdtree_get_pt(size_t row, size_t axis) const { return points[row * DIM + axis]; }
  bool kdtree_get_bbox(...) const { return false; }
  DType accum_dist(DType a, DType b, size_t axis) const { return metric.term(a - b, static_cast<int>(axis)); }
  DType evalMetric(const DType* x, size_t row, size_t) const {
    DType sum = 0;
    for (int i = 0; i < DIM; ++i) sum += metric.term(x[i] - points[row * DIM + i], i);
    return sum;
  }
};

struct Tree {
  std::vector<dimorph::KeptTensor<const DType>> arrays;
  Space space;
  nanoflann::KDTreeSingleIndexAdaptor<Space, Space, DIM> index{DIM, space, {}};
};

dimorph::NewHandle build(ConstTensor points, Extra extra) {
  Params params{};
  std::vector<dimorph::KeptTensor<const DType>> arrays;
  arrays.emplace_back(points);
  if (!extra.fill(params, [&](const char*, const char*, ConstTensor array) { arrays.emplace_back(array); })) return {};
  const Space space{points.data<DType>(), static_cast<size_t>(points.size(0)), METRIC<Params>(params)};
  return dimorph::make_handle<Tree>(static_cast<decltype(arrays)&&>(arrays), space);
}

void query(const dimorph::Handle<Tree>& tree, ConstTensor x, Tensor rows, Tensor distances) {
  const int64_t k = rows.size(1);
  x.expect<DType>({rows.size(0), DIM});
  const DType* from = x.data<DType>();
  int64_t* row = rows.data<int64_t>();
  DType* distance = distances.data<DType>();
  dimorph::parallel_for(
      rows.size(0),
      [=](int64_t i) {
        nanoflann::KNNResultSet<DType, int64_t> nearest(static_cast<size_t>(k));
        nearest.init(row + i * k, distance + i * k);
        tree->index.findNeighbors(nearest, from + i * DIM, {});
        const int64_t found = i * k + static_cast<int64_t>(nearest.size());
        for (int64_t j = i * k; j < found; ++j) distance[j] = tree->space.metric.distance(distance[j]);
        for (int64_t j = found; j < (i + 1) * k; ++j) row[j] = -1, distance[j] = std::numeric_limits<DType>::infinity();
      },
      64);
}

}  // namespace DIMORPH_CASE
