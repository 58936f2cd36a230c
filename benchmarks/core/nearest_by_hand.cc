// The queries of examples/nearest as one writes them without Dimorph. The script that compiles it defines ELEMENT and
// DIM.
#include <math.h>
#include <stdint.h>

#include <nanoflann.hpp>

using T = ELEMENT;
constexpr int DIM = DIMENSION;

struct Space {
  using ElementType = T;
  using DistanceType = T;
  const T* points;
  size_t count;

  size_t kdtree_get_point_count() const { return count; }
  T kdtree_get_pt(size_t row, size_t axis) const { return points[row * DIM + axis]; }
  bool kdtree_get_bbox(...) const { return false; }
  T accum_dist(T a, T b, size_t) const { return (a - b) * (a - b); }
  T evalMetric(const T* x, size_t row, size_t) const {
    T sum = 0;
    for (int i = 0; i < DIM; ++i) sum += (x[i] - points[row * DIM + i]) * (x[i] - points[row * DIM + i]);
    return sum;
  }
};

struct Tree {
  Space space;
  nanoflann::KDTreeSingleIndexAdaptor<Space, Space, DIM> index{DIM, space, {}};
};

extern "C" Tree* build(const T* points, int64_t count) { return new Tree{Space{points, static_cast<size_t>(count)}}; }
extern "C" void query(const Tree* tree, const T* x, int64_t count, int64_t k, int64_t* rows, T* distances,
                      int threads) {
#pragma omp parallel for num_threads(threads) schedule(dynamic, 64)
  for (int64_t i = 0; i < count; ++i) {
    nanoflann::KNNResultSet<T, int64_t> nearest(static_cast<size_t>(k));
    nearest.init(rows + i * k, distances + i * k);
    tree->index.findNeighbors(nearest, x + i * DIM, {});
    for (int64_t j = i * k; j < (i + 1) * k; ++j) distances[j] = sqrt(distances[j]);
  }
}
