// Which sequences are computed by single rows of queries, and which by blocks.
#pragma once
#include "../problem.h"

namespace dimorph {
namespace attention {

// A CPU computes up to so many queries faster one by one than in blocks: measured with vectors of 16 lanes, up to about
// 40. Dense sequences have one length, by which the caller chooses (request.py).
constexpr int kFewQueries = 32;

// Whether the kernel for few queries, or for many, computes a sequence. Each ragged sequence has the kernel for its own
// length, so that its result does not depend on the sequences beside it.
constexpr bool computes(const Problem& problem, bool few_queries, int qo_len) {
  return !problem.cu_seqlens_q || (qo_len <= kFewQueries) == few_queries;
}

// Whether there are queries that the kernel does not compute.
inline bool leaves_queries(const Problem& problem, bool few_queries) {
  for (int b = 0; problem.cu_seqlens_q && b < problem.batch_size; ++b) {
    const int room = problem.cu_seqlens_q[b + 1] - problem.cu_seqlens_q[b];
    const int qo_len = problem.seqlens_q ? problem.seqlens_q[b] : room;
    if (qo_len > 0 && !computes(problem, few_queries, qo_len)) return true;
  }
  return false;
}

}  // namespace attention
}  // namespace dimorph
