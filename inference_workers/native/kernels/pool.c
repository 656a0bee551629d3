#define _GNU_SOURCE
#include "pool.h"

#include <immintrin.h>
#include <limits.h>
#include <linux/futex.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { MAX_THREADS = 256, SPINS = 6000 };

/* `round` in the upper half, the next piece in the lower: a late thread of an earlier round can
   claim nothing of this one. */
static _Atomic uint64_t state;
static _Atomic uint32_t round_number, sleepers;
static _Atomic long finished;
static _Atomic(lm_task) job_task;
static _Atomic(void *) job_argument;
static _Atomic long job_pieces;

static pthread_mutex_t one_at_a_time = PTHREAD_MUTEX_INITIALIZER;
static int wanted = 1, started;
static pid_t owner;

static void futex(_Atomic uint32_t *word, int operation, uint32_t value) {
  syscall(SYS_futex, word, operation | FUTEX_PRIVATE_FLAG, value, NULL, NULL, 0);
}

static void work(uint32_t number) {
  lm_task task = atomic_load_explicit(&job_task, memory_order_relaxed);
  void *argument = atomic_load_explicit(&job_argument, memory_order_relaxed);
  long pieces = atomic_load_explicit(&job_pieces, memory_order_relaxed);
  uint64_t seen = atomic_load_explicit(&state, memory_order_acquire);
  for (;;) {
    if ((uint32_t)(seen >> 32) != number || (long)(uint32_t)seen >= pieces) return;
    if (!atomic_compare_exchange_weak_explicit(&state, &seen, seen + 1, memory_order_acq_rel,
                                               memory_order_acquire))
      continue;
    task(argument, (long)(uint32_t)seen);
    atomic_fetch_add_explicit(&finished, 1, memory_order_release);
    seen = atomic_load_explicit(&state, memory_order_acquire);
  }
}

static void *helper(void *first) {
  uint32_t last = (uint32_t)(uintptr_t)first;
  for (;;) {
    int spins = 0;
    while (atomic_load_explicit(&round_number, memory_order_acquire) == last) {
      if (++spins < SPINS) {
        _mm_pause();
        continue;
      }
      atomic_fetch_add(&sleepers, 1);
      futex(&round_number, FUTEX_WAIT, last);
      atomic_fetch_sub(&sleepers, 1);
    }
    last = atomic_load_explicit(&round_number, memory_order_acquire);
    work(last);
  }
  return NULL;
}

void lm_set_threads(int threads) {
  pthread_mutex_lock(&one_at_a_time);
  wanted = threads < 1 ? 1 : threads > MAX_THREADS ? MAX_THREADS : threads;
  pthread_mutex_unlock(&one_at_a_time);
}

/* Threads are never ended, only left asleep; a forked child has none of its parent's. */
static void ensure_helpers(void) {
  if (owner != getpid()) {
    owner = getpid();
    started = 0;
  }
  while (started < wanted - 1) {
    pthread_t thread;
    uintptr_t now = atomic_load(&round_number);
    if (pthread_create(&thread, NULL, helper, (void *)now)) return;
    pthread_detach(thread);
    started++;
  }
}

void lm_parallel(lm_task task, void *argument, long pieces) {
  if (pieces <= 1 || wanted < 2 || pthread_mutex_trylock(&one_at_a_time)) {
    for (long i = 0; i < pieces; i++) task(argument, i);
    return;
  }
  ensure_helpers();
  uint32_t number = atomic_load_explicit(&round_number, memory_order_relaxed) + 1;
  /* No piece of the new round can be claimed before all of its fields are there. */
  atomic_store_explicit(&state, ((uint64_t)number << 32) | UINT_MAX, memory_order_release);
  atomic_store_explicit(&job_task, task, memory_order_relaxed);
  atomic_store_explicit(&job_argument, argument, memory_order_relaxed);
  atomic_store_explicit(&job_pieces, pieces, memory_order_relaxed);
  atomic_store_explicit(&finished, 0, memory_order_relaxed);
  atomic_store_explicit(&state, (uint64_t)number << 32, memory_order_release);
  atomic_store(&round_number, number);
  if (atomic_load(&sleepers)) futex(&round_number, FUTEX_WAKE, INT_MAX);
  work(number);
  for (long spins = 0; atomic_load_explicit(&finished, memory_order_acquire) < pieces;)
    if (++spins < SPINS) _mm_pause();
    else syscall(SYS_sched_yield);
  pthread_mutex_unlock(&one_at_a_time);
}
