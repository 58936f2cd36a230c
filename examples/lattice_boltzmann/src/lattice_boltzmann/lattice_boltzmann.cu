// The device code: a thread for each cell, x fastest, so that a warp reads and writes whole lines of each direction.
#include "cell.h"
#include "domain.h"

namespace DIMORPH_CASE {
// The index beside i, against a direction, around the ends.
DM_HD DM_INLINE int upstream(int i, int direction, int count) {
  i -= direction;
  return i < 0 ? count - 1 : i == count ? 0 : i;
}

extern "C" __global__ void __launch_bounds__(BLOCK) advance_cells(const __grid_constant__ Domain domain) {
  const int width = static_cast<int>(domain.width), x = static_cast<int>(blockIdx.x * BLOCK + threadIdx.x);
  const int rows = static_cast<int>(domain.rows), y = static_cast<int>(blockIdx.y), z = static_cast<int>(blockIdx.z);
  if (x >= width) return;
  lbm::Cell<DType> cell;
  DM_UNROLL for (int i = 0; i < Q; ++i) {
    const int64_t plane = upstream(z, lbm::direction(i, 2), static_cast<int>(domain.planes));
    const int64_t row = plane * rows + upstream(y, lbm::direction(i, 1), rows);
    cell.f[i] = domain.from[(row * Q + i) * width + upstream(x, lbm::direction(i, 0), width)];
  }
  const int64_t here = static_cast<int64_t>(z) * rows + y;
  if (const int kind = domain.kinds[here * width + x]) {
    cell.meet(kind, domain.outside);
  } else {
    cell.find_moments();
    domain.collision.collide(cell);
  }
  DM_UNROLL for (int i = 0; i < Q; ++i) domain.to[(here * Q + i) * width + x] = cell.f[i];
}
}  // namespace DIMORPH_CASE
