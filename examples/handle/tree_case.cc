// The case: a k-d tree, whose type depends on dtype and dimension.
#include <algorithm>
#include <vector>

#include "tree_config.h"

namespace DIMORPH_CASE {

struct Nearest {
  DType distance;
  int64_t row;
};

// The rows of the points, in such an order that the middle of each range splits it at one coordinate.
struct Tree {
  dimorph::KeptTensor<const DType> points;
  std::vector<int64_t> rows;

  explicit Tree(const ConstTensor& given) : points(given), rows(static_cast<size_t>(given.size(0))) {
    for (size_t i = 0; i < rows.size(); ++i) rows[i] = static_cast<int64_t>(i);
    split(rows.data(), rows.data() + rows.size(), 0);
  }

  const DType* point(int64_t row) const { return points.data() + row * DIM; }

  void split(int64_t* begin, int64_t* end, int axis) {
    if (end - begin < 2) return;
    int64_t* middle = begin + (end - begin) / 2;
    std::nth_element(begin, middle, end, [&](int64_t a, int64_t b) { return point(a)[axis] < point(b)[axis]; });
    split(begin, middle, (axis + 1) % DIM);
    split(middle + 1, end, (axis + 1) % DIM);
  }

  void search(const int64_t* begin, const int64_t* end, int axis, const DType* x, Nearest& best) const {
    if (begin == end) return;
    const int64_t* middle = begin + (end - begin) / 2;
    const DType* here = point(*middle);
    DType distance = 0;
    for (int i = 0; i < DIM; ++i) distance += (x[i] - here[i]) * (x[i] - here[i]);
    if (best.row < 0 || distance < best.distance) best = Nearest{distance, *middle};
    const DType side = x[axis] - here[axis];
    const int next = (axis + 1) % DIM;
    for (const bool left : {side < 0, side >= 0}) {
      if (left != (side < 0) && side * side >= best.distance) return;
      left ? search(begin, middle, next, x, best) : search(middle + 1, end, next, x, best);
    }
  }
};

dimorph::NewHandle build(ConstTensor points) { return dimorph::make_handle<Tree>(points); }

void query(const dimorph::Handle<Tree>& tree, ConstTensor x, Tensor nearest) noexcept {
  x.expect<DType>({nearest.size(0), DIM});
  int64_t* out = nearest.data<int64_t>();
  for (int64_t i = 0; i < x.size(0); ++i) {
    Nearest best{0, -1};
    tree->search(tree->rows.data(), tree->rows.data() + tree->rows.size(), 0, x.data<DType>() + i * DIM, best);
    out[i] = best.row;
  }
}

}  // namespace DIMORPH_CASE
