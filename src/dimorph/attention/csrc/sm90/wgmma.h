// The matrix instructions of a warpgroup. They run behind its back: its registers and the shared memory that they read
// are theirs from multiply to wait.
#pragma once
#include <dimorph/ints.h>

#include "../gpu/contract.h"
#include "../gpu/ptx.h"

namespace DIMORPH_CASE {

// Before the first, and after registers that they use were written.
__device__ __forceinline__ void multiply_begin() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }
// Those so far are a group; multiply_wait<n> waits until n groups at most are left.
__device__ __forceinline__ void multiply_end() { asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory"); }
template <int kLeft>
__device__ __forceinline__ void multiply_wait() {
  asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(kLeft) : "memory");
}
// Keeps the compiler from reading registers before, or reusing them before, this place.
__device__ __forceinline__ void hold(float& x) { asm volatile("" : "+f"(x)::"memory"); }
__device__ __forceinline__ void hold(uint32_t& x) { asm volatile("" : "+r"(x)::"memory"); }
template <typename T, int kCount>
__device__ __forceinline__ void hold(T (&x)[kCount]) {
#pragma unroll
  for (int i = 0; i < kCount; ++i) hold(x[i]);
}

// Where a matrix lies in shared memory (PTX ISA, matrix descriptor): its address, the distance from one column of 64
// elements to the next, which only products with values ask for, and from 8 rows to the next; swizzled over 128 bytes.
__device__ __forceinline__ uint64_t matrix_at(uint32_t address, int column_bytes) {
  return uint64_t{1} << 62 | uint64_t{1024 >> 4} << 32 | static_cast<uint64_t>(column_bytes >> 4) << 16 | address >> 4;
}
// The same some bytes on.
__device__ __forceinline__ uint64_t advanced(uint64_t matrix, int bytes) { return matrix + (bytes >> 4); }

// c[64 x n] += a[64 x 16] b[16 x n]. keys(): both from shared memory, where columns of b are rows of keys; without
// `add`, c is overwritten. values(): a from registers, b as its rows lie.
template <int kColumns>
struct Multiply;

// Lists of registers in fours, for the longest; each number of columns takes its part.
#define DM_NAMES_8 "%0, %1, %2, %3, %4, %5, %6, %7"
#define DM_HELD_8(c) DM_HELD(c, 0), DM_HELD(c, 4)
#define DM_HELD(c, i) "+f"(c[i]), "+f"(c[i + 1]), "+f"(c[i + 2]), "+f"(c[i + 3])
#define DM_NAMES_16 DM_NAMES_8 ", %8, %9, %10, %11, %12, %13, %14, %15"
#define DM_HELD_16(c) DM_HELD_8(c), DM_HELD(c, 8), DM_HELD(c, 12)
#define DM_NAMES_24 DM_NAMES_16 ", %16, %17, %18, %19, %20, %21, %22, %23"
#define DM_HELD_24(c) DM_HELD_16(c), DM_HELD(c, 16), DM_HELD(c, 20)
#define DM_NAMES_32 DM_NAMES_24 ", %24, %25, %26, %27, %28, %29, %30, %31"
#define DM_HELD_32(c) DM_HELD_24(c), DM_HELD(c, 24), DM_HELD(c, 28)
#define DM_NAMES_40 DM_NAMES_32 ", %32, %33, %34, %35, %36, %37, %38, %39"
#define DM_HELD_40(c) DM_HELD_32(c), DM_HELD(c, 32), DM_HELD(c, 36)
#define DM_NAMES_48 DM_NAMES_40 ", %40, %41, %42, %43, %44, %45, %46, %47"
#define DM_HELD_48(c) DM_HELD_40(c), DM_HELD(c, 40), DM_HELD(c, 44)
#define DM_NAMES_56 DM_NAMES_48 ", %48, %49, %50, %51, %52, %53, %54, %55"
#define DM_HELD_56(c) DM_HELD_48(c), DM_HELD(c, 48), DM_HELD(c, 52)
#define DM_NAMES_64 DM_NAMES_56 ", %56, %57, %58, %59, %60, %61, %62, %63"
#define DM_HELD_64(c) DM_HELD_56(c), DM_HELD(c, 56), DM_HELD(c, 60)
#define DM_NAMES_72 DM_NAMES_64 ", %64, %65, %66, %67, %68, %69, %70, %71"
#define DM_HELD_72(c) DM_HELD_64(c), DM_HELD(c, 64), DM_HELD(c, 68)
#define DM_NAMES_80 DM_NAMES_72 ", %72, %73, %74, %75, %76, %77, %78, %79"
#define DM_HELD_80(c) DM_HELD_72(c), DM_HELD(c, 72), DM_HELD(c, 76)
#define DM_NAMES_88 DM_NAMES_80 ", %80, %81, %82, %83, %84, %85, %86, %87"
#define DM_HELD_88(c) DM_HELD_80(c), DM_HELD(c, 80), DM_HELD(c, 84)
#define DM_NAMES_96 DM_NAMES_88 ", %88, %89, %90, %91, %92, %93, %94, %95"
#define DM_HELD_96(c) DM_HELD_88(c), DM_HELD(c, 88), DM_HELD(c, 92)
#define DM_NAMES_104 DM_NAMES_96 ", %96, %97, %98, %99, %100, %101, %102, %103"
#define DM_HELD_104(c) DM_HELD_96(c), DM_HELD(c, 96), DM_HELD(c, 100)
#define DM_NAMES_112 DM_NAMES_104 ", %104, %105, %106, %107, %108, %109, %110, %111"
#define DM_HELD_112(c) DM_HELD_104(c), DM_HELD(c, 104), DM_HELD(c, 108)
#define DM_NAMES_120 DM_NAMES_112 ", %112, %113, %114, %115, %116, %117, %118, %119"
#define DM_HELD_120(c) DM_HELD_112(c), DM_HELD(c, 112), DM_HELD(c, 116)
#define DM_NAMES_128 DM_NAMES_120 ", %120, %121, %122, %123, %124, %125, %126, %127"
#define DM_HELD_128(c) DM_HELD_120(c), DM_HELD(c, 120), DM_HELD(c, 124)

#define DM_MULTIPLY(columns, count, n0, n1, n2, n3, n4)                                                    \
  template <>                                                                                              \
  struct Multiply<columns> {                                                                               \
    __device__ __forceinline__ static void keys(float (&c)[count], uint64_t a, uint64_t b, bool add) {     \
      if constexpr (kBfloat16)                                                                             \
        asm volatile(DM_KEYS(#columns, "bf16", DM_NAMES_##count, #n0, #n1, #n2)                            \
                     : DM_HELD_##count(c)                                                                  \
                     : "l"(a), "l"(b), "r"(int{add}));                                                     \
      else                                                                                                 \
        asm volatile(DM_KEYS(#columns, "f16", DM_NAMES_##count, #n0, #n1, #n2)                             \
                     : DM_HELD_##count(c)                                                                  \
                     : "l"(a), "l"(b), "r"(int{add}));                                                     \
    }                                                                                                      \
    __device__ __forceinline__ static void values(float (&c)[count], const uint32_t (&a)[4], uint64_t b) { \
      if constexpr (kBfloat16)                                                                             \
        asm volatile(DM_VALUES(#columns, "bf16", DM_NAMES_##count, #n0, #n1, #n2, #n3, #n4)                \
                     : DM_HELD_##count(c)                                                                  \
                     : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b));                                \
      else                                                                                                 \
        asm volatile(DM_VALUES(#columns, "f16", DM_NAMES_##count, #n0, #n1, #n2, #n3, #n4)                 \
                     : DM_HELD_##count(c)                                                                  \
                     : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b));                                \
    }                                                                                                      \
  };
#define DM_KEYS(columns, type, names, a, b, add)                                                                 \
  "{\n.reg .pred add;\nsetp.ne.b32 add, %" add ", 0;\nwgmma.mma_async.sync.aligned.m64n" columns "k16.f32." type \
  "." type " {" names "}, %" a ", %" b ", add, 1, 1, 0, 0;\n}"
#define DM_VALUES(columns, type, names, a0, a1, a2, a3, b)                                                     \
  "wgmma.mma_async.sync.aligned.m64n" columns "k16.f32." type "." type " {" names "}, {%" a0 ", %" a1 ", %" a2 \
  ", %" a3 "}, %" b ", 1, 1, 1, 1;"
DM_MULTIPLY(16, 8, 8, 9, 10, 11, 12)
DM_MULTIPLY(32, 16, 16, 17, 18, 19, 20)
DM_MULTIPLY(48, 24, 24, 25, 26, 27, 28)
DM_MULTIPLY(64, 32, 32, 33, 34, 35, 36)
DM_MULTIPLY(80, 40, 40, 41, 42, 43, 44)
DM_MULTIPLY(96, 48, 48, 49, 50, 51, 52)
DM_MULTIPLY(112, 56, 56, 57, 58, 59, 60)
DM_MULTIPLY(128, 64, 64, 65, 66, 67, 68)
DM_MULTIPLY(144, 72, 72, 73, 74, 75, 76)
DM_MULTIPLY(160, 80, 80, 81, 82, 83, 84)
DM_MULTIPLY(176, 88, 88, 89, 90, 91, 92)
DM_MULTIPLY(192, 96, 96, 97, 98, 99, 100)
DM_MULTIPLY(208, 104, 104, 105, 106, 107, 108)
DM_MULTIPLY(224, 112, 112, 113, 114, 115, 116)
DM_MULTIPLY(240, 120, 120, 121, 122, 123, 124)
DM_MULTIPLY(256, 128, 128, 129, 130, 131, 132)
#undef DM_MULTIPLY
#undef DM_KEYS
#undef DM_VALUES
#undef DM_HELD
#undef DM_NAMES_8
#undef DM_HELD_8
#undef DM_NAMES_16
#undef DM_HELD_16
#undef DM_NAMES_24
#undef DM_HELD_24
#undef DM_NAMES_32
#undef DM_HELD_32
#undef DM_NAMES_40
#undef DM_HELD_40
#undef DM_NAMES_48
#undef DM_HELD_48
#undef DM_NAMES_56
#undef DM_HELD_56
#undef DM_NAMES_64
#undef DM_HELD_64
#undef DM_NAMES_72
#undef DM_HELD_72
#undef DM_NAMES_80
#undef DM_HELD_80
#undef DM_NAMES_88
#undef DM_HELD_88
#undef DM_NAMES_96
#undef DM_HELD_96
#undef DM_NAMES_104
#undef DM_HELD_104
#undef DM_NAMES_112
#undef DM_HELD_112
#undef DM_NAMES_120
#undef DM_HELD_120
#undef DM_NAMES_128
#undef DM_HELD_128

}  // namespace DIMORPH_CASE
