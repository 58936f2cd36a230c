// Caches of keys and values: how a call describes them, and the checks of their lengths and page tables.
#pragma once
#include <dimorph/entry.h>

#include "checks.h"
#include "kv_dtype.h"
#include "length_checks.h"
#include "problem.h"

namespace dimorph {
namespace attention {

// A factor of keys (values) in 8 bits: an array or, without one, a number.
struct GivenScale {
  Optional<ConstTensor> array;
  float value;
};

// What a cache adds to k, v and cu_seqlens (attention/cache.py), and the lengths of the queries beside it.
struct Cache {
  bool ragged;       // keys have cu_seqlens
  bool heads_first;  // layout HND: heads before rows
  Optional<ConstTensor> seqlens_q, seqlens, block_table, indptr, indices, last_page_len;
  GivenScale k_scale{}, v_scale{};

  // Calls f(name, tensor) for each of them.
  template <typename F>
  void for_each(F f) const {
    f("seqlens_q", seqlens_q), f("seqlens", seqlens), f("block_table", block_table);
    f("indptr", indptr), f("indices", indices), f("last_page_len", last_page_len);
    f("k_scale", k_scale.array), f("v_scale", v_scale.array);
  }
  bool paged() const { return block_table || indptr; }
  Layout layout() const {
    if (ragged) return kRagged;
    if (heads_first)
      return {2, 1, false, paged() ? "[pages, heads, page_size, head_dim]" : "[batch, heads, seq, head_dim]"};
    return {1, 2, false, paged() ? "[pages, page_size, heads, head_dim]" : kDense.shape};
  }
};

// How keys of a dtype are stored, where it may be another one than that of the queries.
inline KvDtype kv_dtype(DataType dtype) {
  if (dtype == DataType{kDLFloat8_e4m3fn, 8, 1}) return KvDtype::float8_e4m3fn;
  return dtype == DataType{kDLFloat8_e5m2, 8, 1} ? KvDtype::float8_e5m2 : KvDtype::as_q;
}

// Checks the factor of stored keys (values), and describes it. Factors in the memory of a GPU are not read.
inline KvScale describe_scale(const GivenScale& given, const char* name, Device device, int64_t kv_heads) {
  KvScale scale{nullptr, 0, given.value};
  int64_t count = 1;
  if (given.array) {
    const ConstTensor& array = *given.array;
    check_dtype(array, name, data_type<float>());
    check_device(array, name, device);
    count = array.numel();
    DIMORPH_CHECK(
        count == 1 || (array.ndim() == 1 && count == kv_heads && array.contiguous()),
        DIMORPH_OPERATION
        ": argument '%s': expected one element, or a contiguous tensor [kv_heads] of %lld, got %d dimension%s "
        "and %lld elements",
        name, static_cast<long long>(kv_heads), array.ndim(), array.ndim() == 1 ? "" : "s",
        static_cast<long long>(count));
    scale.array = array.data<float>();
    scale.stride = count > 1;
    if (device.device_type != kDLCPU) return scale;
  }
  check_factors(scale, name, static_cast<int32_t>(count));
  return scale;
}

// Checks dtype, device and shape of an argument with a number for each sequence, or for each page.
inline const int32_t* check_numbers(const ConstTensor& tensor, const char* name, const char* shape, Device device) {
  check_dtype(tensor, name, data_type<int32_t>());
  check_device(tensor, name, device);
  DIMORPH_CHECK(tensor.ndim() == 1 && tensor.contiguous(),
                DIMORPH_OPERATION
                ": argument '%s': expected a contiguous tensor %s, got %d dimensions, the first with stride "
                "%lld",
                name, shape, tensor.ndim(), static_cast<long long>(tensor.ndim() ? tensor.stride(0) : 0));
  return tensor.data<int32_t>();
}

// Checks the arrays of a page table, without reading them, and describes it. Sets the room of the longest sequence.
inline void describe_table(const Cache& cache, const ConstTensor& k, Device device, Problem& problem) {
  const int64_t batch = problem.batch_size, page_size = k.size(cache.layout().row);
  int64_t pages;  // of the longest sequence, or more
  DIMORPH_CHECK(page_size >= 1 && page_size <= dm::kMaxLength,
                DIMORPH_OPERATION ": argument 'k': expected pages of 1 to %d keys, got %lld", dm::kMaxLength,
                static_cast<long long>(page_size));
  problem.table.page_size = static_cast<int32_t>(page_size);
  DIMORPH_CHECK(k.size(0) <= kMostSize, DIMORPH_OPERATION ": argument 'k': expected at most %lld pages, got %lld",
                static_cast<long long>(kMostSize), static_cast<long long>(k.size(0)));
  problem.table.pool_pages = static_cast<int32_t>(k.size(0));
  int32_t& shift = problem.table.page_shift;
  while (int64_t{1} << shift < page_size) ++shift;
  problem.table.page_reciprocal = static_cast<uint32_t>(((int64_t{1} << (31 + shift)) + page_size - 1) / page_size);
  if (cache.block_table) {
    const ConstTensor& table = *cache.block_table;
    check_dtype(table, "block_table", data_type<int32_t>());
    check_device(table, "block_table", device);
    DIMORPH_CHECK(table.ndim() == 2 && (table.stride(1) == 1 || table.size(1) <= 1 || table.size(0) == 0),
                  DIMORPH_OPERATION
                  ": argument 'block_table': expected [batch, max_pages] with contiguous rows, got %d "
                  "dimensions, the last with stride %lld",
                  table.ndim(), static_cast<long long>(table.ndim() ? table.stride(-1) : 0));
    check_size(table, "block_table", 0, batch, "the batch");
    DIMORPH_CHECK(bool(cache.seqlens),
                  DIMORPH_OPERATION ": argument 'seqlens': expected lengths, as 'block_table' is given");
    problem.table.pages = table.data<int32_t>();
    problem.table.stride = table.stride(0);
    pages = table.size(1);
  } else {
    DIMORPH_CHECK(cache.indices && cache.last_page_len && !cache.seqlens, DIMORPH_OPERATION
                  ": argument 'indptr': expected 'indices' and 'last_page_len' beside it, and no 'seqlens'");
    problem.table.starts = check_offsets(*cache.indptr, "indptr", device);
    problem.table.pages = check_numbers(*cache.indices, "indices", "[pages of all sequences]", device);
    problem.table.last_page_len = check_numbers(*cache.last_page_len, "last_page_len", "[batch]", device);
    check_size(*cache.indptr, "indptr", 0, batch + 1, "the batch and 1");
    check_size(*cache.last_page_len, "last_page_len", 0, batch, "the batch");
    // On a GPU the caller guarantees each length. All together may be longer than a sequence can be, above all where
    // sequences share pages.
    pages = cache.indices->size(0);
    if (device.device_type == kDLCPU)
      pages = longest_of(problem.table.starts, "indptr", static_cast<int32_t>(batch), pages);
    else if (pages > dm::kMaxLength / page_size)
      pages = dm::kMaxLength / page_size;
  }
  DIMORPH_CHECK(pages <= dm::kMaxLength / page_size,
                DIMORPH_OPERATION ": argument '%s': expected at most %d keys of a sequence, got %lld pages of %lld",
                cache.block_table ? "block_table" : "indices", dm::kMaxLength, static_cast<long long>(pages),
                static_cast<long long>(page_size));
  problem.max_kv_len = static_cast<int32_t>(pages * page_size);
  // A null pointer says that there are no pages, and arrays without elements may have one.
  static constexpr int32_t kNoPages = 0;
  if (!problem.table.pages) problem.table.pages = &kNoPages;
}

// Checks what a cache adds, and describes it. Lengths and tables in the memory of a GPU are not read.
inline void describe_cache(const Cache& cache, const ConstTensor& k, Device device, Problem& problem) {
  if (cache.paged()) describe_table(cache, k, device, problem);
  const auto lengths = [&](const Optional<ConstTensor>& tensor, const char* name) -> const int32_t* {
    if (!tensor) return nullptr;
    const int32_t* const numbers = check_numbers(*tensor, name, "[batch]", device);
    check_size(*tensor, name, 0, problem.batch_size, "the batch");
    return numbers;
  };
  problem.seqlens_q = lengths(cache.seqlens_q, "seqlens_q");
  problem.seqlens_k = lengths(cache.seqlens, "seqlens");
  if (device.device_type != kDLCPU) return;
  check_lengths(problem.seqlens_q, "seqlens_q", problem.cu_seqlens_q, problem.max_qo_len, problem.batch_size);
  check_lengths(problem.seqlens_k, "seqlens", problem.cu_seqlens_k, problem.max_kv_len, problem.batch_size);
  if (cache.paged()) check_table(problem);
}

}  // namespace attention
}  // namespace dimorph
