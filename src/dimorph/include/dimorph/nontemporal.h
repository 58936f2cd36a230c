// Stores past the caches, for results that are larger than the caches and not read soon.
#pragma once
#include "host_device.h"

namespace dimorph {

// *to = value, where `to` lies at a multiple of the vector's size, in 16, 32 or 64 bytes. A plain store first reads the
// line into the cache; this one writes whole lines to memory where the target can (x86-64; clang on others), which
// saves a third of the traffic of a copy. Store all parts of a line, one after the other. The end of a parallel_for,
// and of the call, comes after such stores; another thread that is told earlier sees them late.
template <typename Vector>
DM_INLINE void nontemporal_store(Vector* to, const Vector& value) {
  static_assert(sizeof(Vector) == 16 || sizeof(Vector) == 32 || sizeof(Vector) == 64,
                "nontemporal_store: expected a vector of 16, 32 or 64 bytes: use a vector type");
#if defined(__clang__)
  __builtin_nontemporal_store(value, to);
#elif defined(__x86_64__)
#if defined(__AVX512F__)
  constexpr int kMost = 64;
#elif defined(__AVX__)
  constexpr int kMost = 32;
#else
  constexpr int kMost = 16;
#endif
  constexpr int kBytes = sizeof(Vector) < kMost ? sizeof(Vector) : kMost;
  typedef long long Part __attribute__((vector_size(kBytes)));
  Part parts[sizeof(Vector) / kBytes];
  __builtin_memcpy(parts, &value, sizeof(Vector));
  for (unsigned i = 0; i < sizeof(Vector) / kBytes; ++i) {
    Part* const at = reinterpret_cast<Part*>(to) + i;
#if defined(__AVX512F__)
    if constexpr (kBytes == 64) __builtin_ia32_movntdq512(at, parts[i]);
#endif
#if defined(__AVX__)
    if constexpr (kBytes == 32) __builtin_ia32_movntdq256(at, parts[i]);
#endif
    if constexpr (kBytes == 16) __builtin_ia32_movntdq(at, parts[i]);
  }
#else
  *to = value;
#endif
}

}  // namespace dimorph
