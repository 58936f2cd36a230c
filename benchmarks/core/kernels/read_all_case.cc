#include <dimorph/case.h>
#include <dimorph/parallel.h>

#include "read_all_config.h"

namespace DIMORPH_CASE {

// Whole cache lines, several at a time, a contiguous part for each thread: nothing reads memory faster.
double read_all(dimorph::ConstTensor x) noexcept {
  typedef uint32_t Line __attribute__((vector_size(64)));
  const auto* lines = reinterpret_cast<const Line*>(x.data<DType>());
  const int64_t threads = dimorph::num_threads(), share = x.numel() * sizeof(DType) / sizeof(Line) / threads / 4 * 4;
  uint32_t total = 0;
  dimorph::parallel_for(threads, [&](int64_t thread) {
    Line sums[4] = {};
    for (int64_t i = thread * share; i < (thread + 1) * share; i += 4)
      for (int j = 0; j < 4; ++j) sums[j] += lines[i + j];
    uint32_t sum = 0;
    for (int j = 0; j < 4; ++j)
      for (int lane = 0; lane < 16; ++lane) sum += sums[j][lane];
    __atomic_fetch_add(&total, sum, __ATOMIC_RELAXED);
  });
  return total;
}

}  // namespace DIMORPH_CASE
