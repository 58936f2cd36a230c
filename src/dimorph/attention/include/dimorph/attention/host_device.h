// What all headers of attention share.
#pragma once
#include <dimorph/host_device.h>  // IWYU pragma: export

namespace dm {

// The most queries, and the most keys, of all sequences together. Sums of a few indices then fit 32 bits.
constexpr int kMaxLength = 1 << 29;

}  // namespace dm
