// Which sequences are computed by single rows of queries, and which by blocks.
#pragma once
#include "../problem.h"

namespace dimorph {
namespace attention {

// A CPU computes up to so many queries faster one by one than in blocks: measured with vectors of 16 lanes, up to about
// 40. Dense sequences that are all in use have one length, by which the caller chooses (request.py).
constexpr int kFewQueries = 32;

// Whether each sequence has a number of queries of its own.
constexpr bool queries_differ(const Problem& problem) { return problem.cu_seqlens_q || problem.seqlens_q; }

// Whether a call for few queries, or for many, computes a sequence. A sequence with a length of its own has the kernel
// for it, so that its result depends neither on the sequences beside it nor on their room. The call says which it is,
// because the kernel for blocks may serve instead of the other, see `covers` in kernels.py.
constexpr bool computes(const Problem& problem, int qo_len) {
  return !queries_differ(problem) || (qo_len <= kFewQueries) == problem.few_queries;
}

// Whether there are queries that the call does not compute.
inline bool leaves_queries(const Problem& problem) {
  for (int b = 0; queries_differ(problem) && b < problem.batch_size; ++b) {
    const int qo_len = problem.seqlens_q ? problem.seqlens_q[b] : problem.cu_seqlens_q[b + 1] - problem.cu_seqlens_q[b];
    if (qo_len > 0 && !computes(problem, qo_len)) return true;
  }
  return false;
}

}  // namespace attention
}  // namespace dimorph
