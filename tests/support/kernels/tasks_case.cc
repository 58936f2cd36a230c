#include <dimorph/case.h>
#include <dimorph/parallel.h>
#include <time.h>

#include "tasks_config.h"

namespace DIMORPH_CASE {

double seconds() {
  timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return now.tv_sec + now.tv_nsec * 1e-9;
}

void busy(dimorph::Tensor ran, int64_t count, int64_t milliseconds) noexcept {
  dimorph::parallel_for(count, [&](int64_t) {
    const double end = seconds() + milliseconds * 1e-3;
    while (seconds() < end) {
    }
    __atomic_fetch_add(ran.data<int64_t>(), 1, __ATOMIC_RELAXED);
  });
}

void needy(dimorph::Tensor ran, int64_t count, int64_t bytes) noexcept {
  int64_t* out = ran.data<int64_t>();
  const bool all = dimorph::parallel_for(count, [&](int64_t) {
    char* scratch = static_cast<char*>(dimorph::thread_scratch(bytes));
    if (!scratch) return;
    scratch[0] = scratch[bytes - 1] = 1;
    __atomic_fetch_add(out, 1, __ATOMIC_RELAXED);
  });
  if (all) out[1] = 1;
  dimorph::parallel_for(1, [&](int64_t) { out[2] = 1; });
}

void needy_alone(dimorph::Tensor ran, int64_t bytes) noexcept {
  if (dimorph::thread_scratch(bytes)) ran.data<int64_t>()[0] = WIDTH;
}

}  // namespace DIMORPH_CASE
