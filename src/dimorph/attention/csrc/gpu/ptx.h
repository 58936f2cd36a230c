// Instructions that all GPU families use.
#pragma once
#include <dimorph/dtype.h>
#include <dimorph/ints.h>

#include "contract.h"

namespace DIMORPH_CASE {

template <typename T>
inline constexpr bool is_bfloat16 = false;
template <>
inline constexpr bool is_bfloat16<bfloat16> = true;
constexpr bool kBfloat16 = is_bfloat16<DType>;

__device__ __forceinline__ uint32_t shared_address(const void* pointer) {
  return static_cast<uint32_t>(__cvta_generic_to_shared(pointer));
}

// Two elements in one register, `low` at the lower address.
__device__ __forceinline__ uint32_t pack(float low, float high) {
  uint32_t result;
  if constexpr (kBfloat16) {
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(result) : "f"(high), "f"(low));
  } else {
    asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(result) : "f"(high), "f"(low));
  }
  return result;
}

// A number that all lanes of a warp have in common, said so that the compiler knows it: it then keeps it and what
// follows from it in registers of the warp, and branches on it are no place to wait for each other.
__device__ __forceinline__ int common(int value) {
  return static_cast<int>(__reduce_or_sync(0xffffffffu, static_cast<unsigned>(value)));
}

template <typename T>
__device__ __forceinline__ T shuffle_xor(T value, int mask) {
  return __shfl_xor_sync(0xffffffffu, value, mask);
}

}  // namespace DIMORPH_CASE
