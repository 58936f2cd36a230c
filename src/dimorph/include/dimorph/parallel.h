// The process's thread pool, as a case uses it. One pool serves every case, however many are loaded.
#pragma once
#include "case.h"

namespace dimorph {

// How many threads `parallel_for` may use, the caller's included.
inline int32_t num_threads() { return host_services()->num_threads(); }

// Calls body(i) for every i in [0, count), each once, in no order, and returns when all are done. Indices are taken one
// by one from the lowest up, so put long work first. `body` must not throw. A call from inside a body runs in line.
template <typename Body>
inline void parallel_for(int64_t count, Body&& body) {
  using Plain = detail::value_t<Body>;
  Plain* context = &body;
  host_services()->parallel_for(
      count, [](void* context, int64_t index) { (*static_cast<Plain*>(context))(index); },
      const_cast<void*>(static_cast<const void*>(context)));
}

// At least `bytes` of memory for the calling thread alone, aligned to 4096. It stays valid, with its contents, until
// the thread's next call, which may be anyone's: take it inside a body and do not keep it. Not for nested parallel
// work.
inline void* thread_scratch(size_t bytes) { return host_services()->thread_scratch(bytes); }

}  // namespace dimorph
