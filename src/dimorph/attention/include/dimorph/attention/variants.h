// clang-format off
// The variant interface: what a struct may provide to change attention, for every kernel family.
//
// A variant is a struct template over the params type. A kernel makes one for each sequence that a thread works on, and
// calls its hooks. Every member is optional, and a missing hook changes nothing. This one has all of them:
//
//   template <typename ParamsT>
//   struct MyVariant {
//
//     static constexpr bool use_softmax = true;
//       // false: the transformed logits are the weights, rows are not normalised, and the log-sum-exp is NaN.
//
//     static constexpr bool logits_additive = false;
//       // true: LogitsTransform adds to the logit a term that does not depend on the logit.
//
//     static constexpr bool exact_row_max = true;
//       // false: RowFinalize reads max and sum only together, as sum * exp(max). Then max may lie up to 8 * ln(2) below
//       // the largest logit, and GPU kernels rescale their output less often.
//
//     DM_HD MyVariant(const ParamsT& params, int batch_idx);
//       // Reads what all queries of sequence batch_idx have in common. A third parameter, `uint8_t* smem_ptr`, is
//       // accepted, as FlashInfer's variants have it; it is null.
//
//     template <typename T>
//     DM_HD T QueryTransform(const ParamsT& params, T q);
//       // Changes one element of a query, before the product with the keys.
//
//     template <typename T, typename QIdx, typename KVIdx>
//     DM_HD T LogitsTransform(const ParamsT& params, T logits, int batch_idx, QIdx qo_idx, KVIdx kv_idx,
//                             int qo_head_idx, int kv_head_idx);
//       // Changes a logit. With softmax, logits are q.k * params.sm_scale, in natural units; without, they are q.k.
//
//     DM_HD float LogitsBound(const ParamsT& params, float most, int qo_head_idx);
//       // Upper bound of LogitsTransform's results for logits up to `most`; infinity if there is none. With it, GPU
//       // kernels need not look for the largest result of each tile.
//
//     DM_HD bool SmallLogits(const ParamsT& params, float magnitude);
//       // Whether SmallLogitsTransform may replace LogitsTransform for logits of -magnitude to magnitude. GPU kernels
//       // ask once for many logits.
//
//     template <typename T, typename QIdx, typename KVIdx>
//     DM_HD T SmallLogitsTransform(const ParamsT& params, T logits, int batch_idx, QIdx qo_idx, KVIdx kv_idx,
//                                  int qo_head_idx, int kv_head_idx);
//       // The same result as LogitsTransform for such logits, in less time.
//
//     template <typename QIdx, typename KVIdx>
//     DM_HD auto LogitsMask(const ParamsT& params, int batch_idx, QIdx qo_idx, KVIdx kv_idx, int qo_head_idx,
//                           int kv_head_idx);
//       // Whether the key counts for the query: a bool or, for SIMD indices, a dm::MaskV.
//
//     template <typename T, typename QIdx>
//     DM_HD T OutputTransform(const ParamsT& params, T output, int batch_idx, QIdx qo_idx, int qo_head_idx, int dim);
//       // Changes element `dim` of an output row, after normalisation.
//
//     template <typename T, typename QIdx>
//     DM_HD void RowInit(const ParamsT& params, dm::RowState<T>& row, int batch_idx, QIdx qo_idx, int qo_head_idx);
//       // Sets the row's state before its first key; on entry max is -infinity and sum is 0.
//
//     template <typename T, typename QIdx>
//     DM_HD void RowFinalize(const ParamsT& params, dm::RowState<T>& row, int batch_idx, QIdx qo_idx, int qo_head_idx);
//       // Changes the row's state after its last key, before output and log-sum-exp are computed from it.
//
//     DM_HD dm::TileClass classify_tile(int q0, int q1, int k0, int k1);
//       // What to do with the logits of queries [q0, q1) and keys [k0, k1). Without it every tile is kPartial, or
//       // kFull if there is no LogitsMask.
//
//     template <typename Checks>
//     DM_HD static void CheckParams(const ParamsT& params, Checks& checks);
//       // Refuses values of parameters with which a hook would read outside a tensor. It runs on the host, once a call,
//       // after declared shapes were checked; `checks` is a ParamChecks (param_checks.h).
//   };
//
// Types. T is float or, on the host, a SIMD vector (FloatV). An index is an int or, on the host, a SIMD vector of them
// (IntV); on the device the key's index is a dm::Index, which is an int to whoever asks for one. A hook that takes
// both indices as templates, and decides by dm::math::select, runs on whole vectors. A hook for scalars, such as
// `uint32_t qo_idx`, is called lane by lane: the result is the same, but it is slower.
//
// Indices. Queries and keys are counted from the start of their sequence, and as ints they are always in range: a lane
// past the last repeats the last. dm::diagonal aligns queries and keys bottom-right: query i stands at key
// i + kv_len - qo_len, so the last query stands at the last key.
//
// Parameters. `params` holds the problem (BaseParams in problem.h: strides, lengths, scale), the element types DTypeQ,
// DTypeKV, DTypeO and IdType, and the variant's additional parameters by the names of its declaration in Python.
// clang-format on
#pragma once
#include <dimorph/ints.h>

#include "host_device.h"  // IWYU pragma: export
#include "math.h"         // IWYU pragma: export

#if !defined(__CUDACC__)
// A variant's header that was written for CUDA compiles on the host as it stands.
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

// How a kernel treats the logits of a tile of queries and keys: it skips them, computes all without a mask, or asks
// LogitsMask for each.
enum class TileClass { kSkip, kFull, kPartial };

// The state of a row's online softmax, in natural units: sum = sum over the keys so far of exp(logit - max). If
// RowFinalize raises max it must rescale sum; the kernel rescales the output by exp(old max - new max).
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

// Whether V has a member of that name, whatever its signature, so that a hook with wrong arguments is an error and not
// taken for a missing one.
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
DM_HAS_MEMBER(CheckParams)
DM_HAS_MEMBER(use_softmax)
DM_HAS_MEMBER(logits_additive)
DM_HAS_MEMBER(exact_row_max)
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
template <typename V, bool = Hasexact_row_max<V>::value>
struct ExactRowMax {
  static constexpr bool value = HasRowFinalize<V>::value;
};
template <typename V>
struct ExactRowMax<V, true> {
  static constexpr bool value = HasRowFinalize<V>::value && V::exact_row_max;
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

// What a kernel knows about a variant when it is compiled. Compose specialises it.
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
  static constexpr bool exact_row_max = detail::ExactRowMax<V>::value;
  static_assert(has_query_transform || has_logits_transform || has_logits_mask || has_output_transform ||
                    has_row_init || has_row_finalize || detail::Hasclassify_tile<V>::value ||
                    detail::Hasuse_softmax<V>::value,
                "the variant has none of the hooks and traits that attention knows; is one misspelt?");
};

// How kernels call the hooks. A missing hook is the identity.
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

template <typename V, typename ParamsT, typename Checks>
DM_HD inline void check_params(const ParamsT& params, Checks& checks) {
  if constexpr (detail::HasCheckParams<V>::value) V::CheckParams(params, checks);
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

// Upper bound of the transformed logits, given the bound `most` of the raw ones; infinity if there is none.
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

// Whether small_logits_transform serves logits of -magnitude to magnitude.
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

// Mask: bool, or MaskV on the host.
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

// For hooks that read a tensor: memory[index * stride], for each lane if the index is a vector.
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

// matrix[row * stride + column]; one of the indices may be a vector.
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

namespace detail {

// Elements from one row to the next of a matrix with an element for each query and key of a sequence.
template <typename ParamsT>
DM_HD inline int64_t matrix_columns(const ParamsT& params, int batch_idx) {
  return params.has_room_matrices() ? params.max_kv_len : params.get_kv_len(batch_idx);
}

// Elements of such a matrix from the first that a hook reads to the last.
template <typename ParamsT>
DM_HD inline int64_t matrix_size(const ParamsT& params, int batch_idx) {
  const int64_t rows = params.get_qo_len(batch_idx), columns = params.get_kv_len(batch_idx);
  return rows && columns ? (rows - 1) * matrix_columns(params, batch_idx) + columns : 0;
}

// Refuses strides with which the matrix [queries, keys] of a batch and a head would not lie inside the tensor.
template <typename ParamsT, typename Checks>
DM_HD inline void check_strides(const ParamsT& params, Checks& checks, const char* tensor, const char* batch_name,
                                int64_t batch_stride, const char* head_name, int64_t head_stride) {
  checks.expect_flat_or_room(tensor);
  for (int b = 0; b < params.batch_size && params.num_qo_heads > 0; ++b) {
    // Of a length that is not known, one query and one key: then the matrix at least begins inside.
    const int64_t size = checks.knows_lengths ? matrix_size(params, b) : 1;
    checks.expect_inside(tensor, batch_name, b, batch_stride, 0, 0, size);
    checks.expect_inside(tensor, head_name, b, batch_stride, params.num_qo_heads - 1, head_stride, size);
  }
}

}  // namespace detail

// Bottom-right alignment: query i stands at key i + diagonal.
template <typename ParamsT>
DM_HD inline int diagonal(const ParamsT& params, int batch_idx) {
  return params.get_kv_len(batch_idx) - params.get_qo_len(batch_idx);
}

}  // namespace dm
