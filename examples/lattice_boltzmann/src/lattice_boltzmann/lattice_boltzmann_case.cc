// The case on the CPU: vectors of cells along x, and tiles that advance by several steps while they are in the cache.
#include <dimorph/nontemporal.h>
#include <dimorph/parallel.h>
#include "cell.h"
#include "domain.h"

namespace DIMORPH_CASE {
// As long as a line of the cache, so that lines are written whole, past the cache.
typedef DType Vector __attribute__((vector_size(64)));
constexpr int kLanes = sizeof(Vector) / sizeof(DType);
constexpr int kSide = Q == 9 ? 0 : 1;  // rows on each side of a row that a step reads

// The rows around a row, [1 + plane][1 + row]. A row holds the directions one behind the other, `width` cells each.
using Rows = const DType* [3][3];

// Where the populations of direction i come from that move to x.
DM_INLINE const DType* upstream(const Rows& rows, int i, int64_t width, int64_t x) {
  const DType* row = rows[1 - lbm::direction(i, 2)][1 - lbm::direction(i, 1)] + i * width;
  // In the next row: one row is too short for the processor to see where it leads.
  __builtin_prefetch(row + x + Q * width);
  return row + x - lbm::direction(i, 0);
}

// Advances fluid cells from x to `end`, none of which has a neighbour around the ends of its row.
__attribute__((noinline)) void advance_fluid(const Domain& domain, const Rows& rows, int64_t width, int64_t x,
                                             int64_t end, DType* to, bool past_cache) {
  for (; x < end; x += kLanes) {
    lbm::Cell<Vector> cell;
#pragma GCC unroll 27  // DM_UNROLL ends at 16
    for (int i = 0; i < Q; ++i) __builtin_memcpy(&cell.f[i], upstream(rows, i, width, x), sizeof(Vector));
    cell.find_moments();
    domain.collision.collide(cell);
#pragma GCC unroll 27
    for (int i = 0; i < Q; ++i) {
      auto* const line = reinterpret_cast<Vector*>(to + i * domain.width + x);
      past_cache ? dimorph::nontemporal_store(line, cell.f[i]) : void(*line = cell.f[i]);
    }
  }
}

// Advances a vector of cells of any kind: first as fluid, from the middle of a row of three vectors.
void advance_mixed(const Domain& domain, const Rows& rows, const uint8_t* kinds, int64_t x, DType* to,
                   bool past_cache) {
  DType copy[Q][3 * kLanes], *const c = copy[0];
#pragma GCC unroll 27
  for (int i = 0; i < Q; ++i) {
    const DType* const from = upstream(rows, i, domain.width, x);
    DType* const cells = copy[i] + kLanes - lbm::direction(i, 0);
    __builtin_memcpy(cells, from, sizeof(Vector));
    // At an end of the row, a cell is another direction's. It comes from the other end.
    if (lbm::direction(i, 0) > 0 && x == 0) cells[0] = from[domain.width];
    if (lbm::direction(i, 0) < 0 && x + kLanes == domain.width) cells[kLanes - 1] = from[kLanes - 1 - domain.width];
  }
  const Rows near = {{c, c, c}, {c, c, c}, {c, c, c}};
  advance_fluid(domain, near, 3 * kLanes, kLanes, 2 * kLanes, to + x - kLanes, past_cache);
  for (int lane = 0; lane < kLanes; ++lane) {
    if (kinds[x + lane] == lbm::kFluid) continue;
    lbm::Cell<DType> cell;
#pragma GCC unroll 27
    for (int i = 0; i < Q; ++i) cell.f[i] = copy[i][kLanes - lbm::direction(i, 0) + lane];
    cell.meet(kinds[x + lane], domain.outside);
    for (int i = 0; i < Q; ++i) to[i * domain.width + x + lane] = cell.f[i];
  }
}

void advance_row(const Domain& domain, const Rows& rows, const uint8_t* kinds, DType* to, bool past_cache) {
  const auto mixed = [&](int64_t x) {
    constexpr uint8_t fluid[kLanes] = {};
    return x == 0 || x + kLanes == domain.width || __builtin_memcmp(kinds + x, fluid, kLanes) != 0;
  };
  for (int64_t x = 0, end = 0; x < domain.width; x = end) {
    while (!mixed(end)) end += kLanes;
    if (end > x)
      advance_fluid(domain, rows, domain.width, x, end, to, past_cache);
    else
      advance_mixed(domain, rows, kinds, x, to, past_cache), end += kLanes;
  }
}

int64_t around(int64_t i, int64_t count) {
  return i < 0 ? around(i + count, count) : i < count ? i : around(i - count, count);
}

// Advances the tile from plane z0 and row y0 on. Each step but the last keeps three planes, and goes one plane and one
// row further on each side than the next step, which reads them.
void advance_tile(const Domain& domain, int64_t depth, int64_t z0, int64_t y0) {
  const auto least = [](int64_t a, int64_t b) { return a < b ? a : b; };
  const int64_t z1 = least(z0 + PLANES, domain.planes), y1 = least(y0 + ROWS, domain.rows);
  const int64_t row_size = domain.width * Q, halo = kSide * (depth - 1), rows = y1 - y0 + 2 * halo;
  auto* const memory = static_cast<DType*>(dimorph::thread_scratch((depth - 1) * 3 * rows * row_size * sizeof(DType)));
  if (!memory) return;
  const auto kept = [=](int64_t step, int64_t z, int64_t y) {
    return memory + ((step * 3 + (z + 3 * DEPTH) % 3) * rows + y - y0 + halo) * row_size;
  };
  const auto row = [&](int64_t z, int64_t y) {
    return around(z, domain.planes) * domain.rows + around(y, domain.rows);
  };
  for (int64_t front = z0 - depth + 1; front < z1 + depth - 1; ++front) {
    for (int64_t step = 0; step < depth; ++step) {
      const int64_t z = front - step, reach = depth - 1 - step;
      if (z < z0 - reach || z >= z1 + reach) continue;
      for (int64_t y = y0 - kSide * reach; y < y1 + kSide * reach; ++y) {
        Rows near;
        for (int64_t dz = -1; dz <= 1; ++dz)
          for (int64_t dy = -kSide; dy <= kSide; ++dy)
            near[1 + dz][1 + dy] = step ? kept(step - 1, z + dz, y + dy) : domain.from + row(z + dz, y + dy) * row_size;
        advance_row(domain, near, domain.kinds + row(z, y) * domain.width,
                    reach ? kept(step, z, y) : domain.to + row(z, y) * row_size, reach == 0);
      }
    }
  }
}

int64_t pass(const Domain& domain, int64_t left, dimorph::Device) noexcept {
  const int64_t depth = left < DEPTH ? 1 : DEPTH, across = (domain.rows + ROWS - 1) / ROWS;
  const auto tile = [&](int64_t i) { advance_tile(domain, depth, i / across * PLANES, i % across * ROWS); };
  return dimorph::parallel_for(across * ((domain.planes + PLANES - 1) / PLANES), tile) ? depth : 0;
}
}  // namespace DIMORPH_CASE
