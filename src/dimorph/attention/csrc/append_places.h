// Where append puts a row, found on the host.
#pragma once
#include <dimorph/check.h>
#include <dimorph/ints.h>

#include "length_checks.h"
#include "operation.h"
#include "problem.h"

namespace dimorph {
namespace attention {

// A row of a cache: of a sequence or, in pages, of a page; of a ragged cache, counted from its first.
struct Place {
  int64_t batch, row;
};

// The keys that a sequence has room for.
inline int64_t room_of(const Problem& problem, int32_t b) {
  const PageTable& table = problem.table;
  if (table.starts) return int64_t{table.starts[b + 1] - table.starts[b]} * table.page_size;
  return problem.cu_seqlens_k ? problem.cu_seqlens_k[b + 1] - problem.cu_seqlens_k[b] : problem.max_kv_len;
}

// Finds the place of a position of sequence b, 0 or more. It is that of the sequence's new row number `row`.
inline Place find_place(const Problem& problem, int32_t b, int64_t row, int32_t position) {
  const int64_t room = room_of(problem, b);
  DIMORPH_CHECK(position < room,
                DIMORPH_OPERATION
                ": argument 'positions': expected a position from 0 to %lld for token %lld of sequence %d, as there is "
                "room for, got %d",
                static_cast<long long>(room - 1), static_cast<long long>(row), b, position);
  const PageTable& table = problem.table;
  if (!table.pages) return {b, int64_t{position} + (problem.cu_seqlens_k ? problem.cu_seqlens_k[b] : 0)};
  const int32_t page = position / table.page_size;
  const int32_t number = table.pages[(table.starts ? table.starts[b] : b * table.stride) + page];
  DIMORPH_CHECK(number >= 0 && number < table.pool_pages,
                DIMORPH_OPERATION ": argument '%s': expected a page from 0 to %d as number %d of sequence %d, got %d",
                table_name(table), table.pool_pages - 1, page, b, number);
  return {number, position - int64_t{page} * table.page_size};
}

}  // namespace attention
}  // namespace dimorph
