"""A kernel that links a library: the checksum of each row, by zlib."""

import zlib

import numpy as np

import dimorph as dm

crc = dm.Kernel(
    name="crc",
    dependencies=[dm.pkg_config("zlib", at_least="1.2", bundle=True, install="apt-get install zlib1g-dev")],
)

if __name__ == "__main__":
    rows, sums = np.arange(32, dtype=np.uint8).reshape(2, 16), np.empty(2, np.int64)
    crc.load().crc(rows, sums)
    assert sums.tolist() == [zlib.crc32(row.tobytes()) for row in rows]
    print(sums)
