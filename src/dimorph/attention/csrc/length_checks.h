// Checks of numbers in memory that the host reads: offsets, lengths, page tables, factors.
#pragma once
#include <dimorph/check.h>
#include <dimorph/ints.h>

#include "kv_dtype.h"
#include "operation.h"
#include "problem.h"

namespace dimorph {
namespace attention {

// The argument that holds the numbers of pages.
inline const char* table_name(const PageTable& table) { return table.starts ? "indices" : "block_table"; }

// Checks every offset. Returns the longest length.
inline int32_t longest_of(const int32_t* offsets, const char* name, int32_t batch, int64_t tokens) {
  DIMORPH_CHECK(offsets[0] == 0, DIMORPH_OPERATION ": argument '%s': expected 0 first, got %d", name, offsets[0]);
  int32_t longest = 0;
  for (int32_t i = 1; i <= batch; ++i) {
    DIMORPH_CHECK(offsets[i] >= offsets[i - 1],
                  DIMORPH_OPERATION ": argument '%s': expected offsets that never fall, got %d after %d", name,
                  offsets[i], offsets[i - 1]);
    const int32_t length = offsets[i] - offsets[i - 1];
    longest = length > longest ? length : longest;
  }
  DIMORPH_CHECK(offsets[batch] <= tokens,
                DIMORPH_OPERATION ": argument '%s': expected offsets up to %lld tokens, got %d", name,
                static_cast<long long>(tokens), offsets[batch]);
  return longest;
}

// Checks lengths in use against the room of each sequence: offsets, or an equal one for all.
inline void check_lengths(const int32_t* lengths, const char* name, const int32_t* offsets, int32_t room,
                          int32_t batch) {
  for (int32_t b = 0; lengths && b < batch; ++b) {
    const int32_t most = offsets ? offsets[b + 1] - offsets[b] : room;
    DIMORPH_CHECK(lengths[b] >= 0 && lengths[b] <= most,
                  DIMORPH_OPERATION
                  ": argument '%s': expected a length from 0 to %d for sequence %d, as it has room for, got "
                  "%d",
                  name, most, b, lengths[b]);
  }
}

// Checks the factors of keys (values) in 8 bits.
inline void check_factors(const KvScale& scale, const char* name, int32_t count) {
  for (int32_t head = 0; head < count; ++head)
    DIMORPH_CHECK(scale.of(head) > 0.f && scale.of(head) <= 1e30f,
                  DIMORPH_OPERATION ": argument '%s': expected factors above 0, up to 1e30, got %g for head %d", name,
                  static_cast<double>(scale.of(head)), head);
}

// Checks each number of a page table that is used.
inline void check_table(const Problem& problem) {
  const PageTable& table = problem.table;
  for (int32_t b = 0; table.starts && b < problem.batch_size; ++b) {
    const int32_t least = table.starts[b + 1] > table.starts[b];
    DIMORPH_CHECK(table.last_page_len[b] >= least && table.last_page_len[b] <= table.page_size,
                  DIMORPH_OPERATION ": argument 'last_page_len': expected %d to %d keys for sequence %d, got %d", least,
                  table.page_size, b, table.last_page_len[b]);
  }
  BaseParams<char, char, char, true> params;
  static_cast<Problem&>(params) = problem;
  for (int32_t b = 0; b < problem.batch_size; ++b) {
    const int32_t* numbers = table.pages + (table.starts ? table.starts[b] : b * table.stride);
    const int32_t used = params.get_kv_len(b) / table.page_size + (params.get_kv_len(b) % table.page_size > 0);
    for (int32_t i = 0; i < used; ++i)
      DIMORPH_CHECK(numbers[i] >= 0 && numbers[i] < table.pool_pages,
                    DIMORPH_OPERATION
                    ": argument '%s': expected a page from 0 to %d as number %d of sequence %d, got %d",
                    table_name(table), table.pool_pages - 1, i, b, numbers[i]);
  }
}

// Checks lengths in use against the longest that were given, of offsets that the call did not read.
inline void check_longest(const Problem& problem) {
  BaseParams<char, char, char, true> params;
  static_cast<Problem&>(params) = problem;
  for (int32_t b = 0; b < problem.batch_size; ++b) {
    const auto check = [&](const char* name, int32_t most, int length) {
      DIMORPH_CHECK(length <= most,
                    DIMORPH_OPERATION ": argument '%s': expected %d or more, the length of sequence %d, got %d", name,
                    length, b, most);
    };
    check("max_seqlen_q", problem.max_qo_len, params.get_qo_len(b));
    check("max_seqlen_k", problem.max_kv_len, params.get_kv_len(b));
  }
}

}  // namespace attention
}  // namespace dimorph
