// Bugs for sanitizers to find, one in each case; the last case has none.
#include <dimorph/parallel.h>

#include "planted_config.h"

namespace DIMORPH_CASE {

void planted(dimorph::Tensor x) noexcept {
  int32_t* data = x.data<int32_t>();
  const int64_t size = x.size(0);
  if (BUG == 1) data[0] = data[size];
  if (BUG == 2) data[size] = 1;
  if (BUG == 3) data[0] += 0x7fffffff;
  if (BUG == 4) data[0] = *reinterpret_cast<const int32_t*>(reinterpret_cast<const char*>(data) + 1);
  int32_t started = 0;  // two threads wait for each other before they write, so that they do race
  if (BUG == 5)
    dimorph::parallel_for(2, [&](int64_t) {
      __atomic_fetch_add(&started, 1, __ATOMIC_RELAXED);
      while (__atomic_load_n(&started, __ATOMIC_RELAXED) < 2) {
      }
      for (int64_t i = 0; i < size; ++i) data[i] += 1;  // many writes, as a sanitizer may miss one
    });
  if (BUG == 6) dimorph::parallel_for(size, [&](int64_t i) { data[i] += 1; });
}

}  // namespace DIMORPH_CASE
