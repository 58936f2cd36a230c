// The thread pool that all kernels of the process share. It uses plain pthreads, so that the object needs no libstdc++.
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>
#include <new>

#include "dimorph/abi.h"

namespace {

using dimorph::ErrorKind;

constexpr int kMaxThreads = 1024;
// About 20 us: longer than the gap between two kernels of one model layer, too short for other processes to notice.
constexpr int kSpins = 500;
// Milliseconds between two looks at signals. Each takes Python's lock, for which a busy program lets us wait 5 ms.
constexpr int64_t kCheckEvery = 200;

void pause_briefly() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("isb");
#endif
}

// A flag that one thread waits for and others raise. The waiting thread spins first, then sleeps.
class Event {
 public:
  void raise() {
    if (__atomic_exchange_n(&state_, kRaised, __ATOMIC_ACQ_REL) != kSleeping) return;
    pthread_mutex_lock(&mutex_);
    pthread_cond_signal(&condition_);
    pthread_mutex_unlock(&mutex_);
  }
  // Waits until the flag is raised, and lowers it.
  void wait() {
    for (int i = 0; i < kSpins; ++i) {
      if (__atomic_load_n(&state_, __ATOMIC_ACQUIRE) == kRaised) return lower();
      pause_briefly();
    }
    pthread_mutex_lock(&mutex_);
    int expected = kLowered;
    if (__atomic_compare_exchange_n(&state_, &expected, kSleeping, false, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE))
      while (__atomic_load_n(&state_, __ATOMIC_ACQUIRE) != kRaised) pthread_cond_wait(&condition_, &mutex_);
    pthread_mutex_unlock(&mutex_);
    lower();
  }

 private:
  enum { kLowered, kRaised, kSleeping };
  void lower() { __atomic_store_n(&state_, kLowered, __ATOMIC_RELAXED); }

  int state_ = kLowered;
  pthread_mutex_t mutex_ = PTHREAD_MUTEX_INITIALIZER;
  pthread_cond_t condition_ = PTHREAD_COND_INITIALIZER;
};

struct Job {
  void (*body)(void*, int64_t);
  void* context;
  int64_t count;
  int64_t next;
  ErrorKind error;
  size_t wanted;  // bytes of scratch space that a thread did not get

  void fail(ErrorKind kind) {
    __atomic_store_n(&error, kind, __ATOMIC_RELAXED);
    __atomic_store_n(&next, count, __ATOMIC_RELAXED);
  }
  bool failed() const { return __atomic_load_n(&error, __ATOMIC_RELAXED) != ErrorKind::none; }
};

struct Pool {
  struct Worker {
    Pool* pool;
    Event start;
  };

  pthread_mutex_t in_use = PTHREAD_MUTEX_INITIALIZER;
  Event done;
  int started = 0;     // workers that exist
  int running = 0;     // workers that have not finished the job
  Job* job = nullptr;  // written only while no worker runs
  Worker workers[kMaxThreads];
};

Pool* current_pool = nullptr;  // made at first use; null again in a forked child
int thread_limit = 1;
int (*check_signals)() = nullptr;

// The state of a thread; one object, because each access of a thread_local variable is a function call.
struct Thread {
  Job* job = nullptr;  // on which it works
  ErrorKind error = ErrorKind::none;
  size_t wanted = 0;
  void* scratch = nullptr;
  size_t scratch_size = 0;
  enum { unknown, no, yes } is_main = unknown;
};
thread_local Thread this_thread;
pthread_key_t scratch_key;

// A forked child has no workers, and the state that they held is whatever the fork caught, so the child leaves the pool
// behind.
void forget_pool() {
  __atomic_store_n(&current_pool, nullptr, __ATOMIC_RELAXED);
  this_thread.is_main = Thread::unknown;
}

__attribute__((constructor)) void set_up() {
  pthread_atfork(nullptr, nullptr, forget_pool);
  pthread_key_create(&scratch_key, free);
}

int64_t milliseconds() {
  timespec now;
  clock_gettime(CLOCK_MONOTONIC_COARSE, &now);
  return now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

void work(Job* job) {
  for (int64_t i; (i = __atomic_fetch_add(&job->next, 1, __ATOMIC_RELAXED)) < job->count;) job->body(job->context, i);
}

// Python runs the handlers of signals in the main thread only.
bool is_main(Thread& thread) {
  if (thread.is_main == Thread::unknown) thread.is_main = syscall(SYS_gettid) == getpid() ? Thread::yes : Thread::no;
  return thread.is_main == Thread::yes;
}

// Works like `work`, and runs the handlers of signals meanwhile. They may call kernels, which are not part of this job.
void work_and_watch(Thread& thread, Job* job) {
  int64_t checked = milliseconds();
  for (int64_t i; (i = __atomic_fetch_add(&job->next, 1, __ATOMIC_RELAXED)) < job->count;) {
    job->body(job->context, i);
    const int64_t now = milliseconds();
    if (now - checked < kCheckEvery) continue;
    thread.job = nullptr;
    if (check_signals() != 0) job->fail(ErrorKind::interrupted);
    thread.job = job;
    checked = milliseconds();
  }
}

void* worker_main(void* argument) {
  auto* worker = static_cast<Pool::Worker*>(argument);
  Pool* pool = worker->pool;
  for (;;) {
    worker->start.wait();
    this_thread.job = pool->job;
    work(pool->job);
    if (__atomic_sub_fetch(&pool->running, 1, __ATOMIC_ACQ_REL) == 0) pool->done.raise();
  }
}

Pool* get_pool() {
  Pool* pool = __atomic_load_n(&current_pool, __ATOMIC_ACQUIRE);
  if (pool) return pool;
  // Never freed, because its threads live as long as the process.
  void* memory = aligned_alloc(64, (sizeof(Pool) + 63) / 64 * 64);
  if (!memory) return nullptr;
  auto* made = new (memory) Pool;  // in place: the 100 kB would not fit on the stack of every thread
  if (__atomic_compare_exchange_n(&current_pool, &pool, made, false, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE)) return made;
  free(made);
  return pool;
}

// Starts workers until there are `wanted`; returns how many of these there are. Workers block all signals, so that the
// caller's threads handle them.
int start_workers(Pool* pool, int wanted) {
  if (pool->started >= wanted) return wanted;
  sigset_t all, before;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  for (; pool->started < wanted; ++pool->started) {
    Pool::Worker* worker = &pool->workers[pool->started];
    worker->pool = pool;
    pthread_t thread;
    if (pthread_create(&thread, nullptr, worker_main, worker) != 0) break;  // the job runs with fewer workers
    pthread_detach(thread);
  }
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
  return pool->started;
}

// Runs a job on the calling thread and `helpers` workers, or on the calling thread alone if another job has the pool.
void run(Thread& thread, Job* job, int helpers) {
  Pool* pool = helpers > 0 ? get_pool() : nullptr;
  if (pool && pthread_mutex_trylock(&pool->in_use) != 0) pool = nullptr;
  const int started = pool ? start_workers(pool, helpers) : 0;
  if (started > 0) {
    pool->job = job;
    pool->running = started;
    for (int i = 0; i < started; ++i) pool->workers[i].start.raise();
  }
  if (check_signals && is_main(thread))
    work_and_watch(thread, job);
  else
    work(job);
  if (pool && pool != __atomic_load_n(&current_pool, __ATOMIC_RELAXED)) {
    // A signal handler has forked, and this is the child, without the workers and what they were doing.
    if (started > 0) job->fail(ErrorKind::runtime);
    return;
  }
  if (started > 0) pool->done.wait();
  if (pool) pthread_mutex_unlock(&pool->in_use);
}

}  // namespace

extern "C" {

DIMORPH_VISIBLE int32_t dimorph_pool_threads() noexcept {
  const int threads = __atomic_load_n(&thread_limit, __ATOMIC_RELAXED);
  return threads < kMaxThreads ? threads : kMaxThreads;
}

// Sets how many threads a job may use, the caller's included.
DIMORPH_VISIBLE void dimorph_pool_set_threads(int32_t count) {
  __atomic_store_n(&thread_limit, count, __ATOMIC_RELAXED);
}

// Sets the function that runs the handlers of signals that have come; not 0: one of them has raised an exception.
DIMORPH_VISIBLE void dimorph_pool_set_check_signals(int (*function)()) {
  __atomic_store_n(&check_signals, function, __ATOMIC_RELAXED);
}

// See dimorph::parallel_for.
DIMORPH_VISIBLE bool dimorph_pool_run(int64_t count, void (*body)(void*, int64_t), void* context) noexcept {
  Thread& thread = this_thread;
  Job* outer = thread.job;
  if (thread.error != ErrorKind::none || (outer && outer->failed())) return false;
  Job job{body, context, count, 0, ErrorKind::none, 0};
  thread.job = &job;
  if (outer) {
    work(&job);
  } else {
    const int64_t threads = dimorph_pool_threads();
    run(thread, &job, static_cast<int>(threads < count ? threads : count) - 1);
  }
  thread.job = outer;
  if (!job.failed()) return true;
  (outer ? outer->wanted : thread.wanted) = job.wanted;
  if (outer)
    outer->fail(job.error);
  else
    thread.error = job.error;
  return false;
}

DIMORPH_VISIBLE void* dimorph_thread_scratch(size_t bytes) noexcept {
  Thread& thread = this_thread;
  if (bytes <= thread.scratch_size) return thread.scratch;
  free(thread.scratch);
  const size_t size = (bytes + 4095) / 4096 * 4096;
  thread.scratch = size < bytes ? nullptr : aligned_alloc(4096, size);
  thread.scratch_size = thread.scratch ? size : 0;
  pthread_setspecific(scratch_key, thread.scratch);
  if (thread.scratch) return thread.scratch;
  (thread.job ? thread.job->wanted : thread.wanted) = bytes;
  if (thread.job)
    thread.job->fail(ErrorKind::memory);
  else
    thread.error = ErrorKind::memory;
  return nullptr;
}

DIMORPH_VISIBLE void dimorph_take_error(dimorph::ErrorSink* sink) noexcept {
  Thread& thread = this_thread;
  if (thread.error == ErrorKind::none) return;
  sink->kind = thread.error;
  sink->text[0] = 0;
  if (thread.error == ErrorKind::memory)
    snprintf(sink->text, sizeof sink->text, "no memory for the %zu bytes that a thread of the kernel needs",
             thread.wanted);
  else if (thread.error == ErrorKind::runtime)
    snprintf(sink->text, sizeof sink->text, "a signal handler forked during the kernel, which ends in the child");
  thread.error = ErrorKind::none;
}

DIMORPH_VISIBLE const dimorph::HostServices* dimorph_host_services() {
  static constexpr dimorph::HostServices services = {dimorph_pool_threads, dimorph_pool_run, dimorph_thread_scratch,
                                                     dimorph_take_error};
  return &services;
}

}  // extern "C"
