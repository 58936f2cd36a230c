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

// The rows around a row, [1 + plane][1 + row]. A row holds the directions one behind the other.
using Rows = const DType* [3][3];

// Advances a vector of cells. Those inside are fluid, and have no neighbour around the ends of the row.
template <bool inside>
DM_INLINE void advance_vector(const Domain& domain, const Rows& rows, const uint8_t* kinds, DType* to, int64_t x,
                              bool past_cache) {
  lbm::Cell<Vector> cell;
#pragma GCC unroll 27  // DM_UNROLL ends at 16
  for (int i = 0; i < Q; ++i) {
    const int c = lbm::direction(i, 0);
    const DType* row = rows[1 - lbm::direction(i, 2)][1 - lbm::direction(i, 1)] + i * domain.width;
    // In the next row: one row is too short for the processor to see where it leads.
    __builtin_prefetch(row + x + Q * domain.width);
    __builtin_memcpy(&cell.f[i], row + x - c, sizeof cell.f[i]);
    // At an end of the row, a lane is another direction's. It comes from the other end.
    if (!inside && c > 0 && x == 0) cell.f[i][0] = row[domain.width - 1];
    if (!inside && c < 0 && x + kLanes == domain.width) cell.f[i][kLanes - 1] = row[0];
  }
  [[maybe_unused]] const lbm::Cell<Vector> before = cell;
  cell.find_moments();
  domain.collision.collide(cell);
  for (int lane = 0; lane < kLanes && !inside; ++lane) {
    if (kinds[x + lane] == lbm::kFluid) continue;
    lbm::Cell<DType> one;
    for (int i = 0; i < Q; ++i) one.f[i] = before.f[i][lane];
    one.meet(kinds[x + lane], domain.outside);
    for (int i = 0; i < Q; ++i) cell.f[i][lane] = one.f[i];
  }
#pragma GCC unroll 27
  for (int i = 0; i < Q; ++i) {
    auto* const line = reinterpret_cast<Vector*>(to + i * domain.width + x);
    past_cache ? dimorph::nontemporal_store(line, cell.f[i]) : void(*line = cell.f[i]);
  }
}

__attribute__((noinline)) void advance_mixed(const Domain& domain, const Rows& rows, const uint8_t* kinds, DType* to,
                                             int64_t x, bool past_cache) {
  advance_vector<false>(domain, rows, kinds, to, x, past_cache);
}

template <bool past_cache>
__attribute__((noinline)) void advance_row(const Domain& domain, const Rows& rows, const uint8_t* kinds, DType* to) {
  constexpr uint8_t fluid[kLanes] = {};
  for (int64_t x = 0; x < domain.width; x += kLanes)
    if (x == 0 || x + kLanes == domain.width || __builtin_memcmp(kinds + x, fluid, kLanes) != 0)
      advance_mixed(domain, rows, kinds, to, x, past_cache);
    else
      advance_vector<true>(domain, rows, kinds, to, x, past_cache);
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
        const uint8_t* kinds = domain.kinds + row(z, y) * domain.width;
        if (reach)
          advance_row<false>(domain, near, kinds, kept(step, z, y));
        else
          advance_row<true>(domain, near, kinds, domain.to + row(z, y) * row_size);
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
