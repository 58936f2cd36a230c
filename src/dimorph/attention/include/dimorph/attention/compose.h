// Several variants as one. Query, logits and output transforms run in the order given, each on the result of the one
// before. A key counts if every mask lets it count. A tile is skipped if one variant skips it, and full if all find it
// full. Rows are initialised and finalised in the order given. The composition uses softmax if all of its variants do.
//
//   template <typename ParamsT>
//   using CappedWindow = dm::Compose<ParamsT, dm::Causal<ParamsT>, dm::Window<ParamsT>, dm::SoftCap<ParamsT>>;
#pragma once
#include "variants.h"

namespace dm {

template <typename ParamsT, typename First, typename... Rest>
struct Compose {
  First first;
  Compose<ParamsT, Rest...> rest;

  DM_HD Compose(const ParamsT& params, int batch_idx)
      : first(hooks::make<First>(params, batch_idx)), rest(params, batch_idx) {}

  template <typename T>
  DM_HD T QueryTransform(const ParamsT& params, T q) {
    return hooks::query_transform(rest, params, hooks::query_transform(first, params, q));
  }
  template <typename T, typename QIdx, typename KVIdx>
  DM_HD T LogitsTransform(const ParamsT& params, T logits, int batch_idx, QIdx qo_idx, KVIdx kv_idx, int qo_head_idx,
                          int kv_head_idx) {
    logits = hooks::logits_transform(first, params, logits, batch_idx, qo_idx, kv_idx, qo_head_idx, kv_head_idx);
    return hooks::logits_transform(rest, params, logits, batch_idx, qo_idx, kv_idx, qo_head_idx, kv_head_idx);
  }
  DM_HD float LogitsBound(const ParamsT& params, float most, int qo_head_idx) {
    most = hooks::logits_bound(first, params, most, qo_head_idx);
    return hooks::logits_bound(rest, params, most, qo_head_idx);
  }
  // Asks the first variant that transforms logits: those after it see its results, whatever their size.
  DM_HD bool SmallLogits(const ParamsT& params, float magnitude) {
    if constexpr (Traits<First>::has_logits_transform) {
      return hooks::small_logits(first, params, magnitude);
    } else {
      return hooks::small_logits(rest, params, magnitude);
    }
  }
  template <typename T, typename QIdx, typename KVIdx>
  DM_HD T SmallLogitsTransform(const ParamsT& params, T logits, int batch_idx, QIdx qo_idx, KVIdx kv_idx,
                               int qo_head_idx, int kv_head_idx) {
    if constexpr (Traits<First>::has_logits_transform) {
      logits =
          hooks::small_logits_transform(first, params, logits, batch_idx, qo_idx, kv_idx, qo_head_idx, kv_head_idx);
      return hooks::logits_transform(rest, params, logits, batch_idx, qo_idx, kv_idx, qo_head_idx, kv_head_idx);
    } else {
      return hooks::small_logits_transform(rest, params, logits, batch_idx, qo_idx, kv_idx, qo_head_idx, kv_head_idx);
    }
  }
  template <typename QIdx, typename KVIdx>
  DM_HD auto LogitsMask(const ParamsT& params, int batch_idx, QIdx qo_idx, KVIdx kv_idx, int qo_head_idx,
                        int kv_head_idx) {
    using Mask = decltype(kv_idx == qo_idx);
    const Mask mask = hooks::logits_mask<Mask>(first, params, batch_idx, qo_idx, kv_idx, qo_head_idx, kv_head_idx);
    return mask && hooks::logits_mask<Mask>(rest, params, batch_idx, qo_idx, kv_idx, qo_head_idx, kv_head_idx);
  }
  template <typename T, typename QIdx>
  DM_HD T OutputTransform(const ParamsT& params, T output, int batch_idx, QIdx qo_idx, int qo_head_idx, int dim) {
    output = hooks::output_transform(first, params, output, batch_idx, qo_idx, qo_head_idx, dim);
    return hooks::output_transform(rest, params, output, batch_idx, qo_idx, qo_head_idx, dim);
  }
  template <typename T, typename QIdx>
  DM_HD void RowInit(const ParamsT& params, RowState<T>& row, int batch_idx, QIdx qo_idx, int qo_head_idx) {
    hooks::row_init(first, params, row, batch_idx, qo_idx, qo_head_idx);
    hooks::row_init(rest, params, row, batch_idx, qo_idx, qo_head_idx);
  }
  template <typename T, typename QIdx>
  DM_HD void RowFinalize(const ParamsT& params, RowState<T>& row, int batch_idx, QIdx qo_idx, int qo_head_idx) {
    hooks::row_finalize(first, params, row, batch_idx, qo_idx, qo_head_idx);
    hooks::row_finalize(rest, params, row, batch_idx, qo_idx, qo_head_idx);
  }
  template <typename Checks>
  DM_HD static void CheckParams(const ParamsT& params, Checks& checks) {
    hooks::check_params<First>(params, checks);
    hooks::check_params<Compose<ParamsT, Rest...>>(params, checks);
  }
  DM_HD TileClass classify_tile(int q0, int q1, int k0, int k1) {
    const TileClass a = hooks::classify_tile(first, q0, q1, k0, k1);
    if (a == TileClass::kSkip) return a;
    const TileClass b = hooks::classify_tile(rest, q0, q1, k0, k1);
    return b == TileClass::kFull ? a : b;
  }
};

namespace detail {

// The checks of a part, which knows its parameters by other names than the caller does.
template <typename Checks, typename View>
struct RenamedChecks {
  Checks& checks;
  const bool on_host, knows_lengths;

  DM_HD explicit RenamedChecks(Checks& given)
      : checks(given), on_host(given.on_host), knows_lengths(given.knows_lengths) {}

  DM_HD void expect(bool holds, const char* name, const char* expected, double got) {
    checks.expect(holds, callers(name), expected, got);
  }
  template <typename... Rest>
  DM_HD void expect_inside(const char* tensor, const char* cause, Rest... rest) {
    checks.expect_inside(callers(tensor), callers(cause), rest...);
  }
  DM_HD void expect_flat_or_room(const char* name) { checks.expect_flat_or_room(callers(name)); }

 private:
  DM_HD static bool same(const char* a, const char* b) {
    for (; *a && *a == *b; ++a) ++b;
    return *a == *b;
  }
  DM_HD static const char* callers(const char* name) {
    for (const auto& pair : View::renamed)
      if (same(pair[0], name)) return pair[1];
    return name;
  }
};

template <typename View>
struct Held {
  View view;
};

}  // namespace detail

// A part whose parameters have other names in the composition, because another part has parameters of its names. `View`
// is the params type that it was made for; every hook is given one, made of the composition's params. The one that its
// constructor saw is kept, as the part may refer to it.
template <typename ParamsT, typename Part, typename View>
struct ComposePart : detail::Held<View>, Part {
  DM_HD ComposePart(const ParamsT& params, int batch_idx)
      : detail::Held<View>{View(params)}, Part(hooks::make<Part>(detail::Held<View>::view, batch_idx)) {}
  template <typename Checks>
  DM_HD static void CheckParams(const ParamsT& params, Checks& checks) {
    detail::RenamedChecks<Checks, View> renamed(checks);
    hooks::check_params<Part>(View(params), renamed);
  }
};

template <typename ParamsT, typename Part, typename View>
struct Traits<ComposePart<ParamsT, Part, View>> : Traits<Part> {};

template <typename ParamsT, typename Only>
struct Compose<ParamsT, Only> : Only {
  DM_HD Compose(const ParamsT& params, int batch_idx) : Only(hooks::make<Only>(params, batch_idx)) {}
};

template <typename ParamsT, typename First, typename Second, typename... Rest>
struct Traits<Compose<ParamsT, First, Second, Rest...>> {
 private:
  using A = Traits<First>;
  using B = Traits<Compose<ParamsT, Second, Rest...>>;

 public:
  static constexpr bool has_query_transform = A::has_query_transform || B::has_query_transform;
  static constexpr bool has_logits_transform = A::has_logits_transform || B::has_logits_transform;
  static constexpr bool has_logits_bound = A::has_logits_bound && B::has_logits_bound;
  static constexpr bool has_small_transform = A::has_logits_transform ? A::has_small_transform : B::has_small_transform;
  static constexpr bool has_logits_mask = A::has_logits_mask || B::has_logits_mask;
  static constexpr bool has_output_transform = A::has_output_transform || B::has_output_transform;
  static constexpr bool has_row_init = A::has_row_init || B::has_row_init;
  static constexpr bool has_row_finalize = A::has_row_finalize || B::has_row_finalize;
  static constexpr bool use_softmax = A::use_softmax && B::use_softmax;
  static constexpr bool logits_additive = A::logits_additive && B::logits_additive;
  static constexpr bool exact_row_max = A::exact_row_max || B::exact_row_max;
};

}  // namespace dm
