// wgmma: matrix instructions of a warpgroup, which run asynchronously. From the instruction to the wait, the registers
// and the shared memory that it works on must not be touched.
#pragma once
#include <dimorph/ints.h>

#include "../gpu/contract.h"
#include "../gpu/ptx.h"

namespace DIMORPH_CASE {

// Needed before the first instruction, and after a register that one works on was written.
__device__ __forceinline__ void wgmma_fence() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }
// Makes a group of the instructions since the last commit.
__device__ __forceinline__ void wgmma_commit() { asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory"); }
// Waits until at most kPending groups are under way.
template <int kPending>
__device__ __forceinline__ void wgmma_wait() {
  asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(kPending) : "memory");
}
// Keeps the compiler from moving accesses to a register across this point.
__device__ __forceinline__ void fence_operand(float& x) { asm volatile("" : "+f"(x)::"memory"); }
__device__ __forceinline__ void fence_operand(uint32_t& x) { asm volatile("" : "+r"(x)::"memory"); }
template <typename T, int kCount>
__device__ __forceinline__ void fence_operand(T (&x)[kCount]) {
#pragma unroll
  for (int i = 0; i < kCount; ++i) fence_operand(x[i]);
}

// Describes a matrix in shared memory with 128-byte swizzle (PTX ISA, matrix descriptor): its address, the bytes from 8
// rows to the next 8, and the bytes from one panel of 64 columns to the next, which only products with values use.
__device__ __forceinline__ uint64_t matrix_descriptor(uint32_t address, int panel_bytes, int group_bytes = 1024) {
  return uint64_t{1} << 62 | static_cast<uint64_t>(group_bytes >> 4) << 32 |
         static_cast<uint64_t>(panel_bytes >> 4) << 16 | address >> 4;
}
__device__ __forceinline__ uint64_t advance_descriptor(uint64_t matrix, int bytes) { return matrix + (bytes >> 4); }

// c[64 x kColumns] += a[64 x 16] b[16 x kColumns].
// ss(c, a, b, add): both operands in shared memory, b as rows of keys (K-major). Without `add`, c is overwritten.
// rs(c, a, b): a in registers, b in shared memory as rows of values (MN-major).
template <int kColumns>
struct Wgmma;

// Names of the accumulators in the instruction, and their operands. Each list contains the one before it.
#define DM_NAMES_8 "%0, %1, %2, %3, %4, %5, %6, %7"
#define DM_ACCUMULATORS_8(c) DM_ACCUMULATORS(c, 0), DM_ACCUMULATORS(c, 4)
#define DM_ACCUMULATORS(c, i) "+f"(c[i]), "+f"(c[i + 1]), "+f"(c[i + 2]), "+f"(c[i + 3])
#define DM_NAMES_16 DM_NAMES_8 ", %8, %9, %10, %11, %12, %13, %14, %15"
#define DM_ACCUMULATORS_16(c) DM_ACCUMULATORS_8(c), DM_ACCUMULATORS(c, 8), DM_ACCUMULATORS(c, 12)
#define DM_NAMES_24 DM_NAMES_16 ", %16, %17, %18, %19, %20, %21, %22, %23"
#define DM_ACCUMULATORS_24(c) DM_ACCUMULATORS_16(c), DM_ACCUMULATORS(c, 16), DM_ACCUMULATORS(c, 20)
#define DM_NAMES_32 DM_NAMES_24 ", %24, %25, %26, %27, %28, %29, %30, %31"
#define DM_ACCUMULATORS_32(c) DM_ACCUMULATORS_24(c), DM_ACCUMULATORS(c, 24), DM_ACCUMULATORS(c, 28)
#define DM_NAMES_40 DM_NAMES_32 ", %32, %33, %34, %35, %36, %37, %38, %39"
#define DM_ACCUMULATORS_40(c) DM_ACCUMULATORS_32(c), DM_ACCUMULATORS(c, 32), DM_ACCUMULATORS(c, 36)
#define DM_NAMES_48 DM_NAMES_40 ", %40, %41, %42, %43, %44, %45, %46, %47"
#define DM_ACCUMULATORS_48(c) DM_ACCUMULATORS_40(c), DM_ACCUMULATORS(c, 40), DM_ACCUMULATORS(c, 44)
#define DM_NAMES_56 DM_NAMES_48 ", %48, %49, %50, %51, %52, %53, %54, %55"
#define DM_ACCUMULATORS_56(c) DM_ACCUMULATORS_48(c), DM_ACCUMULATORS(c, 48), DM_ACCUMULATORS(c, 52)
#define DM_NAMES_64 DM_NAMES_56 ", %56, %57, %58, %59, %60, %61, %62, %63"
#define DM_ACCUMULATORS_64(c) DM_ACCUMULATORS_56(c), DM_ACCUMULATORS(c, 56), DM_ACCUMULATORS(c, 60)
#define DM_NAMES_72 DM_NAMES_64 ", %64, %65, %66, %67, %68, %69, %70, %71"
#define DM_ACCUMULATORS_72(c) DM_ACCUMULATORS_64(c), DM_ACCUMULATORS(c, 64), DM_ACCUMULATORS(c, 68)
#define DM_NAMES_80 DM_NAMES_72 ", %72, %73, %74, %75, %76, %77, %78, %79"
#define DM_ACCUMULATORS_80(c) DM_ACCUMULATORS_72(c), DM_ACCUMULATORS(c, 72), DM_ACCUMULATORS(c, 76)
#define DM_NAMES_88 DM_NAMES_80 ", %80, %81, %82, %83, %84, %85, %86, %87"
#define DM_ACCUMULATORS_88(c) DM_ACCUMULATORS_80(c), DM_ACCUMULATORS(c, 80), DM_ACCUMULATORS(c, 84)
#define DM_NAMES_96 DM_NAMES_88 ", %88, %89, %90, %91, %92, %93, %94, %95"
#define DM_ACCUMULATORS_96(c) DM_ACCUMULATORS_88(c), DM_ACCUMULATORS(c, 88), DM_ACCUMULATORS(c, 92)
#define DM_NAMES_104 DM_NAMES_96 ", %96, %97, %98, %99, %100, %101, %102, %103"
#define DM_ACCUMULATORS_104(c) DM_ACCUMULATORS_96(c), DM_ACCUMULATORS(c, 96), DM_ACCUMULATORS(c, 100)
#define DM_NAMES_112 DM_NAMES_104 ", %104, %105, %106, %107, %108, %109, %110, %111"
#define DM_ACCUMULATORS_112(c) DM_ACCUMULATORS_104(c), DM_ACCUMULATORS(c, 104), DM_ACCUMULATORS(c, 108)
#define DM_NAMES_120 DM_NAMES_112 ", %112, %113, %114, %115, %116, %117, %118, %119"
#define DM_ACCUMULATORS_120(c) DM_ACCUMULATORS_112(c), DM_ACCUMULATORS(c, 112), DM_ACCUMULATORS(c, 116)
#define DM_NAMES_128 DM_NAMES_120 ", %120, %121, %122, %123, %124, %125, %126, %127"
#define DM_ACCUMULATORS_128(c) DM_ACCUMULATORS_120(c), DM_ACCUMULATORS(c, 120), DM_ACCUMULATORS(c, 124)

#define DM_WGMMA(columns, count, n0, n1, n2, n3, n4)                                                   \
  template <>                                                                                          \
  struct Wgmma<columns> {                                                                              \
    __device__ __forceinline__ static void ss(float (&c)[count], uint64_t a, uint64_t b, bool add) {   \
      if constexpr (kBfloat16)                                                                         \
        asm volatile(DM_SS(#columns, "bf16", DM_NAMES_##count, #n0, #n1, #n2)                          \
                     : DM_ACCUMULATORS_##count(c)                                                      \
                     : "l"(a), "l"(b), "r"(int{add}));                                                 \
      else                                                                                             \
        asm volatile(DM_SS(#columns, "f16", DM_NAMES_##count, #n0, #n1, #n2)                           \
                     : DM_ACCUMULATORS_##count(c)                                                      \
                     : "l"(a), "l"(b), "r"(int{add}));                                                 \
    }                                                                                                  \
    __device__ __forceinline__ static void rs(float (&c)[count], const uint32_t (&a)[4], uint64_t b) { \
      if constexpr (kBfloat16)                                                                         \
        asm volatile(DM_RS(#columns, "bf16", DM_NAMES_##count, #n0, #n1, #n2, #n3, #n4)                \
                     : DM_ACCUMULATORS_##count(c)                                                      \
                     : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b));                            \
      else                                                                                             \
        asm volatile(DM_RS(#columns, "f16", DM_NAMES_##count, #n0, #n1, #n2, #n3, #n4)                 \
                     : DM_ACCUMULATORS_##count(c)                                                      \
                     : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b));                            \
    }                                                                                                  \
  };
#define DM_SS(columns, type, names, a, b, add)                                                                   \
  "{\n.reg .pred add;\nsetp.ne.b32 add, %" add ", 0;\nwgmma.mma_async.sync.aligned.m64n" columns "k16.f32." type \
  "." type " {" names "}, %" a ", %" b ", add, 1, 1, 0, 0;\n}"
#define DM_RS(columns, type, names, a0, a1, a2, a3, b)                                                         \
  "wgmma.mma_async.sync.aligned.m64n" columns "k16.f32." type "." type " {" names "}, {%" a0 ", %" a1 ", %" a2 \
  ", %" a3 "}, %" b ", 1, 1, 1, 1;"
DM_WGMMA(16, 8, 8, 9, 10, 11, 12)
DM_WGMMA(32, 16, 16, 17, 18, 19, 20)
DM_WGMMA(48, 24, 24, 25, 26, 27, 28)
DM_WGMMA(64, 32, 32, 33, 34, 35, 36)
DM_WGMMA(80, 40, 40, 41, 42, 43, 44)
DM_WGMMA(96, 48, 48, 49, 50, 51, 52)
DM_WGMMA(112, 56, 56, 57, 58, 59, 60)
DM_WGMMA(128, 64, 64, 65, 66, 67, 68)
DM_WGMMA(144, 72, 72, 73, 74, 75, 76)
DM_WGMMA(160, 80, 80, 81, 82, 83, 84)
DM_WGMMA(176, 88, 88, 89, 90, 91, 92)
DM_WGMMA(192, 96, 96, 97, 98, 99, 100)
DM_WGMMA(208, 104, 104, 105, 106, 107, 108)
DM_WGMMA(224, 112, 112, 113, 114, 115, 116)
DM_WGMMA(240, 120, 120, 121, 122, 123, 124)
DM_WGMMA(256, 128, 128, 129, 130, 131, 132)
#undef DM_WGMMA
#undef DM_SS
#undef DM_RS
#undef DM_ACCUMULATORS
#undef DM_NAMES_8
#undef DM_ACCUMULATORS_8
#undef DM_NAMES_16
#undef DM_ACCUMULATORS_16
#undef DM_NAMES_24
#undef DM_ACCUMULATORS_24
#undef DM_NAMES_32
#undef DM_ACCUMULATORS_32
#undef DM_NAMES_40
#undef DM_ACCUMULATORS_40
#undef DM_NAMES_48
#undef DM_ACCUMULATORS_48
#undef DM_NAMES_56
#undef DM_ACCUMULATORS_56
#undef DM_NAMES_64
#undef DM_ACCUMULATORS_64
#undef DM_NAMES_72
#undef DM_ACCUMULATORS_72
#undef DM_NAMES_80
#undef DM_ACCUMULATORS_80
#undef DM_NAMES_88
#undef DM_ACCUMULATORS_88
#undef DM_NAMES_96
#undef DM_ACCUMULATORS_96
#undef DM_NAMES_104
#undef DM_ACCUMULATORS_104
#undef DM_NAMES_112
#undef DM_ACCUMULATORS_112
#undef DM_NAMES_120
#undef DM_ACCUMULATORS_120
#undef DM_NAMES_128
#undef DM_ACCUMULATORS_128

}  // namespace DIMORPH_CASE
