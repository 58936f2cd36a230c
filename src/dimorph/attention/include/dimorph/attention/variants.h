// The variant interface: what a struct may provide to change attention, for every kernel family and every operation.
//
// A variant is a struct template over the params type. Everything in it is optional:
//
//   template <typename ParamsT>
//   struct MyVariant {
//     static constexpr bool use_softmax = true;      // false: weights are the transformed logits themselves
//     static constexpr bool logits_additive = false; // true: LogitsTransform(x) is x plus a term free of x
//     DM_HD MyVariant(const ParamsT& params, int batch_idx);         // or with a third argument, uint8_t* smem_ptr
//     template <typename T>
//     DM_HD T QueryTransform(const ParamsT& params, T q);
//     template <typename T, typename QIdx, typename KVIdx>
//     DM_HD T LogitsTransform(const ParamsT& params, T logits, int batch_idx, QIdx qo_idx, KVIdx kv_idx,
//                             int qo_head_idx, int kv_head_idx);
//     DM_HD float LogitsBound(const ParamsT& params, float most, int qo_head_idx);     // what no transformed logit
//     exceeds
//                                                    // if none is above `most`; infinity: not known. With it, GPU
//                                                    kernels
//                                                    // need not look for the largest result of each tile
//     DM_HD bool SmallLogits(const ParamsT& params, float magnitude);  // whether logits up to that are small enough...
//     template <...>                                 // ... for the same as LogitsTransform, and its arguments, in less
//     DM_HD T SmallLogitsTransform(...);             // time: GPU kernels ask for many logits at once
//     template <typename QIdx, typename KVIdx>
//     DM_HD auto LogitsMask(const ParamsT& params, int batch_idx, QIdx qo_idx, KVIdx kv_idx, int qo_head_idx,
//                           int kv_head_idx);         // true where the key counts
//     template <typename T, typename QIdx>
//     DM_HD T OutputTransform(const ParamsT& params, T output, int batch_idx, QIdx qo_idx, int qo_head_idx, int dim);
//     template <typename T, typename QIdx>
//     DM_HD void RowInit(const ParamsT& params, dm::RowState<T>& row, int batch_idx, QIdx qo_idx, int qo_head_idx);
//     template <typename T, typename QIdx>
//     DM_HD void RowFinalize(...the same arguments...);
//     DM_HD dm::TileClass classify_tile(int q0, int q1, int k0, int k1);
//   };
//
// T is float, or a SIMD vector on the host. An index is int, or a SIMD vector of them: a hook that takes both indices
// as templates and decides by dm::math::select runs on whole vectors; one written for scalars (`uint32_t qo_idx`) is
// called lane by lane, which is right but slow. On the device an index as a template is a dm::Index: an int to whoever
// asks for one. Indices count from the start of their sequence; as ints they are always in range.
//
// What the numbers are: with softmax, logits are q.k * params.sm_scale, natural units; without, they are q.k as it
// is, and the variant scales. OutputTransform sees the normalised output.
#pragma once
#include <dimorph/ints.h>

#include "host_device.h"  // IWYU pragma: export
#include "math.h"         // IWYU pragma: export

#if !defined(__CUDACC__)
// So that a header written for CUDA is a variant on the host as it stands.
#ifndef __device__
#define __device__
#endif
#ifndef __host__
#define __host__
#endif
#ifndef __forceinline__
#define __forceinline__ inline
#endif
#endif

namespace dm {

// What a kernel does with the queries [q0, q1) and keys [k0, k1): nothing, no masking, or a mask test for each logit.
enum class TileClass { kSkip, kFull, kPartial };

// A row's softmax before it is normalised: sum = the sum of exp(logit - max) over the keys so far.
// RowFinalize may raise max (and rescale sum); the kernel rescales the output by exp(old max - new max).
template <typename T>
struct RowState {
  T max;
  T sum;
};

namespace detail {

template <typename...>
using void_t = void;
template <typename T>
DM_HD T&& declval();

// Whether V has a member of that name, whatever its signature: a hook with wrong arguments must not pass for a missing
// one.
#define DM_HAS_MEMBER(Name)                                        \
  template <typename V>                                            \
  struct Has##Name {                                               \
    struct Probe {                                                 \
      int Name;                                                    \
    };                                                             \
    struct Both : V, Probe {};                                     \
    template <typename U>                                          \
    DM_HD static char test(decltype(&U::Name)*);                   \
    template <typename U>                                          \
    DM_HD static long test(...);                                   \
    static constexpr bool value = sizeof(test<Both>(nullptr)) > 1; \
  };
DM_HAS_MEMBER(QueryTransform)
DM_HAS_MEMBER(LogitsTransform)
DM_HAS_MEMBER(LogitsBound)
DM_HAS_MEMBER(SmallLogitsTransform)
DM_HAS_MEMBER(LogitsMask)
DM_HAS_MEMBER(OutputTransform)
DM_HAS_MEMBER(RowInit)
DM_HAS_MEMBER(RowFinalize)
DM_HAS_MEMBER(classify_tile)
DM_HAS_MEMBER(use_softmax)
DM_HAS_MEMBER(logits_additive)
#undef DM_HAS_MEMBER

template <typename V, bool = Hasuse_softmax<V>::value>
struct UseSoftmax {
  static constexpr bool value = true;
};
template <typename V>
struct UseSoftmax<V, true> {
  static constexpr bool value = V::use_softmax;
};
template <typename V, bool = Haslogits_additive<V>::value>
struct LogitsAdditive {
  static constexpr bool value = !HasLogitsTransform<V>::value;
};
template <typename V>
struct LogitsAdditive<V, true> {
  static constexpr bool value = V::logits_additive;
};

#define DM_CALLABLE(Name, ...)                                                                        \
  template <typename V, typename ParamsT, typename T, typename QIdx, typename KVIdx, typename = void> \
  struct Can##Name {                                                                                  \
    static constexpr bool value = false;                                                              \
  };                                                                                                  \
  template <typename V, typename ParamsT, typename T, typename QIdx, typename KVIdx>                  \
  struct Can##Name<V, ParamsT, T, QIdx, KVIdx, void_t<decltype(declval<V&>().Name(__VA_ARGS__))>> {   \
    static constexpr bool value = true;                                                               \
  };
DM_CALLABLE(LogitsTransform, declval<const ParamsT&>(), declval<T>(), 0, declval<QIdx>(), declval<KVIdx>(), 0, 0)
DM_CALLABLE(LogitsMask, declval<const ParamsT&>(), 0, declval<QIdx>(), declval<KVIdx>(), 0, 0)
DM_CALLABLE(OutputTransform, declval<const ParamsT&>(), declval<T>(), 0, declval<QIdx>(), 0, 0)
#undef DM_CALLABLE

}  // namespace detail

// What a kernel asks about a variant. Compose specialises it.
template <typename V>
struct Traits {
  static constexpr bool has_query_transform = detail::HasQueryTransform<V>::value;
  static constexpr bool has_logits_transform = detail::HasLogitsTransform<V>::value;
  static constexpr bool has_logits_bound = !has_logits_transform || detail::HasLogitsBound<V>::value;
  static constexpr bool has_small_transform = detail::HasSmallLogitsTransform<V>::value;
  static constexpr bool has_logits_mask = detail::HasLogitsMask<V>::value;
  static constexpr bool has_output_transform = detail::HasOutputTransform<V>::value;
  static constexpr bool has_row_init = detail::HasRowInit<V>::value;
  static constexpr bool has_row_finalize = detail::HasRowFinalize<V>::value;
  static constexpr bool use_softmax = detail::UseSoftmax<V>::value;
  static constexpr bool logits_additive = detail::LogitsAdditive<V>::value;
  static_assert(has_query_transform || has_logits_transform || has_logits_mask || has_output_transform ||
                    has_row_init || has_row_finalize || detail::Hasclassify_tile<V>::value ||
                    detail::Hasuse_softmax<V>::value,
                "the variant has none of the hooks and traits that attention knows: is one misspelt?");
};

// How kernels call the hooks. A hook that is not there is the identity.
namespace hooks {

template <typename V, typename ParamsT>
DM_HD inline V make(const ParamsT& params, int batch_idx) {
  if constexpr (__is_constructible(V, const ParamsT&, int)) {
    return V(params, batch_idx);
  } else if constexpr (__is_constructible(V, const ParamsT&, int, uint8_t*)) {
    return V(params, batch_idx, static_cast<uint8_t*>(nullptr));
  } else {
    return V{};
  }
}

template <typename V>
DM_HD inline TileClass classify_tile(V& variant, int q0, int q1, int k0, int k1) {
  if constexpr (detail::Hasclassify_tile<V>::value) {
    return variant.classify_tile(q0, q1, k0, k1);
  } else {
    return Traits<V>::has_logits_mask ? TileClass::kPartial : TileClass::kFull;
  }
}

template <typename V, typename ParamsT, typename T>
DM_HD inline T query_transform(V& variant, const ParamsT& params, T q) {
  if constexpr (Traits<V>::has_query_transform) {
    return variant.QueryTransform(params, q);
  } else {
    return q;
  }
}

template <typename V, typename ParamsT, typename T, typename QIdx, typename KVIdx>
DM_HD inline T logits_transform(V& variant, const ParamsT& params, T logits, int batch_idx, QIdx qo_idx, KVIdx kv_idx,
                                int qo_head_idx, int kv_head_idx) {
  if constexpr (!Traits<V>::has_logits_transform) {
    return logits;
#if !defined(__CUDACC__)
  } else if constexpr (!detail::CanLogitsTransform<V, ParamsT, T, QIdx, KVIdx>::value) {
    return lanewise<T>([&](int i) {
      return variant.LogitsTransform(params, lane(logits, i), batch_idx, lane(qo_idx, i), lane(kv_idx, i), qo_head_idx,
                                     kv_head_idx);
    });
#else
  } else if constexpr (!detail::CanLogitsTransform<V, ParamsT, T, QIdx, KVIdx>::value) {
    return variant.LogitsTransform(params, logits, batch_idx, qo_idx, static_cast<int>(kv_idx), qo_head_idx,
                                   kv_head_idx);
#endif
  } else {
    return variant.LogitsTransform(params, logits, batch_idx, qo_idx, kv_idx, qo_head_idx, kv_head_idx);
  }
}

// What no transformed logit exceeds if none is above `most`; infinity where that is not known.
template <typename V, typename ParamsT>
DM_HD inline float logits_bound(V& variant, const ParamsT& params, float most, int qo_head_idx) {
  if constexpr (!Traits<V>::has_logits_transform) {
    return most;
  } else if constexpr (Traits<V>::has_logits_bound) {
    return variant.LogitsBound(params, most, qo_head_idx);
  } else {
    return math::infinity;
  }
}

// Whether small_logits_transform serves logits up to that magnitude.
template <typename V, typename ParamsT>
DM_HD inline bool small_logits(V& variant, const ParamsT& params, float magnitude) {
  if constexpr (Traits<V>::has_small_transform) {
    return variant.SmallLogits(params, magnitude);
  } else {
    return false;
  }
}
template <typename V, typename ParamsT, typename T, typename QIdx, typename KVIdx>
DM_HD inline T small_logits_transform(V& variant, const ParamsT& params, T logits, int batch_idx, QIdx qo_idx,
                                      KVIdx kv_idx, int qo_head_idx, int kv_head_idx) {
  if constexpr (Traits<V>::has_small_transform) {
    return variant.SmallLogitsTransform(params, logits, batch_idx, qo_idx, kv_idx, qo_head_idx, kv_head_idx);
  } else {
    return logits;
  }
}

// Mask is bool, or MaskV on the host.
template <typename Mask, typename V, typename ParamsT, typename QIdx, typename KVIdx>
DM_HD inline Mask logits_mask(V& variant, const ParamsT& params, int batch_idx, QIdx qo_idx, KVIdx kv_idx,
                              int qo_head_idx, int kv_head_idx) {
  if constexpr (!Traits<V>::has_logits_mask) {
    return true;
#if !defined(__CUDACC__)
  } else if constexpr (!detail::CanLogitsMask<V, ParamsT, float, QIdx, KVIdx>::value) {
    return lanewise<Mask>([&](int i) {
      return variant.LogitsMask(params, batch_idx, lane(qo_idx, i), lane(kv_idx, i), qo_head_idx, kv_head_idx);
    });
#else
  } else if constexpr (!detail::CanLogitsMask<V, ParamsT, float, QIdx, KVIdx>::value) {
    return variant.LogitsMask(params, batch_idx, qo_idx, static_cast<int>(kv_idx), qo_head_idx, kv_head_idx);
#endif
  } else {
    return variant.LogitsMask(params, batch_idx, qo_idx, kv_idx, qo_head_idx, kv_head_idx);
  }
}

template <typename V, typename ParamsT, typename T, typename QIdx>
DM_HD inline T output_transform(V& variant, const ParamsT& params, T output, int batch_idx, QIdx qo_idx,
                                int qo_head_idx, int dim) {
  if constexpr (!Traits<V>::has_output_transform) {
    return output;
#if !defined(__CUDACC__)
  } else if constexpr (!detail::CanOutputTransform<V, ParamsT, T, QIdx, int>::value) {
    return lanewise<T>([&](int i) {
      return variant.OutputTransform(params, lane(output, i), batch_idx, lane(qo_idx, i), qo_head_idx, dim);
    });
#endif
  } else {
    return variant.OutputTransform(params, output, batch_idx, qo_idx, qo_head_idx, dim);
  }
}

template <typename V, typename ParamsT, typename T, typename QIdx>
DM_HD inline void row_init(V& variant, const ParamsT& params, RowState<T>& row, int batch_idx, QIdx qo_idx,
                           int qo_head_idx) {
  if constexpr (Traits<V>::has_row_init) variant.RowInit(params, row, batch_idx, qo_idx, qo_head_idx);
}

template <typename V, typename ParamsT, typename T, typename QIdx>
DM_HD inline void row_finalize(V& variant, const ParamsT& params, RowState<T>& row, int batch_idx, QIdx qo_idx,
                               int qo_head_idx) {
  if constexpr (Traits<V>::has_row_finalize) variant.RowFinalize(params, row, batch_idx, qo_idx, qo_head_idx);
}

}  // namespace hooks

// memory[index * stride], for each lane where the index is a vector. For hooks that read a tensor.
template <typename Element>
DM_HD inline Element load(const Element* memory, int64_t stride, int index) {
  return memory[index * stride];
}
#if !defined(__CUDACC__)
DM_INLINE FloatV load(const float* memory, int64_t stride, IntV index) {
  return lanewise<FloatV>([&](int i) { return memory[lane(index, i) * stride]; });
}
DM_INLINE IntV load(const int32_t* memory, int64_t stride, IntV index) {
  return lanewise<IntV>([&](int i) { return memory[lane(index, i) * stride]; });
}
DM_INLINE IntV load(const uint8_t* memory, int64_t stride, IntV index) {
  return lanewise<IntV>([&](int i) { return memory[lane(index, i) * stride]; });
}
#endif

// matrix[row][column], rows `stride` apart; either index may be a vector.
template <typename Element>
DM_HD inline Element load(const Element* matrix, int64_t stride, int row, int column) {
  return matrix[row * stride + column];
}
#if !defined(__CUDACC__)
template <typename Element>
DM_INLINE auto load(const Element* matrix, int64_t stride, IntV row, int column) {
  return load(matrix + column, stride, row);
}
template <typename Element>
DM_INLINE auto load(const Element* matrix, int64_t stride, int row, IntV column) {
  return load(matrix + row * stride, 1, column);
}
#endif

// Bottom-right alignment: query i stands at key i + this.
template <typename ParamsT>
DM_HD inline int diagonal(const ParamsT& params, int batch_idx) {
  return params.get_kv_len(batch_idx) - params.get_qo_len(batch_idx);
}

}  // namespace dm
