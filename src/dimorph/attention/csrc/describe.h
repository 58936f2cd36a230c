// Checks the arguments of attention and describes them as a Problem. Every family's entry begins with it.
#pragma once
#include <dimorph/entry.h>

#include "cache.h"
#include "checks.h"
#include "length_checks.h"
#include "overlap.h"
#include "problem.h"

namespace dimorph {
namespace attention {

// The rows of q and k of a problem.
inline Tokens tokens_of(const Problem& problem, const ConstTensor& q, const ConstTensor& k, int64_t table_pages = 0) {
  const auto rooms = [&](int32_t room) { return int64_t{problem.batch_size} * room; };
  return {problem.cu_seqlens_q ? q.size(0) : rooms(problem.max_qo_len), problem.cu_seqlens_k ? k.size(0)
                                                                        : problem.table.starts
                                                                            ? table_pages * problem.table.page_size
                                                                            : rooms(problem.max_kv_len)};
}

// The longest length for a GPU, as given; without one, the number of tokens.
inline int32_t longest_given(const Optional<int64_t>& given, const char* name, int64_t tokens) {
  if (!given) return static_cast<int32_t>(tokens);
  DIMORPH_CHECK(*given >= 0, "attention: argument '%s': expected the length of a sequence, got %lld", name,
                static_cast<long long>(*given));
  return static_cast<int32_t>(*given < tokens ? *given : tokens);
}

// On a GPU the lengths of sequences are not read: the longest ragged ones are max_seqlen_q and max_seqlen_k or, without
// them, as many as there are tokens, or places in all pages of an indptr. `cache` describes the keys, with its own
// cu_seqlens as cu_seqlens_k; null: they are dense or ragged, as the queries are. Without `out`, the problem is only
// planned.
inline Problem describe(const ConstTensor& q, const ConstTensor& k, const ConstTensor& v, const Optional<Tensor>& out,
                        const Optional<Tensor>& lse, const Optional<ConstTensor>& cu_seqlens_q,
                        const Optional<ConstTensor>& cu_seqlens_k, float sm_scale,
                        const Optional<int64_t>& max_seqlen_q, const Optional<int64_t>& max_seqlen_k,
                        const Cache* cache = nullptr) {
  DIMORPH_CHECK(cache || bool(cu_seqlens_q) == bool(cu_seqlens_k),
                "attention: argument '%s': expected offsets, as '%s' is given: both or neither",
                cu_seqlens_q ? "cu_seqlens_k" : "cu_seqlens_q", cu_seqlens_q ? "cu_seqlens_q" : "cu_seqlens_k");
  const Layout rows = cu_seqlens_q ? kRagged : kDense, keys = cache ? cache->layout() : rows;
  const bool paged = cache && cache->paged();
  const char* const offsets_k = cache ? "cu_seqlens" : "cu_seqlens_k";
  const Device device = q.device();
  check_layout(q, "q", rows, device);
  check_layout(k, "k", keys, device);
  check_layout(v, "v", keys, device);
  const bool float8 = cache && kv_dtype(k.dtype()) != KvDtype::as_q;
  if (!float8) check_dtype(k, "k", q.dtype(), "the dtype of 'q',");
  check_dtype(v, "v", float8 ? k.dtype() : q.dtype(), float8 ? "the dtype of 'k'," : "the dtype of 'q',");
  const int32_t* const cu_q = rows.ragged ? check_offsets(*cu_seqlens_q, "cu_seqlens_q", device) : nullptr;
  const int32_t* const cu_k = keys.ragged ? check_offsets(*cu_seqlens_k, offsets_k, device) : nullptr;
  const int64_t batch = rows.ragged ? cu_seqlens_q->size(0) - 1 : q.size(0);
  if (keys.ragged) check_size(*cu_seqlens_k, offsets_k, 0, batch + 1, "the sequences of 'q' and 1");
  if (paged) check_size(v, "v", 0, k.size(0), "the pages of 'k'");
  if (!keys.ragged && !paged) {
    check_size(k, "k", 0, batch, "the batch of 'q'");
    check_size(v, "v", 0, batch, "the batch of 'q'");
  }
  check_size(k, "k", keys.ndim() - 1, q.size(-1), "the head dim of 'q'");
  check_size(v, "v", keys.row, k.size(keys.row), "the rows of 'k'");
  check_size(v, "v", keys.head, k.size(keys.head), "the heads of 'k'");
  if (out) {
    check_layout(*out, "out", rows, device);
    check_dtype(*out, "out", q.dtype(), "the dtype of 'q',");
    if (!rows.ragged) check_size(*out, "out", 0, batch, "the batch of 'q'");
    check_size(*out, "out", rows.row, q.size(rows.row), "the rows of 'q'");
    check_size(*out, "out", rows.head, q.size(rows.head), "the heads of 'q'");
    check_size(*out, "out", rows.ndim() - 1, v.size(-1), "the head dim of 'v'");
  }
  DIMORPH_CHECK(k.size(keys.head) > 0 && q.size(rows.head) % k.size(keys.head) == 0,
                "attention: argument 'q': expected a number of heads that is a multiple of the %lld of 'k', got %lld",
                static_cast<long long>(k.size(keys.head)), static_cast<long long>(q.size(rows.head)));
  if (!rows.ragged) check_most(q, "q", 0, kMostSize, "the batch");
  check_most(q, "q", rows.row, dm::kMaxLength, "rows");
  check_most(k, "k", keys.row, dm::kMaxLength, "rows");
  check_most(q, "q", rows.head, kMostSize, "heads");
  DIMORPH_CHECK(sm_scale == sm_scale, "attention: argument 'scale': expected a number, got NaN");
  // Queries times the scale must be finite.
  DIMORPH_CHECK(sm_scale >= -1e30f && sm_scale <= 1e30f,
                "attention: argument 'scale': expected a number from -1e30 to 1e30, got %g",
                static_cast<double>(sm_scale));
  const Named arrays[] = {{"q", q}, {"k", k}, {"v", v}};
  for (const Named& array : arrays)
    if (out) check_apart({"out", *out}, array);

  Problem problem{};
  problem.q = q.data();
  problem.k = k.data();
  problem.v = v.data();
  if (out) problem.out = out->data();
  problem.q_strides = rows.strides(q);
  problem.k_strides = keys.strides(k);
  problem.v_strides = keys.strides(v);
  if (out) problem.out_strides = rows.strides(*out);
  problem.num_qo_heads = static_cast<int32_t>(q.size(rows.head));
  problem.num_kv_heads = static_cast<int32_t>(k.size(keys.head));
  problem.sm_scale = sm_scale;
  problem.cu_seqlens_q = cu_q;
  problem.cu_seqlens_k = cu_k;
  problem.batch_size = static_cast<int32_t>(batch);
  const auto check_results_apart = [&](const char* name, const Optional<ConstTensor>& tensor) {
    if (!tensor) return;
    const Named named{name, *tensor};
    if (out) check_apart({"out", *out}, named);
    if (lse) check_apart({"lse", *lse}, named);
  };
  check_results_apart("cu_seqlens_q", cu_seqlens_q);
  check_results_apart(offsets_k, cu_seqlens_k);
  const bool on_host = device.device_type == kDLCPU;
  const auto longest = [&](const int32_t* offsets, const char* name, const Optional<int64_t>& given,
                           const char* given_name, int64_t tokens) {
    return on_host ? longest_of(offsets, name, problem.batch_size, tokens) : longest_given(given, given_name, tokens);
  };
  problem.max_qo_len = rows.ragged ? longest(cu_q, "cu_seqlens_q", max_seqlen_q, "max_seqlen_q", q.size(0))
                                   : static_cast<int32_t>(q.size(1));
  if (!paged)
    problem.max_kv_len = keys.ragged ? longest(cu_k, offsets_k, max_seqlen_k, "max_seqlen_k", k.size(0))
                                     : static_cast<int32_t>(k.size(keys.row));
  if (cache) {
    describe_cache(*cache, k, device, problem);
    if (cache->indptr && !on_host) problem.max_kv_len = longest_given(max_seqlen_k, "max_seqlen_k", problem.max_kv_len);
    cache->for_each(check_results_apart);
  }
  if (float8) {
    problem.k_scale = describe_scale(cache->k_scale, "k_scale", device, problem.num_kv_heads);
    problem.v_scale = describe_scale(cache->v_scale, "v_scale", device, problem.num_kv_heads);
  }
  // Rows over all heads are counted with 32 bits too.
  const int64_t all_rows = int64_t{problem.max_qo_len} * problem.num_qo_heads;
  DIMORPH_CHECK(
      all_rows <= kMostSize && int64_t{problem.batch_size} * problem.num_kv_heads <= kMostSize,
      "attention: argument 'q': expected at most %lld rows of a sequence over all heads, and as many heads of "
      "'k' over the batch, got %lld and %lld",
      static_cast<long long>(kMostSize), static_cast<long long>(all_rows),
      static_cast<long long>(int64_t{problem.batch_size} * problem.num_kv_heads));
  if (out) check_no_overlap(*out, "out");
  if (lse) {
    check_dtype(*lse, "lse", dimorph::data_type<float>());
    check_device(*lse, "lse", device);
    DIMORPH_CHECK(lse->ndim() == rows.ndim() - 1,
                  "attention: argument 'lse': expected the shape of 'q' without head_dim, got %d dimension%s",
                  lse->ndim(), lse->ndim() == 1 ? "" : "s");
    for (int dim = 0; dim <= rows.head; ++dim) check_size(*lse, "lse", dim, q.size(dim), "as in 'q'");
    check_no_overlap(*lse, "lse");
    for (const Named& array : arrays) check_apart({"lse", *lse}, array);
    if (out) check_apart({"lse", *lse}, {"out", *out});
    problem.lse = lse->data<float>();
    problem.lse_strides = rows.strides(*lse);
  }
  return problem;
}

}  // namespace attention
}  // namespace dimorph
