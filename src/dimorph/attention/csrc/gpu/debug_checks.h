// Under DIMORPH_DEBUG=1: the checks of lengths, offsets, page tables and factors in the memory of a GPU, which calls do
// not read otherwise. They wait for the GPU. While a stream is captured there is nothing to wait for, and no check.
#pragma once
#include <dimorph/cuda.h>
#include <dimorph/ints.h>

#include "../append_places.h"
#include "../length_checks.h"
#include "../operation.h"
#include "../problem.h"
#include "append_params.h"
#include "launch.h"

#if defined(DIMORPH_DEBUG)
#include <list>
#include <vector>
#endif

namespace dimorph {
namespace attention {
namespace gpu {

#if defined(DIMORPH_DEBUG)

// Replaces arrays in the memory of a GPU by copies.
class Copies {
 public:
  explicit Copies(Device device) : device_(device) {}

  // Replaces an array of `rows` rows, `stride` apart; the rows of the copy follow each other.
  template <typename T>
  void take(const T*& numbers, int64_t count, int64_t rows = 1, int64_t stride = 0) {
    static_assert(sizeof(T) == sizeof(int32_t));
    if (!numbers || count == 0 || rows == 0) return;
    copies_.emplace_back(count * rows);
    for (int64_t i = 0; i < rows; ++i)
      if (!cuda::copy_to_host(&copies_.back()[i * count], numbers + i * stride, count * sizeof(T), device_)) fail();
    numbers = reinterpret_cast<const T*>(copies_.back().data());
  }
  // Replaces a page table. `listed`: the numbers in all or, of a block table, in a row.
  void take(PageTable& table, int32_t batch, int64_t listed) {
    take(table.starts, batch + 1);
    take(table.last_page_len, batch);
    if (!table.pages) return;
    if (table.starts) return take(table.pages, listed);
    take(table.pages, listed, batch, table.stride);
    table.stride = listed;
  }

  // Checks the factors of so many heads.
  void check(KvScale scale, const char* name, int32_t heads) {
    if (!scale.array) return;  // a number, which the entry has checked
    const int32_t count = scale.stride ? heads : 1;
    take(scale.array, count);
    check_factors(scale, name, count);
  }

 private:
  // The driver has left its error in the call's sink.
  [[noreturn]] static void fail() {
    Error error{cuda::detail::case_sink()->kind, {}};
    __builtin_memcpy(error.text, cuda::detail::case_sink()->text, sizeof error.text);
    throw error;
  }

  const Device device_;
  std::list<std::vector<int32_t>> copies_;
};

#endif

// Checks the lengths of an attention problem. `offsets_k`: the argument with those of keys. False: there is an error.
inline bool check_lengths_on_gpu([[maybe_unused]] const Problem& given, [[maybe_unused]] const Launch& launch,
                                 [[maybe_unused]] const char* offsets_k, [[maybe_unused]] ErrorSink* sink) {
#if defined(DIMORPH_DEBUG)
  if (cuda::is_capturing(launch.device)) return true;
  dimorph::detail::guard(DIMORPH_OPERATION, sink, [&] {
    Copies copies(launch.device);
    Problem problem = given;
    const int32_t batch = problem.batch_size;
    PageTable& table = problem.table;
    const int64_t listed = !table.pages ? 0 : (table.starts ? launch.key_tokens : problem.max_kv_len) / table.page_size;
    for (const int32_t** offsets : {&problem.cu_seqlens_q, &problem.cu_seqlens_k}) copies.take(*offsets, batch + 1);
    for (const int32_t** lengths : {&problem.seqlens_q, &problem.seqlens_k}) copies.take(*lengths, batch);
    copies.take(table, batch, listed);
    if (problem.cu_seqlens_q) longest_of(problem.cu_seqlens_q, "cu_seqlens_q", batch, launch.tokens);
    if (problem.cu_seqlens_k) longest_of(problem.cu_seqlens_k, offsets_k, batch, launch.key_tokens);
    if (table.starts) longest_of(table.starts, "indptr", batch, listed);
    check_lengths(problem.seqlens_q, "seqlens_q", problem.cu_seqlens_q, problem.max_qo_len, batch);
    check_lengths(problem.seqlens_k, "seqlens", problem.cu_seqlens_k, problem.max_kv_len, batch);
    if (table.pages) check_table(problem);
    check_longest(problem);
    copies.check(problem.k_scale, "k_scale", problem.num_kv_heads);
    copies.check(problem.v_scale, "v_scale", problem.num_kv_heads);
  });
  return sink->kind == ErrorKind::none;
#else
  return true;
#endif
}

// Checks the places of new rows. False: there is an error.
inline bool check_places_on_gpu([[maybe_unused]] const AppendParams& given, [[maybe_unused]] Device device,
                                [[maybe_unused]] ErrorSink* sink) {
#if defined(DIMORPH_DEBUG)
  if (cuda::is_capturing(device)) return true;
  dimorph::detail::guard(DIMORPH_OPERATION, sink, [&] {
    Copies copies(device);
    AppendParams params = given;
    Problem problem{};
    problem.batch_size = params.batch_size;
    problem.cu_seqlens_k = params.rooms;
    problem.table = params.table;
    const int32_t batch = params.batch_size;
    const int64_t listed = params.table.pages ? params.room / params.table.page_size : 0;
    copies.take(params.positions, params.tokens);
    copies.take(params.starts, batch + 1);
    copies.take(problem.cu_seqlens_k, batch + 1);
    copies.take(problem.table, batch, listed);
    if (params.starts) longest_of(params.starts, "cu_seqlens", batch, params.tokens);
    if (params.rooms) longest_of(problem.cu_seqlens_k, "cache.cu_seqlens", batch, params.room);
    if (problem.table.starts)
      longest_of(problem.table.starts, "indptr", batch, listed);
    else if (!params.rooms)
      problem.max_kv_len = static_cast<int32_t>(params.room);
    for (int i = 0; i < 2; ++i) {
      const AppendArray& array = params.arrays[i];
      if (array.chunks) copies.check(array.scale, i ? "v_scale" : "k_scale", array.chunks / array.head_chunks);
    }
    for (int32_t b = 0; b < batch; ++b) {
      const int64_t first = params.starts ? params.starts[b] : int64_t{b} * params.rows;
      const int64_t last = params.starts ? params.starts[b + 1] : first + params.rows;
      for (int64_t i = first; i < last; ++i)
        if (params.positions[i] >= 0) find_place(problem, b, i - first, params.positions[i]);
    }
  });
  return sink->kind == ErrorKind::none;
#else
  return true;
#endif
}

}  // namespace gpu
}  // namespace attention
}  // namespace dimorph
