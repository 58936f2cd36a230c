// The thread pool of the process, as a case uses it. All cases share one pool.
#pragma once
#include "case.h"

namespace dimorph {
namespace detail {
template <>
constexpr bool uses_pool<0> = true;

template <typename Body>
struct Work {
  Body& body;
  const char* function;

  // Calls the body for a range of indices. An exception, or a check that fails, ends all of the work.
  static void run(void* context, int64_t begin, int64_t end) noexcept {
    const Work& work = *static_cast<const Work*>(context);
    ErrorSink sink;
    Exit exit{&sink, {}};
    ThreadState& state = thread_state();
    const ThreadState outer = state;
    state = ThreadState{&exit, work.function};
    if (_setjmp(exit.place) == 0) guard(work.function, &sink, [&] { loop(work.body, begin, end); });
    state = outer;
    if (__builtin_expect(sink.kind != ErrorKind::none, 0)) host_services()->fail(&sink);
  }

 private:
  // Not inlined, because a function that calls setjmp keeps its variables in memory.
  __attribute__((noinline)) static void loop(Body& body, int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) body(i);
  }
};
}  // namespace detail

// Threads that `parallel_for` may use, the caller's included.
inline int32_t num_threads() { return host_services()->num_threads(); }

// Calls body(i) once for every i in [0, count), in no particular order, and returns true when all calls are done.
// Threads take indices from the lowest up, so long work should come first: one by one where each takes some
// microseconds, and in runs of many where they take less. A call from inside a body runs on the calling thread alone.
//
// `grain`: so many indices are worth a thread's while; a thread takes at least as many at a time, and work of fewer
// runs on the calling thread alone. Waking the threads takes some microseconds, so give a grain to work that may be
// shorter.
//
// Returns false, without the calls that have not begun, if a body has thrown or a check in it has failed, Ctrl-C or
// another signal whose handler raises has come, or a thread had no memory for its scratch space. Python gets the first
// error when the case returns, which it should do soon. Until then every other call returns false, too.
template <typename Body>
inline bool parallel_for(int64_t count, Body&& body, int64_t grain = 1) {
  using Work = detail::Work<typename detail::RemoveReference<Body>::type>;
  Work work{body, detail::thread_state().function};
  return host_services()->parallel_for(count, grain, Work::run, &work);
}

// At least `bytes` of memory for the calling thread alone, aligned to 4096 bytes. It stays valid, with its contents,
// until the thread's next call of this function, by whichever case. So ask for it inside a body, and do not use it
// across nested parallel work. Null if there is no memory: then return, and Python gets a MemoryError.
inline void* thread_scratch(size_t bytes) { return host_services()->thread_scratch(bytes); }

}  // namespace dimorph
