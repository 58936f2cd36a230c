// The entry: checks the arguments. The library is the case's alone.
#include "crc_config.h"

// sums[i] = CRC-32 of rows[i, :]; rows: uint8 [rows, width], row-major; sums: int64 [rows].
void crc(ConstTensor rows, Tensor sums) {
  dimorph::Size count("rows"), width("width");
  rows.expect({count, width}, dimorph::data_type<uint8_t>());
  sums.expect({count}, dimorph::data_type<int64_t>());
  DIMORPH_CALL(crc)(rows, sums);
}
DIMORPH_EXPORT(crc)
