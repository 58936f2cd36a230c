// Instructions that all GPU families use.
#pragma once
#include <dimorph/dtype.h>
#include <dimorph/ints.h>

#include "../kv_dtype.h"
#include "contract.h"

namespace DIMORPH_CASE {

template <typename T>
inline constexpr bool is_bfloat16 = false;
template <>
inline constexpr bool is_bfloat16<bfloat16> = true;
constexpr bool kBfloat16 = is_bfloat16<DType>;

// Elements of keys and values as they are stored. Those of 8 bits are multiplied as float16, which holds each of them;
// weights beside them too, if the softmax bounds them.
using DTypeKV = Params::DTypeKV;
constexpr bool kFloat8 = sizeof(DTypeKV) == 1;
template <typename T>
inline constexpr bool is_e4m3 = false;
template <>
inline constexpr bool is_e4m3<dimorph::attention::float8_e4m3fn> = true;
constexpr bool kE4m3 = is_e4m3<DTypeKV>;
constexpr bool kBfloat16Weights = kBfloat16 && !(kFloat8 && Traits::use_softmax);

// An address for PTX instructions that work on shared memory.
__device__ __forceinline__ uint32_t shared_address(const void* pointer) {
  return static_cast<uint32_t>(__cvta_generic_to_shared(pointer));
}

// Two elements of 16 bits in one register, `low` at the lower address.
template <bool kToBfloat16 = kBfloat16>
__device__ __forceinline__ uint32_t pack(float low, float high) {
  uint32_t result;
  if constexpr (kToBfloat16) {
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(result) : "f"(high), "f"(low));
  } else {
    asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(result) : "f"(high), "f"(low));
  }
  return result;
}

// Returns `value`, which must be the same in all lanes of the warp. The compiler then knows that it is: it keeps the
// value, and what is computed from it, in uniform registers, and a branch on it does not diverge.
__device__ __forceinline__ int warp_uniform(int value) {
  return static_cast<int>(__reduce_or_sync(0xffffffffu, static_cast<unsigned>(value)));
}

// a / b for warp-uniform numbers that are not negative.
__device__ __forceinline__ int divide_uniform(int a, int b) {
  return warp_uniform(static_cast<uint32_t>(a) / static_cast<uint32_t>(b));
}

template <typename T>
__device__ __forceinline__ T shuffle_xor(T value, int mask) {
  return __shfl_xor_sync(0xffffffffu, value, mask);
}

}  // namespace DIMORPH_CASE
