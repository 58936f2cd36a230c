// The case: streams beyond the caches, and multiply-adds in registers.
#include <dimorph/nontemporal.h>
#include <dimorph/parallel.h>

#include "limits_config.h"

namespace DIMORPH_CASE {

constexpr int kBytes = 64;
constexpr int kLanes = kBytes / sizeof(DType);
typedef DType Vector __attribute__((vector_size(kBytes)));

void copy(View<const DType, 2> source, View<DType, 2> target) noexcept {
  dimorph::parallel_for(source.size(0), [&](int64_t row) {
    const Vector* from = reinterpret_cast<const Vector*>(&source(row, 0));
    Vector* to = reinterpret_cast<Vector*>(&target(row, 0));
    for (int64_t i = 0; i < source.size(1) / kLanes; ++i) dimorph::nontemporal_store(to + i, from[i]);
  });
}

void sums(View<const DType, 2> source, View<DType, 1> out) noexcept {
  dimorph::parallel_for(source.size(0), [&](int64_t row) {
    const Vector* from = reinterpret_cast<const Vector*>(&source(row, 0));
    Vector sum[4] = {};
    for (int64_t i = 0; i < source.size(1) / kLanes; i += 4)
      for (int k = 0; k < 4; ++k) sum[k] += from[i + k];
    DType all = 0;
    for (int k = 0; k < 4; ++k)
      for (int lane = 0; lane < kLanes; ++lane) all += sum[k][lane];
    out(row) = all;
  });
}

void fma(View<DType, 2> out, int64_t rounds) noexcept {
  dimorph::parallel_for(out.size(0), [&](int64_t thread) {
    const Vector a = Vector{} + DType(0.999), b = Vector{} + DType(0.001);
    Vector x[16];
    for (int k = 0; k < 16; ++k) x[k] = a * DType(k);
    for (int64_t round = 0; round < rounds; ++round)
      for (int k = 0; k < 16; ++k) x[k] = x[k] * a + b;
    Vector sum = x[0];
    for (int k = 1; k < 16; ++k) sum += x[k];
    for (int lane = 0; lane < kLanes; ++lane) out(thread, lane) = sum[lane];
  });
}

}  // namespace DIMORPH_CASE
