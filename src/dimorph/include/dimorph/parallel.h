// The thread pool of the process, as a case uses it. All cases share one pool.
#pragma once
#include "case.h"

namespace dimorph {
namespace detail {
template <>
constexpr bool uses_pool<0> = true;
}  // namespace detail

// Threads that `parallel_for` may use, the caller's included.
inline int32_t num_threads() { return host_services()->num_threads(); }

// Calls body(i) once for every i in [0, count), in no particular order, and returns true when all calls are done.
// Threads take indices one by one from the lowest up, so long work should come first. `body` must not throw. A call
// from inside a body runs on the calling thread alone.
//
// Returns false, without the calls that have not begun, if Ctrl-C or another signal whose handler raises has come, or a
// thread had no memory for its scratch space. Python gets the exception when the case returns, which it should do soon.
// Until then every other call returns false, too.
template <typename Body>
inline bool parallel_for(int64_t count, Body&& body) {
  using Plain = detail::value_t<Body>;
  Plain* context = &body;
  return host_services()->parallel_for(
      count, [](void* context, int64_t index) { (*static_cast<Plain*>(context))(index); },
      const_cast<void*>(static_cast<const void*>(context)));
}

// At least `bytes` of memory for the calling thread alone, aligned to 4096 bytes. It stays valid, with its contents,
// until the thread's next call of this function, by whichever case. So ask for it inside a body, and do not use it
// across nested parallel work. Null if there is no memory: then return, and Python gets a MemoryError.
inline void* thread_scratch(size_t bytes) { return host_services()->thread_scratch(bytes); }

}  // namespace dimorph
