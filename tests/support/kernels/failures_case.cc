#include <dimorph/case.h>

#include <time.h>
#include <new>

#include "failures_config.h"

namespace DIMORPH_CASE {

struct Standard : std::bad_alloc {
  const char* what() const noexcept override { return "what() of a standard exception"; }
};

int64_t raise_in_case(int64_t kind) {
  switch (kind) {
    case 0: DIMORPH_RAISE(value, "failed with %s, %d", "value", WIDTH);
    case 1: DIMORPH_RAISE(type, "failed with type");
    case 2: DIMORPH_RAISE(index, "failed with index");
    case 3: DIMORPH_RAISE(memory, "failed with memory");
    case 4: DIMORPH_RAISE(not_implemented, "failed with not_implemented");
    case 5: DIMORPH_RAISE(runtime, "failed with runtime");
    case 6: throw Standard();
    case 7: throw 5;
    case 8: DIMORPH_CHECK(kind < 0, "failed with check, 100%%"); break;
    case 9: DIMORPH_CHECK_TYPE(kind < 0, "failed with check_type"); break;
    default: break;
  }
  return WIDTH * 100 + kind;
}

bool wait_in_case(dimorph::Tensor flag) noexcept {
  timespec start, now;
  clock_gettime(CLOCK_MONOTONIC, &start);
  do {
    if (__atomic_load_n(flag.data<int64_t>(), __ATOMIC_ACQUIRE)) return true;
    clock_gettime(CLOCK_MONOTONIC, &now);
  } while (now.tv_sec - start.tv_sec < 10);
  return false;
}

int64_t quiet() noexcept { return WIDTH; }

}  // namespace DIMORPH_CASE
