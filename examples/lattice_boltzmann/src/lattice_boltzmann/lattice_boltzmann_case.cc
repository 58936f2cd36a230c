// The case on the CPU: vectors of cells along x, and tiles that advance by several steps while they are in the cache.
#include "lattice_boltzmann_config.h"

#include <dimorph/parallel.h>

#include "cell.h"

namespace DIMORPH_CASE {

struct Params : AdditionalParams {};

// A line of the cache: vectors of this size are written past the cache, whole lines at a time.
constexpr int kLanes = 64 / sizeof(DType);
typedef DType Vector __attribute__((vector_size(64)));
template <int bytes>
struct Integer {
  using type = int32_t;
};
template <>
struct Integer<8> {
  using type = int64_t;
};
typedef Integer<sizeof(DType)>::type Lanes __attribute__((vector_size(64)));
typedef uint8_t Kinds __attribute__((vector_size(kLanes)));

constexpr int kMiddleHalo = Q == 9 ? 0 : 1;  // rows beside a tile that one step needs

int64_t around(int64_t i, int64_t count) {
  while (i < 0) i += count;
  while (i >= count) i -= count;
  return i;
}

struct Domain {
  const DType* from;
  DType* to;
  const uint8_t* cells;
  int64_t planes, rows, width;
  DType velocity[3];
  COLLISION<Params> collision;

  // The index of a row, from the first of the array, of a plane and a row around the ends.
  int64_t row(int64_t plane, int64_t middle) const { return around(plane, planes) * rows + around(middle, rows); }
};

Vector load(const DType* from) {
  Vector result;
  __builtin_memcpy(&result, from, sizeof result);
  return result;
}

void store(DType* to, Vector value, bool past_cache) {
#if defined(__clang__)
  if (past_cache) return __builtin_nontemporal_store(value, reinterpret_cast<Vector*>(to));
#elif defined(__AVX512F__)
  typedef float Floats __attribute__((vector_size(64)));
  if (past_cache) return __builtin_ia32_movntps512(reinterpret_cast<float*>(to), reinterpret_cast<Floats>(value));
#elif defined(__SSE2__)
  typedef float Part __attribute__((vector_size(16)));
  Part parts[4];
  __builtin_memcpy(parts, &value, sizeof value);
  if (past_cache) {
    for (int i = 0; i < 4; ++i) __builtin_ia32_movntps(reinterpret_cast<float*>(to) + 4 * i, parts[i]);
    return;
  }
#endif
  __builtin_memcpy(to, &value, sizeof value);
}

// The rows around a row, [1 + plane][1 + row]: each holds the populations of its cells, one direction behind the other.
using Rows = const DType* [3][3];

// The populations of direction i that move to the cells at x. At an end of the row some come from its other end.
template <bool inside>
[[gnu::always_inline]] inline Vector moved(const Rows& rows, int i, int64_t x, int64_t width) {
  const int c = lbm::direction(i, 0);
  const DType* row = rows[1 - lbm::direction(i, 2)][1 - lbm::direction(i, 1)] + i * width;
  __builtin_prefetch(row + x + Q * width);  // the next row: its many short streams are too short for the processor
  // At an end of the row, the last lane or the first is another direction's. It comes from the other end.
  const Vector loaded = load(row + x - c);
  const bool first = c > 0 && x == 0, last = c < 0 && x + kLanes == width;
  if (inside || !(first || last)) return loaded;
  Lanes lanes;
  for (int lane = 0; lane < kLanes; ++lane) lanes[lane] = lane;
  return lanes == (first ? 0 : kLanes - 1) ? Vector{} + row[first ? width - 1 : 0] : loaded;
}

template <bool inside>
[[gnu::always_inline]] inline lbm::Cell<Vector> gathered(const Rows& rows, int64_t x, int64_t width) {
  lbm::Cell<Vector> cell;
  LBM_UNROLL for (int i = 0; i < Q; ++i) cell.f[i] = moved<inside>(rows, i, x, width);
  return cell;
}

// Cells at an end of the row, or among which are others than fluid.
template <bool past_cache>
__attribute__((noinline)) void advance_mixed(const Domain& domain, const Rows& rows, const uint8_t* cells, DType* to,
                                             int64_t x, bool fluid) {
  Kinds bytes;
  __builtin_memcpy(&bytes, cells + x, sizeof bytes);
  const Lanes kinds = __builtin_convertvector(bytes, Lanes);
  const lbm::Cell<Vector> before = gathered<false>(rows, x, domain.width);
  lbm::Cell<Vector> cell = before;
  cell.find_moments();
  domain.collision.collide(cell);
  for (int kind = lbm::kWall; kind <= lbm::kOpen && !fluid; ++kind) {
    lbm::Cell<Vector> other = before;
    if (kind == lbm::kOpen)
      other.open(domain.velocity);
    else
      other.reflect(domain.velocity, kind == lbm::kMoving);
    for (int i = 0; i < Q; ++i) cell.f[i] = kinds == kind ? other.f[i] : cell.f[i];
  }
  for (int i = 0; i < Q; ++i) store(to + i * domain.width + x, cell.f[i], past_cache);
}

template <bool past_cache>
__attribute__((noinline)) void advance_row(const Domain& domain, const Rows& rows, const uint8_t* cells, DType* to) {
  const int64_t width = domain.width;
  for (int64_t x = 0; x < width; x += kLanes) {
    uint64_t kinds[kLanes / 8], mixed = 0;
    __builtin_memcpy(kinds, cells + x, sizeof kinds);
    for (const uint64_t eight : kinds) mixed |= eight;
    if (mixed || x == 0 || x + kLanes == width) {
      advance_mixed<past_cache>(domain, rows, cells, to, x, mixed == 0);
      continue;
    }
    lbm::Cell<Vector> cell = gathered<true>(rows, x, width);
    cell.find_moments();
    domain.collision.collide(cell);
    LBM_UNROLL for (int i = 0; i < Q; ++i) store(to + i * width + x, cell.f[i], past_cache);
  }
}

// The planes of a tile that a step has computed and the next one reads: the last three.
struct Ring {
  DType* memory;
  int64_t first_row, rows, row_size;
  DType* row(int64_t plane, int64_t middle) const {
    return memory + ((plane + 3 * DEPTH) % 3 * rows + middle - first_row) * row_size;
  }
};

// Advances the tile by `depth` steps: planes [z0, z1), rows [y0, y1). All steps but the last write to rings, and begin
// one plane and one row further out than the next.
template <int depth>
void advance_tile(const Domain& domain, int64_t z0, int64_t z1, int64_t y0, int64_t y1) {
  const int64_t row_size = domain.width * Q;
  Ring rings[depth];
  int64_t total = 0;
  for (int level = 0; level + 1 < depth; ++level) {
    const int64_t halo = (depth - 1 - level) * kMiddleHalo;
    rings[level] = Ring{nullptr, y0 - halo, y1 - y0 + 2 * halo, row_size};
    total += 3 * rings[level].rows * row_size;
  }
  if (total) {
    auto* memory = static_cast<DType*>(dimorph::thread_scratch(total * sizeof(DType)));
    if (!memory) return;
    for (int level = 0; level + 1 < depth; ++level) {
      rings[level].memory = memory;
      memory += 3 * rings[level].rows * row_size;
    }
  }
  for (int64_t front = z0 - (depth - 1); front < z1 + (depth - 1); ++front) {
    for (int level = 0; level < depth; ++level) {
      const int64_t z = front - level, reach = depth - 1 - level, halo = reach * kMiddleHalo;
      if (z < z0 - reach || z >= z1 + reach) continue;
      for (int64_t y = y0 - halo; y < y1 + halo; ++y) {
        Rows near;
        for (int dz = -1; dz <= 1; ++dz)
          for (int dy = -kMiddleHalo; dy <= kMiddleHalo; ++dy)
            near[dz + 1][dy + 1] =
                level == 0 ? domain.from + domain.row(z + dz, y + dy) * row_size : rings[level - 1].row(z + dz, y + dy);
        const int64_t here = domain.row(z, y);
        const uint8_t* cells = domain.cells + here * domain.width;
        if (level + 1 == depth)
          advance_row<true>(domain, near, cells, domain.to + here * row_size);
        else
          advance_row<false>(domain, near, cells, rings[level].row(z, y));
      }
    }
  }
#if defined(__SSE2__)
  __builtin_ia32_sfence();
#endif
}

template <int depth>
void advance_all(const Domain& domain) {
  const int64_t tall = domain.rows < ROWS ? domain.rows : ROWS, deep = domain.planes < PLANES ? domain.planes : PLANES;
  const int64_t across = (domain.rows + tall - 1) / tall, along = (domain.planes + deep - 1) / deep;
  dimorph::parallel_for(across * along, [&](int64_t tile) {
    const int64_t z = tile / across * deep, y = tile % across * tall;
    const int64_t z1 = z + deep < domain.planes ? z + deep : domain.planes;
    const int64_t y1 = y + tall < domain.rows ? y + tall : domain.rows;
    advance_tile<depth>(domain, z, z1, y, y1);
  });
}

bool advance(Tensor first, Tensor second, ConstTensor cells, double vx, double vm, double vo, int64_t steps,
             Extra extra) noexcept {
  Params params{};
  if (!extra.fill(params)) return false;
  Domain domain{first.data<DType>(),
                second.data<DType>(),
                cells.data<uint8_t>(),
                first.size(0),
                first.size(1),
                first.size(3),
                {DType(vx), DType(vm), DType(vo)},
                COLLISION<Params>(params)};
  bool swapped = false;
  while (steps > 0) {
    if (steps >= DEPTH)
      advance_all<DEPTH>(domain), steps -= DEPTH;
    else
      advance_all<1>(domain), steps -= 1;
    DType* const written = domain.to;
    domain.to = const_cast<DType*>(domain.from);
    domain.from = written;
    swapped = !swapped;
  }
  return swapped;
}

}  // namespace DIMORPH_CASE
