// The thread pool of the process, as a case uses it. All cases share one pool.
#pragma once
#include "case.h"

namespace dimorph {

// Threads that `parallel_for` may use, the caller's included.
inline int32_t num_threads() { return host_services()->num_threads(); }

// Calls body(i) once for every i in [0, count), in no particular order, and returns when all calls are done. Threads
// take indices one by one from the lowest up, so long work should come first. `body` must not throw. A call from inside
// a body runs on the calling thread alone.
template <typename Body>
inline void parallel_for(int64_t count, Body&& body) {
  using Plain = detail::value_t<Body>;
  Plain* context = &body;
  host_services()->parallel_for(
      count, [](void* context, int64_t index) { (*static_cast<Plain*>(context))(index); },
      const_cast<void*>(static_cast<const void*>(context)));
}

// At least `bytes` of memory for the calling thread alone, aligned to 4096 bytes. It stays valid, with its contents,
// until the thread's next call of this function, by whichever case. So ask for it inside a body, and do not use it
// across nested parallel work.
inline void* thread_scratch(size_t bytes) { return host_services()->thread_scratch(bytes); }

}  // namespace dimorph
