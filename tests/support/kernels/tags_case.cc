#include <dimorph/case.h>

#include "tags.h"
#include "tags_config.h"

namespace DIMORPH_CASE {

double by_width(int64_t a, int32_t b) noexcept { return static_cast<double>(a) * 10 + b; }
double by_pointer(double* number) noexcept { return *number; }
double by_struct(Block block) noexcept { return block.scale + block.bias; }
double by_result() noexcept { return 1; }
double by_count(double a, double b) noexcept { return a + b; }
double by_enum(Order order) noexcept { return static_cast<double>(order); }
double agreed(int64_t a, const int64_t& b, bool c, float d) noexcept {
  return static_cast<double>(a) * 1000 + static_cast<double>(b) * 100 + (c ? 10 : 0) + static_cast<double>(d);
}

}  // namespace DIMORPH_CASE
