// The case: its dependency brings the header and the library.
#include <zlib.h>

#include "crc_config.h"

namespace DIMORPH_CASE {

void crc(ConstTensor rows, Tensor sums) noexcept {
  const uint8_t* row = rows.data<uint8_t>();
  const auto width = static_cast<z_size_t>(rows.size(1));
  for (int64_t i = 0; i < rows.size(0); ++i, row += width) {
    sums.data<int64_t>()[i] = static_cast<int64_t>(crc32_z(0, row, width));
  }
}

}  // namespace DIMORPH_CASE
