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
using dimorph::ErrorSink;

constexpr int kMaxThreads = 1024;
constexpr int kOpen = 2 * kMaxThreads;  // see Pool::members
// About 20 us: longer than the gap between two kernels of one model layer, too short for other processes to notice.
constexpr int kSpins = 500;
// Between two looks at signals. Each takes Python's lock, for which a busy program lets us wait 5 ms.
constexpr int64_t kCheckEvery = 200'000'000;  // ns
// What a thread takes at once should last as long, at least: to take it costs up to 0.1 us where many threads do.
constexpr int64_t kShort = 4000;  // ns

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

ErrorSink error_of(ErrorKind kind) {
  ErrorSink error;
  error.kind = kind;
  error.text[0] = 0;
  return error;
}

struct Job {
  Job(void (*body)(void*, int64_t, int64_t), void* context, int64_t count, int64_t grain, int64_t threads)
      : body(body), context(context), count(count), grain(grain), threads(threads) {}

  void (*const body)(void*, int64_t, int64_t);
  void* const context;
  const uint64_t count;
  const uint64_t grain;
  const uint64_t threads;
  uint64_t next = 0;  // unsigned: it passes `count` by what each thread adds
  int failures = 0;
  ErrorSink error;

  // Keeps the first error. The other threads find no more work.
  void fail(const ErrorSink& cause) {
    if (__atomic_fetch_add(&failures, 1, __ATOMIC_RELAXED) == 0) error = cause;
    __atomic_store_n(&next, count, __ATOMIC_RELAXED);
  }
  bool failed() const { return __atomic_load_n(&failures, __ATOMIC_RELAXED) != 0; }
};

struct Pool {
  struct Worker {
    Pool* pool;
    Event start;
  };

  pthread_mutex_t in_use = PTHREAD_MUTEX_INITIALIZER;
  Event done;
  int started = 0;     // workers that exist
  int members = 0;     // workers that are at the job; kOpen more while others may join them
  Job* job = nullptr;  // written only while it has no members
  Worker workers[kMaxThreads];
};

Pool* current_pool = nullptr;  // made at first use; null again in a forked child
int thread_limit = 1;
int (*wanted_threads)() = nullptr;
int (*check_signals)() = nullptr;

// The state of a thread; one object, because each access of a thread_local variable is a function call.
struct Thread {
  Job* job = nullptr;  // on which it works
  ErrorSink error;     // until the case returns
  void* scratch = nullptr;
  size_t scratch_size = 0;
  enum { unknown, no, yes } is_main = unknown;
  // Coarse nanoseconds when signals were last looked for, and when the last job ended. Of many short jobs in a row none
  // lasts until the next look.
  int64_t looked = 0, ended = 0;
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

int64_t nanoseconds(clockid_t clock) {
  timespec now;
  clock_gettime(clock, &now);
  return now.tv_sec * 1000000000 + now.tv_nsec;
}

// Python runs the handlers of signals in the main thread only.
bool is_main(Thread& thread) {
  if (thread.is_main == Thread::unknown) thread.is_main = syscall(SYS_gettid) == getpid() ? Thread::yes : Thread::no;
  return thread.is_main == Thread::yes;
}

// How many indices a thread may take at once, so that the end comes for all threads alike.
uint64_t share(const Job* job) {
  const uint64_t done = __atomic_load_n(&job->next, __ATOMIC_RELAXED);
  return done < job->count ? (job->count - done) / (4 * job->threads) : 0;
}

// How many indices a thread takes next, after `size` of them took some nanoseconds.
uint64_t next_size(const Job* job, uint64_t size, int64_t took) {
  if (took < kShort)
    size *= 2;
  else if (took > 8 * kShort)  // longer ones have come
    size = 1;
  const uint64_t most = share(job);
  size = size < most ? size : most;
  return size < job->grain ? job->grain : size;
}

// Works on a job until it has no more indices. `watch`: runs the handlers of signals meanwhile. They may call kernels,
// which are not part of this job.
void work(Thread& thread, Job* job, bool watch) {
  const bool grows = share(job) > job->grain;
  int64_t before = grows ? nanoseconds(CLOCK_MONOTONIC) : 0;
  const int64_t begun = watch ? nanoseconds(CLOCK_MONOTONIC_COARSE) : 0;
  if (begun - thread.ended >= kCheckEvery) thread.looked = begun;
  for (uint64_t size = job->grain, i; (i = __atomic_fetch_add(&job->next, size, __ATOMIC_RELAXED)) < job->count;) {
    const uint64_t end = job->count - i < size ? job->count : i + size;
    job->body(job->context, static_cast<int64_t>(i), static_cast<int64_t>(end));
    if (watch && nanoseconds(CLOCK_MONOTONIC_COARSE) - thread.looked >= kCheckEvery) {
      thread.job = nullptr;
      if (check_signals() != 0) job->fail(error_of(ErrorKind::interrupted));
      thread.job = job;
      thread.looked = nanoseconds(CLOCK_MONOTONIC_COARSE);
    }
    if (!grows) continue;
    const int64_t now = nanoseconds(CLOCK_MONOTONIC);
    size = next_size(job, size, now - before);
    before = now;
  }
  if (watch) thread.ended = nanoseconds(CLOCK_MONOTONIC_COARSE);
}

// Makes a worker a member of the job. False if the caller has done all of it before the worker woke.
bool join(Pool* pool) {
  int members = __atomic_load_n(&pool->members, __ATOMIC_RELAXED);
  while (members >= kOpen)
    if (__atomic_compare_exchange_n(&pool->members, &members, members + 1, true, __ATOMIC_ACQUIRE, __ATOMIC_RELAXED))
      return true;
  return false;
}

void* worker_main(void* argument) {
  auto* worker = static_cast<Pool::Worker*>(argument);
  Pool* pool = worker->pool;
  for (;;) {
    worker->start.wait();
    if (!join(pool)) continue;
    this_thread.job = pool->job;
    work(this_thread, pool->job, false);
    if (__atomic_sub_fetch(&pool->members, 1, __ATOMIC_ACQ_REL) == 0) pool->done.raise();
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
    __atomic_store_n(&pool->members, kOpen, __ATOMIC_RELEASE);
    for (int i = 0; i < started; ++i) pool->workers[i].start.raise();
  }
  work(thread, job, check_signals && is_main(thread));
  if (pool && pool != __atomic_load_n(&current_pool, __ATOMIC_RELAXED)) {
    // A signal handler has forked, and this is the child, without the workers and what they were doing.
    if (started > 0) {
      ErrorSink forked = error_of(ErrorKind::runtime);
      snprintf(forked.text, sizeof forked.text, "a signal handler forked during the kernel, which ends in the child");
      job->fail(forked);
    }
    return;
  }
  // A worker that has not woken by now would find nothing to do, so it is not waited for.
  if (started > 0 && __atomic_sub_fetch(&pool->members, kOpen, __ATOMIC_ACQ_REL) > 0) pool->done.wait();
  if (pool) pthread_mutex_unlock(&pool->in_use);
}

}  // namespace

extern "C" {

DIMORPH_VISIBLE int32_t dimorph_pool_threads() noexcept {
  int threads = __atomic_load_n(&thread_limit, __ATOMIC_RELAXED);
  if (int (*const wanted)() = __atomic_load_n(&wanted_threads, __ATOMIC_RELAXED)) {
    const int count = wanted();
    if (count < threads) threads = count > 1 ? count : 1;
  }
  return threads < kMaxThreads ? threads : kMaxThreads;
}

// Sets how many threads a job may use, the caller's included.
DIMORPH_VISIBLE void dimorph_pool_set_threads(int32_t count) {
  __atomic_store_n(&thread_limit, count, __ATOMIC_RELAXED);
}

// Sets a function that each job asks how many of these threads to use.
DIMORPH_VISIBLE void dimorph_pool_follow(int (*wanted)()) {
  __atomic_store_n(&wanted_threads, wanted, __ATOMIC_RELAXED);
}

// Sets the function that runs the handlers of signals that have come; not 0: one of them has raised an exception.
DIMORPH_VISIBLE void dimorph_pool_set_check_signals(int (*function)()) {
  __atomic_store_n(&check_signals, function, __ATOMIC_RELAXED);
}

// See dimorph::parallel_for.
DIMORPH_VISIBLE bool dimorph_pool_run(int64_t count, int64_t grain, void (*body)(void*, int64_t, int64_t),
                                      void* context) noexcept {
  Thread& thread = this_thread;
  Job* outer = thread.job;
  if (thread.error.kind != ErrorKind::none || (outer && outer->failed())) return false;
  if (count <= 0) return true;
  grain = grain < 1 ? 1 : grain < count ? grain : count;
  const int64_t most = outer ? 1 : (count - 1) / grain + 1;
  const int64_t limit = most > 1 ? dimorph_pool_threads() : 1;
  const int64_t threads = limit < most ? limit : most;
  Job job(body, context, count, grain, threads);
  thread.job = &job;
  if (outer)
    work(thread, &job, false);
  else
    run(thread, &job, static_cast<int>(threads) - 1);
  thread.job = outer;
  if (!job.failed()) return true;
  if (outer)
    outer->fail(job.error);
  else
    thread.error = job.error;
  return false;
}

DIMORPH_VISIBLE void* dimorph_thread_scratch(size_t bytes) noexcept {
  Thread& thread = this_thread;
  if (bytes == 0) bytes = 1;  // null would mean that there is no memory
  if (bytes <= thread.scratch_size) return thread.scratch;
  free(thread.scratch);
  const size_t size = (bytes + 4095) / 4096 * 4096;
  thread.scratch = size < bytes ? nullptr : aligned_alloc(4096, size);
  thread.scratch_size = thread.scratch ? size : 0;
  pthread_setspecific(scratch_key, thread.scratch);
  if (thread.scratch) return thread.scratch;
  ErrorSink error = error_of(ErrorKind::memory);
  snprintf(error.text, sizeof error.text, "no memory for the %zu bytes that a thread of the kernel needs", bytes);
  if (thread.job)
    thread.job->fail(error);
  else
    thread.error = error;
  return nullptr;
}

DIMORPH_VISIBLE void dimorph_pool_fail(const ErrorSink* error) noexcept { this_thread.job->fail(*error); }

DIMORPH_VISIBLE void dimorph_take_error(ErrorSink* sink) noexcept {
  Thread& thread = this_thread;
  if (thread.error.kind == ErrorKind::none) return;
  sink->kind = thread.error.kind;
  __builtin_memcpy(sink->text, thread.error.text, sizeof sink->text);
  thread.error.kind = ErrorKind::none;
}

DIMORPH_VISIBLE const dimorph::HostServices* dimorph_host_services() {
  static constexpr dimorph::HostServices services = {dimorph_pool_threads, dimorph_pool_run, dimorph_thread_scratch,
                                                     dimorph_pool_fail, dimorph_take_error};
  return &services;
}

}  // extern "C"
