#include <dimorph/case.h>
#include <dimorph/parallel.h>
#include <time.h>
#include <new>
#include <stdexcept>

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
    if (bytes) scratch[0] = scratch[bytes - 1] = 1;
    __atomic_fetch_add(out, 1, __ATOMIC_RELAXED);
  });
  if (all) out[1] = 1;
  dimorph::parallel_for(1, [&](int64_t) { out[2] = 1; });
}

// What body `kind` throws.
void fail(int64_t kind, int64_t index) {
  if (kind == 0) throw std::runtime_error("from a body");
  if (kind == 1) DIMORPH_RAISE(index, "failing: no element %lld", static_cast<long long>(index));
  if (kind == 2) DIMORPH_CHECK_TYPE(false, "failing: of a wrong type");
  if (kind == 3) throw std::bad_alloc();
  if (kind == 4) throw 5;
  if (kind == 5) dimorph::parallel_for(3, [&](int64_t) { throw std::out_of_range("from within"); });
}

// Fails in task `at`; says if parallel_for found all done.
bool failing(dimorph::Tensor ran, int64_t count, int64_t at, int64_t kind) noexcept {
  return dimorph::parallel_for(count, [&](int64_t i) {
    if (i == at) fail(kind, i);
    __atomic_fetch_add(ran.data<int64_t>(), 1, __ATOMIC_RELAXED);
  });
}

// The body fails, and then the function itself.
void failing_twice() {
  if (!dimorph::parallel_for(10, [&](int64_t) { throw std::runtime_error("first"); }))
    throw std::runtime_error("second");
}

// Marks each index in [0, count) that a body is called for, the thread that calls it, and its call's number.
void runs(dimorph::Tensor marks, int64_t grain, int64_t nanoseconds) noexcept {
  static int64_t threads;
  static thread_local int64_t thread = 0;
  int64_t* seen = marks.data<int64_t>();
  dimorph::parallel_for(
      marks.size(0),
      [&](int64_t i) {
        if (thread == 0) thread = __atomic_add_fetch(&threads, 1, __ATOMIC_RELAXED);
        __atomic_fetch_add(seen + i, thread, __ATOMIC_RELAXED);
        for (const double end = seconds() + nanoseconds * 1e-9; nanoseconds && seconds() < end;) {
        }
      },
      grain);
}

void needy_alone(dimorph::Tensor ran, int64_t bytes) noexcept {
  if (dimorph::thread_scratch(bytes)) ran.data<int64_t>()[0] = WIDTH;
}

}  // namespace DIMORPH_CASE
