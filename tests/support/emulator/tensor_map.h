// The emulated NVIDIA driver's description of tensors for TMA, instead of NVIDIA's undocumented encoding.
#pragma once
#include <stdint.h>

namespace emulator {

constexpr uint32_t kTensorMap = 0x70616d74;

// A tensor with elements of 2 bytes, whose boxes have rows swizzled over 128 bytes.
struct TensorMap {
  uint32_t magic, rank;
  const char* base;
  uint32_t sizes[5];
  uint64_t strides[4];  // in bytes, of every dimension but the first
  uint16_t box[5];

  uint32_t box_bytes() const {
    uint32_t bytes = 2;
    for (unsigned d = 0; d < rank; ++d) bytes *= box[d];
    return bytes;
  }
};
static_assert(sizeof(TensorMap) <= 128, "room in CUtensorMap");

}  // namespace emulator
