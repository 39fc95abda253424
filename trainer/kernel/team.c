// A team of threads that share the blocks of a batch.
//
// They are plain threads of C, not goroutines, and an op is one call: with a
// goroutine for each thread, Go's monitor thread wakes some thousand times a
// second to look after threads that are in C, on the very cores that compute.
// Between two ops a thread spins for a while before it sleeps. Ops follow each
// other within fractions of a millisecond, and a core that has slept starts
// slowly, above all a virtual one.
#pragma GCC optimize("O3")
#include "igc.h"
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <time.h>

struct igc_team {
	int threads, isa;
	float *scratch;  // each floats for each thread
	long each;
	pthread_t *helpers;

	// The op in progress.
	void (*f)(const igc_team *, long i, int thread);
	const void *calls;
	long n;
	atomic_long next; // the first block that nobody has taken

	atomic_ulong started; // ops so far
	atomic_ulong finished; // helpers that finished an op, over all ops

	// For those who sleep.
	pthread_mutex_t lock;
	pthread_cond_t wake;
	int stop;
};

typedef struct {
	igc_team *team;
	int thread;
} helper;

static double seconds(void) {
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec + 1e-9 * t.tv_nsec;
}

// await waits until *p is no longer old. It spins for 2 ms: longer than what
// lies between two ops, short enough to cost nothing where a training ends.
// After 50 µs it offers its core to others, who may be those it waits for.
static void await(igc_team *t, atomic_ulong *p, unsigned long old) {
	double start = seconds(), waited = 0;
	while (waited < 2e-3) {
		for (int i = 0; i < 100; i++) {
			if (atomic_load_explicit(p, memory_order_acquire) != old) return;
#if defined(__x86_64__)
			__builtin_ia32_pause();
#endif
		}
		waited = seconds() - start;
		if (waited > 50e-6) sched_yield();
	}
	pthread_mutex_lock(&t->lock);
	while (atomic_load(p) == old) pthread_cond_wait(&t->wake, &t->lock);
	pthread_mutex_unlock(&t->lock);
}

// add changes *p and wakes those who sleep on it.
static void add(igc_team *t, atomic_ulong *p) {
	pthread_mutex_lock(&t->lock);
	atomic_fetch_add(p, 1);
	pthread_cond_broadcast(&t->wake);
	pthread_mutex_unlock(&t->lock);
}

// work takes blocks until none is left. Which thread takes which does not
// matter to the results: no sum crosses blocks.
static void work(igc_team *t, int thread) {
	for (long i; (i = atomic_fetch_add(&t->next, 1)) < t->n;) t->f(t, i, thread);
}

static void *help(void *arg) {
	helper h = *(helper *)arg;
	free(arg);
	for (unsigned long op = 0;; op++) {
		await(h.team, &h.team->started, op);
		if (h.team->stop) return 0;
		work(h.team, h.thread);
		add(h.team, &h.team->finished);
	}
}

igc_team *igc_team_new(int isa, int threads, float *scratch, long each) {
	igc_team *t = calloc(1, sizeof *t);
	if (!t) return 0;
	t->isa = isa, t->threads = 1, t->scratch = scratch, t->each = each;
	t->helpers = calloc(threads, sizeof *t->helpers);
	pthread_mutex_init(&t->lock, 0);
	pthread_cond_init(&t->wake, 0);
	if (!t->helpers) return igc_team_free(t), (igc_team *)0;
	for (; t->threads < threads; t->threads++) {
		helper *h = malloc(sizeof *h);
		if (h) *h = (helper){t, t->threads};
		if (!h || pthread_create(&t->helpers[t->threads], 0, help, h)) return free(h), igc_team_free(t), (igc_team *)0;
	}
	return t;
}

void igc_team_free(igc_team *t) {
	t->stop = 1;
	add(t, &t->started);
	for (int i = 1; i < t->threads; i++) pthread_join(t->helpers[i], 0);
	pthread_cond_destroy(&t->wake);
	pthread_mutex_destroy(&t->lock);
	free(t->helpers);
	free(t);
}

static void run(igc_team *t, void (*f)(const igc_team *, long, int), const void *calls, long n) {
	t->f = f, t->calls = calls, t->n = n;
	if (n == 1 || t->threads == 1) {
		for (long i = 0; i < n; i++) f(t, i, 0);
	} else {
		atomic_store(&t->next, 0);
		unsigned long finished = atomic_load(&t->finished), all = finished + t->threads - 1;
		add(t, &t->started);
		work(t, 0);
		while ((finished = atomic_load(&t->finished)) != all) await(t, &t->finished, finished);
	}
	t->calls = 0; // they are the caller's again
}

#if defined(__x86_64__)
#define CHOOSE(t, name, ...) ((t)->isa == 2 ? name##_avx512(__VA_ARGS__) : (t)->isa == 1 ? name##_avx2(__VA_ARGS__) : name##_portable(__VA_ARGS__))
#else
#define CHOOSE(t, name, ...) (name##_portable(__VA_ARGS__))
#endif

#define CONV(name)                                                      \
	static void name##_one(const igc_team *t, long i, int thread) {     \
		igc_conv a = ((const igc_conv *)t->calls)[i];                   \
		a.scratch = t->scratch + thread * t->each;                      \
		CHOOSE(t, name, &a);                                            \
	}                                                                   \
	void name(igc_team *t, const igc_conv *calls, long n) { run(t, name##_one, calls, n); }

CONV(igc_conv_forward)
CONV(igc_conv_backward)

#define HEAD(name)                                                      \
	static void name##_one(const igc_team *t, long i, int thread) {     \
		CHOOSE(t, name, (const igc_head *)t->calls + i);                \
	}                                                                   \
	void name(igc_team *t, const igc_head *calls, long n) { run(t, name##_one, calls, n); }

HEAD(igc_pool_forward)
HEAD(igc_pool_backward)
HEAD(igc_linear_forward)
HEAD(igc_linear_backward)

static void xent_one(const igc_team *t, long i, int thread) { igc_xent_block((const igc_head *)t->calls + i); }
void igc_xent(igc_team *t, const igc_head *calls, long n) { run(t, xent_one, calls, n); }

static void probe_one(const igc_team *t, long i, int thread) { CHOOSE(t, igc_probe, (igc_probe *)t->calls + i); }
void igc_probe_all(igc_team *t, igc_probe *calls, long n) { run(t, probe_one, calls, n); }

void igc_row(igc_team *t, const igc_conv *call, int micro, long n) {
	igc_conv a = *call;
	a.scratch = t->scratch;
	CHOOSE(t, igc_row, &a, micro, n);
}
