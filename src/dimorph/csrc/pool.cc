// The thread pool that all kernels of the process share. It uses plain pthreads, so that the object needs no libstdc++.
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>

#include "dimorph/abi.h"

namespace {

constexpr int kMaxThreads = 1024;
// About 20 us: longer than the gap between two kernels of one model layer, too short for other processes to notice.
constexpr int kSpins = 500;

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

struct Pool {
  struct Worker {
    Pool* pool;
    Event start;
  };

  pthread_mutex_t in_use = PTHREAD_MUTEX_INITIALIZER;
  Event done;
  int started = 0;  // workers that exist
  Worker workers[kMaxThreads];

  // The job, written only while no worker runs.
  void (*body)(void*, int64_t) = nullptr;
  void* context = nullptr;
  int64_t count = 0;
  int64_t next = 0;
  int running = 0;

  void work() {
    for (int64_t i; (i = __atomic_fetch_add(&next, 1, __ATOMIC_RELAXED)) < count;) body(context, i);
  }
};

Pool* current_pool = nullptr;  // made at first use; null again in a forked child
int thread_limit = 0;          // 0: one for each CPU that the process may use
int available_cpus = 1;
thread_local bool inside_job = false;

pthread_key_t scratch_key;
thread_local void* scratch = nullptr;
thread_local size_t scratch_size = 0;

// A forked child has no workers, and the state that they held is whatever the fork caught, so the child leaves the pool
// behind.
void forget_pool() {
  __atomic_store_n(&current_pool, nullptr, __ATOMIC_RELAXED);
  inside_job = false;
}

__attribute__((constructor)) void set_up() {
  pthread_atfork(nullptr, nullptr, forget_pool);
  pthread_key_create(&scratch_key, free);
  cpu_set_t set;
  if (sched_getaffinity(0, sizeof set, &set) == 0) available_cpus = CPU_COUNT(&set);
}

void* worker_main(void* argument) {
  auto* worker = static_cast<Pool::Worker*>(argument);
  Pool* pool = worker->pool;
  inside_job = true;
  for (;;) {
    worker->start.wait();
    pool->work();
    if (__atomic_sub_fetch(&pool->running, 1, __ATOMIC_ACQ_REL) == 0) pool->done.raise();
  }
}

Pool* get_pool() {
  Pool* pool = __atomic_load_n(&current_pool, __ATOMIC_ACQUIRE);
  if (pool) return pool;
  // Never freed, because its threads live as long as the process.
  auto* made = static_cast<Pool*>(aligned_alloc(64, (sizeof(Pool) + 63) / 64 * 64));
  if (!made) return nullptr;
  *made = Pool();
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

}  // namespace

extern "C" {

DIMORPH_VISIBLE int32_t dimorph_pool_threads() noexcept {
  const int limit = __atomic_load_n(&thread_limit, __ATOMIC_RELAXED);
  const int threads = limit > 0 ? limit : available_cpus;
  return threads < kMaxThreads ? threads : kMaxThreads;
}

// Sets how many threads a job may use, the caller's included; 0: one for each CPU that the process may use.
DIMORPH_VISIBLE void dimorph_pool_set_threads(int32_t count) {
  __atomic_store_n(&thread_limit, count, __ATOMIC_RELAXED);
}

// See dimorph::parallel_for. If another thread's job has the pool, the caller runs its own job alone.
DIMORPH_VISIBLE void dimorph_pool_run(int64_t count, void (*body)(void*, int64_t), void* context) noexcept {
  int64_t helpers = dimorph_pool_threads() - 1;
  if (helpers > count - 1) helpers = count - 1;
  Pool* pool = helpers > 0 && !inside_job ? get_pool() : nullptr;
  if (!pool || pthread_mutex_trylock(&pool->in_use) != 0) {
    for (int64_t i = 0; i < count; ++i) body(context, i);
    return;
  }
  const int started = start_workers(pool, static_cast<int>(helpers));
  pool->body = body;
  pool->context = context;
  pool->count = count;
  pool->next = 0;
  pool->running = started;
  for (int i = 0; i < started; ++i) pool->workers[i].start.raise();
  inside_job = true;
  pool->work();
  inside_job = false;
  if (started > 0) pool->done.wait();
  pthread_mutex_unlock(&pool->in_use);
}

DIMORPH_VISIBLE void* dimorph_thread_scratch(size_t bytes) noexcept {
  if (bytes <= scratch_size) return scratch;
  free(scratch);
  scratch_size = (bytes + 4095) / 4096 * 4096;
  scratch = aligned_alloc(4096, scratch_size);
  pthread_setspecific(scratch_key, scratch);
  if (!scratch) {
    fprintf(stderr, "dimorph: no memory for %zu bytes of a thread's scratch space\n", bytes);
    abort();
  }
  return scratch;
}

DIMORPH_VISIBLE const dimorph::HostServices* dimorph_host_services() {
  static constexpr dimorph::HostServices services = {dimorph_pool_threads, dimorph_pool_run, dimorph_thread_scratch};
  return &services;
}

}  // extern "C"
