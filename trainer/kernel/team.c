// A team of threads that share the blocks of a batch.
//
// They are threads of C, not goroutines, and an op is one call. With a goroutine for
// each thread, Go's monitor thread would wake some thousand times a second to check
// the threads that are in C, on the cores that compute. Between two ops a thread
// spins for a while before it sleeps: ops follow each other within fractions of a
// millisecond, and a core that has slept, above all a virtual one, starts slowly.
#pragma GCC optimize("O3")
#include "igc.h"
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <time.h>

// job computes block i of an op.
typedef void (*job)(const igc_team *, const void *calls, long i, int thread);

struct igc_team {
	int threads, isa;
	int native; // vdpbf16ps multiplies bfloat16
	int amx;    // AMX multiplies it in the precision IGC_AMX
	float *scratch;  // each floats for each thread
	long each;
	pthread_t *helpers;

	// The op in progress. The fields are atomic because a late helper reads them
	// while the next op is written; see work().
	_Atomic(job) f;
	_Atomic(const void *) calls;
	atomic_long n;
	atomic_ulong next; // its number, and the first block that no thread has taken
	atomic_ulong done; // how many of its blocks are finished

	atomic_ulong started; // ops so far: the number of the one in progress

	// For threads that sleep.
	pthread_mutex_t lock;
	pthread_cond_t wake;
	atomic_int stop;
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

// await waits until *p differs from old. It spins for 2 ms: longer than the time
// between two ops, but short enough to cost little at the end of a training. After
// 50 µs it yields its core to other threads, which may be those it waits for.
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

// add increments *p and wakes the threads that wait for it.
static void add(igc_team *t, atomic_ulong *p) {
	pthread_mutex_lock(&t->lock);
	atomic_fetch_add(p, 1);
	pthread_cond_broadcast(&t->wake);
	pthread_mutex_unlock(&t->lock);
}

// The bits of next that number the block; the others are the op's number.
#define BLOCK_BITS 24
#define CLOSED ((1ul << BLOCK_BITS) - 1) // larger than the number of any block

// work takes blocks until none is left and returns the number of the op. The results
// do not depend on which thread takes a block: no sum crosses blocks. An op is over
// when its blocks are finished, even if some helpers never came. So a helper may use
// what it read of an op only after it takes a block of the same op, which is not over
// before this block is finished.
static unsigned long work(igc_team *t, int thread) {
	unsigned long next = atomic_load(&t->next);
	for (;;) {
		const long i = next & CLOSED;
		const job f = atomic_load(&t->f);
		const void *calls = atomic_load(&t->calls);
		if (i >= atomic_load(&t->n)) return next >> BLOCK_BITS;
		if (!atomic_compare_exchange_weak(&t->next, &next, next + 1)) continue;
		f(t, calls, i, thread);
		add(t, &t->done);
		next = atomic_load(&t->next);
	}
}

static void *help(void *arg) {
	helper h = *(helper *)arg;
	free(arg);
	for (unsigned long op = 0;; op = work(h.team, h.thread)) {
		await(h.team, &h.team->started, op);
		if (h.team->stop) return 0;
	}
}

igc_team *igc_team_new(int isa, int threads, float *scratch, long each) {
	igc_team *t = calloc(1, sizeof *t);
	if (!t) return 0;
	t->isa = isa, t->native = isa == 2 && igc_has_native(), t->amx = t->native && igc_has_amx();
	t->threads = 1, t->scratch = scratch, t->each = each;
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

void igc_team_emulate(igc_team *t, long bf16) {
	t->amx = 0;
	if (bf16 == IGC_BF16) t->native = 0;
}
int igc_team_native(const igc_team *t, long bf16) { return bf16 == IGC_AMX ? t->amx : t->native; }

void igc_team_free(igc_team *t) {
	t->stop = 1;
	add(t, &t->started);
	for (int i = 1; i < t->threads; i++) pthread_join(t->helpers[i], 0);
	pthread_cond_destroy(&t->wake);
	pthread_mutex_destroy(&t->lock);
	free(t->helpers);
	free(t);
}

static void run(igc_team *t, job f, const void *calls, long n) {
	if (n == 1 || t->threads == 1) {
		for (long i = 0; i < n; i++) f(t, calls, i, 0);
		return;
	}
	const unsigned long op = atomic_load(&t->started);
	atomic_store(&t->next, op << BLOCK_BITS | CLOSED); // no thread takes a block while the op is written
	atomic_store(&t->f, f);
	atomic_store(&t->calls, calls);
	atomic_store(&t->n, n);
	atomic_store(&t->done, 0);
	atomic_store(&t->next, (op + 1) << BLOCK_BITS);
	add(t, &t->started);
	work(t, 0);
	for (unsigned long done; (done = atomic_load(&t->done)) != (unsigned long)n;) await(t, &t->done, done);
}

#if defined(__x86_64__)
#define CHOOSE(t, name, ...) \
	((t)->isa == 2 ? name##_avx512(__VA_ARGS__) : \
	 (t)->isa == 1 ? name##_avx2(__VA_ARGS__) : name##_portable(__VA_ARGS__))
#define CHOOSE_BF16(t, name, ...) \
	((t)->native ? name##_native(__VA_ARGS__) : \
	 (t)->isa >= 1 ? name##_avx2(__VA_ARGS__) : name##_portable(__VA_ARGS__))
#else
#define CHOOSE(t, name, ...) (name##_portable(__VA_ARGS__))
#define CHOOSE_BF16 CHOOSE
#endif

// CALL runs igc_<op> on its arguments, or with bf16 igc_bf16_<op>.
#define CALL(t, bf16, op, ...) \
	((bf16) ? CHOOSE_BF16(t, igc_bf16_##op, __VA_ARGS__) : CHOOSE(t, igc_##op, __VA_ARGS__))

#define CONV(op) \
	static void op##_one(const igc_team *t, const void *calls, long i, int thread) { \
		igc_conv a = ((const igc_conv *)calls)[i]; \
		a.scratch = t->scratch + thread * t->each; \
		a.amx = a.bf16 == IGC_AMX && t->amx; \
		CALL(t, a.bf16, op, &a); \
	} \
	void igc_##op(igc_team *t, const igc_conv *calls, long n) { run(t, op##_one, calls, n); }

CONV(conv_forward)
CONV(conv_backward)

#define OP(op, type)                                                                       \
	static void op##_one(const igc_team *t, const void *calls, long i, int thread) {       \
		const type *a = (const type *)calls + i;                                       \
		CALL(t, a->bf16, op, a);                                                       \
	}                                                                                      \
	void igc_##op(igc_team *t, const type *calls, long n) { run(t, op##_one, calls, n); }

OP(pool_forward, igc_head)
OP(pool_backward, igc_head)
OP(linear_forward, igc_head)
OP(linear_backward, igc_head)
OP(add_forward, igc_add)
OP(add_backward, igc_add)
OP(max_forward, igc_max)
OP(max_backward, igc_max)

static void sum_one(const igc_team *t, const void *calls, long i, int thread) {
	const igc_sum *s = (const igc_sum *)calls + i;
	CALL(t, s->bf16, sum, s->to, s->from, s->n);
}
void igc_sums(igc_team *t, const igc_sum *calls, long n) { run(t, sum_one, calls, n); }

static void xent_one(const igc_team *t, const void *calls, long i, int thread) {
	igc_xent_block((const igc_head *)calls + i);
}
void igc_xent(igc_team *t, const igc_head *calls, long n) { run(t, xent_one, calls, n); }

static void probe_one(const igc_team *t, const void *calls, long i, int thread) {
	igc_probe *p = (igc_probe *)calls + i;
	p->amx = p->bf16 == IGC_AMX && t->amx;
	CALL(t, p->bf16, probe, p);
}
void igc_probe_all(igc_team *t, igc_probe *calls, long n) { run(t, probe_one, calls, n); }

static void row_one(const igc_team *t, const void *calls, long i, int thread) {
	igc_rows r = ((const igc_rows *)calls)[i];
	r.conv.scratch = t->scratch + thread * t->each;
	r.conv.amx = r.conv.bf16 == IGC_AMX && t->amx;
	CALL(t, r.conv.bf16, row, &r.conv, r.micro, r.n);
}
void igc_row(igc_team *t, const igc_rows *calls, long n) { run(t, row_one, calls, n); }
