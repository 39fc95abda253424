//go:build ignore

/* Kernels and their threads: the fibers of a block, barriers, exchanges between lanes, and what is wrong there. */
#include "threads.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#if defined __x86_64__ && !defined IGC_UCONTEXT
#define IGC_SWITCH
#else
#include <ucontext.h> /* everywhere, but with a call of the system for each switch */
#endif

#include <algorithm>
#include <vector>

uint3 threadIdx, blockIdx;
dim3 blockDim, gridDim;

namespace igc {

static const struct { const char *kernel; unsigned registers; } resources[] = {
#include "registers.h" /* by build.sh, of the kernels' resources.txt */
	{nullptr, 0},
};

Kernel *kernels;
Kernel::Kernel(const char *name, void (*run)(const void *), size_t bytes, unsigned threads)
	: name(name), run(run), bytes(bytes), threads(threads), registers(0), next(kernels) {
	for (auto *r = resources; r->kernel; r++)
		if (!strcmp(r->kernel, name)) registers = r->registers;
	kernels = this;
}

unsigned registers_of_block(const Kernel *k, unsigned threads) {
	return (threads + WARP - 1) / WARP * WARP * ((k->registers + 7) / 8 * 8);
}

alignas(128) static unsigned char shared_memory[SHARED_MAX + GUARD];
unsigned char *shared = shared_memory;

/* A stack, and where its thread stopped. */
struct Fiber {
	char *top;
#ifdef IGC_SWITCH
	void *sp;
#else
	ucontext_t context;
#endif
};

} // namespace igc

#ifdef IGC_SWITCH
/* Saves what a function must preserve and continues on the other stack: no call of the system, unlike swapcontext. It
 * jumps, as a return that goes elsewhere than its call came from is always predicted wrongly. */
extern "C" void igc_switch(void **save, void *load) __attribute__((visibility("hidden")));
__asm__(R"(
	.text
	.p2align 4
	.globl igc_switch
	.hidden igc_switch
	.type igc_switch, @function
igc_switch:
	pushq %rbp
	pushq %rbx
	pushq %r12
	pushq %r13
	pushq %r14
	pushq %r15
	movq %rsp, (%rdi)
	movq %rsi, %rsp
	popq %r15
	popq %r14
	popq %r13
	popq %r12
	popq %rbx
	popq %rbp
	popq %rcx
	jmp *%rcx
	.size igc_switch, .-igc_switch
)");
#endif

namespace igc {

enum State : unsigned char { FRESH, READY, IN_BLOCK, IN_WARP, ENDED };

struct Thread {
	uint3 index;
	unsigned number;
	State state;
	Fiber *fiber;
	const char *file; /* where it waits */
	int line;
	Exchange what;
	uint mask;
	int operand, width;
	uint64_t value;
};

struct Warp { uint alive, waiting; };

/* The launch that runs. */
static struct {
	const Kernel *kernel;
	const void *args;
	unsigned threads;
	unsigned order[MAX_THREADS]; /* thread numbers, warp by warp */
	unsigned fresh;              /* how many of order were started */
	unsigned live, arrived;      /* threads that have not ended; those of them in wait_block */
	bool failed;
} launch;

static Thread threads[MAX_THREADS];
static Warp warps[MAX_THREADS / WARP];
static Thread *running; /* null: the scheduler */
static std::vector<Fiber *> fibers, idle;
#ifdef IGC_SWITCH
static void *scheduler;
#else
static ucontext_t scheduler;
#endif

static void leave() {
#ifdef IGC_SWITCH
	igc_switch(&running->fiber->sp, scheduler);
#else
	swapcontext(&running->fiber->context, &scheduler);
#endif
}

static void report(const Thread *t, const char *format, va_list list) {
	fprintf(stderr, "emulated GPU: kernel %s, block (%u,%u,%u)", launch.kernel->name, blockIdx.x, blockIdx.y, blockIdx.z);
	if (t) fprintf(stderr, ", thread (%u,%u,%u)", t->index.x, t->index.y, t->index.z);
	fputs(": ", stderr);
	vfprintf(stderr, format, list);
	fputc('\n', stderr);
	launch.failed = true;
}

__attribute__((format(printf, 2, 3))) static void report(const Thread *t, const char *format, ...) {
	va_list list;
	va_start(list, format);
	report(t, format, list);
	va_end(list);
}

/* Ends the launch if a report was made; in a fiber it does not return then. */
static void stop_if_failed() {
	if (launch.failed && running) leave();
}

void fail(const char *what, const char *file, int line) { wrong("%s at %s:%d", what, file, line); }

void wrong(const char *format, ...) {
	va_list list;
	va_start(list, format);
	report(running, format, list);
	va_end(list);
	stop_if_failed();
}

uint3 index_of(unsigned thread) { return threads[thread].index; }

static bool same_place(const Thread *s, const Thread *t) {
	return s->line == t->line && (s->file == t->file || !strcmp(s->file, t->file));
}

/* All that live are in wait_block. That they wait in different lines would be undefined on hardware. */
static void release_block() {
	const Thread *first = nullptr;
	for (unsigned i = 0; i < launch.threads; i++) {
		Thread *t = threads + i;
		if (t->state != IN_BLOCK) continue;
		if (!first) first = t;
		if (!same_place(first, t)) {
			report(t, "waits in __syncthreads at %s:%d, but thread (%u,%u,%u) in that at %s:%d", t->file, t->line,
				first->index.x, first->index.y, first->index.z, first->file, first->line);
			break;
		}
		t->state = READY;
	}
	launch.arrived = 0;
	met_in_block();
	stop_if_failed();
}

void wait_block(const char *file, int line) {
	Thread *t = running;
	t->state = IN_BLOCK;
	t->file = file;
	t->line = line;
	if (++launch.arrived == launch.live)
		release_block();
	else
		leave();
}

/* All lanes gave their Fragments: their sums change. */
static void multiply(const uint64_t (&lanes)[WARP]) {
	float a[8][16], b[8][8];
	auto of = [&](int lane) { return reinterpret_cast<const Fragments *>(lanes[lane]); };
	for (int lane = 0; lane < WARP; lane++) {
		for (int i = 0; i < 4; i++) a[lane % 4 + i / 2 * 4][lane / 4 + i % 2 * 8] = __uint_as_float(of(lane)->a[i]);
		for (int i = 0; i < 2; i++) b[lane % 4 + i * 4][lane / 4] = __uint_as_float(of(lane)->b[i]);
	}
	for (int lane = 0; lane < WARP; lane++)
		for (int i = 0; i < 4; i++) {
			const int row = lane / 4 + i / 2 * 8, column = lane % 4 * 2 + i % 2;
			float sum = of(lane)->sums[i];
			for (int k = 0; k < 8; k++) sum = fmaf(a[k][row], b[k][column], sum);
			of(lane)->sums[i] = sum;
		}
}

/* The lanes of mask all wait: each gets its result in value. */
static void release_lanes(Warp *w, Thread *lanes, uint mask) {
	uint64_t values[WARP], ballot = 0;
	uint group = mask & w->alive;
	const Thread *first = lanes + __builtin_ctz(group);
	for (uint i = 0; i < WARP; i++) {
		if (!(group >> i & 1)) {
			values[i] = ~uint64_t(0); /* undefined: a NaN */
			continue;
		}
		Thread *t = lanes + i;
		if (t->mask != mask || !same_place(first, t) || t->width != first->width || t->what != first->what) {
			report(t, "exchanges with mask %08x at %s:%d, but lane %d with mask %08x at %s:%d", t->mask, t->file, t->line,
				int(first - lanes), first->mask, first->file, first->line);
			stop_if_failed();
			return;
		}
		values[i] = t->value;
		if (t->value) ballot |= uint64_t(1) << i;
	}
	if (first->what == MATRIX) {
		if (group != ~0u) {
			report(first, "igc_mma_tf32 at %s:%d, but only lanes %08x have not ended", first->file, first->line, group);
			stop_if_failed();
			return;
		}
		multiply(values);
	}
	for (int i = 0; i < WARP; i++) {
		if (!(group >> i & 1)) continue;
		Thread *t = lanes + i;
		int start = i & -t->width, from = i, x = t->operand;
		switch (t->what) {
		case FROM: from = start | (x & (t->width - 1)); break;
		case XOR: from = (i ^ x) < start + t->width ? i ^ x : i; break;
		case DOWN: from = i + x < start + t->width ? i + x : i; break;
		case UP: from = i - x >= start ? i - x : i; break;
		case BALLOT: case SYNC: case MATRIX: break;
		}
		t->value = t->what == BALLOT ? ballot : values[from & (WARP - 1)];
		t->state = READY;
	}
	w->waiting &= ~group;
	if (first->what == SYNC) met_in_warp(lanes->number, group);
}

static bool complete(const Warp *w, uint mask) { return !(mask & w->alive & ~w->waiting); }

uint64_t exchange(Exchange what, uint mask, uint64_t value, int operand, int width, const char *file, int line) {
	Thread *t = running;
	uint lane = t->number % WARP;
	Warp *w = warps + t->number / WARP;
	t->file = file;
	t->line = line;
	if (!(mask >> lane & 1) || width < 1 || width > WARP || (width & (width - 1))) {
		report(t, "exchange with mask %08x and width %d at %s:%d", mask, width, file, line);
		stop_if_failed();
	}
	t->state = IN_WARP;
	t->what = what;
	t->mask = mask;
	t->value = value;
	t->operand = operand;
	t->width = width;
	w->waiting |= 1u << lane;
	if (complete(w, mask))
		release_lanes(w, t - lane, mask);
	else
		leave();
	return t->value;
}

static void choose(Thread *t) {
	threadIdx = t->index;
	running = t;
	now_runs(t->number);
}

static void start(Thread *t, Fiber *f) {
	t->fiber = f;
	t->state = READY;
	choose(t);
	launch.fresh++;
}

/* A thread ended: whoever waited only for it goes on. */
static void end(Thread *t) {
	Warp *w = warps + t->number / WARP;
	t->state = ENDED;
	launch.live--;
	w->alive &= ~(1u << t->number % WARP);
	if (w->waiting) {
		Thread *lanes = t - t->number % WARP;
		for (int i = 0; i < WARP; i++)
			if (w->waiting >> i & 1 && lanes[i].mask >> t->number % WARP & 1 && complete(w, lanes[i].mask))
				release_lanes(w, lanes, lanes[i].mask);
	}
	if (launch.live && launch.arrived == launch.live) release_block();
}

/* What a fiber does: threads one after another, as long as none before them waits. So without barriers a block is a loop
 * on one stack. */
static void work() {
	for (;;) {
		launch.kernel->run(launch.args);
		end(running);
		if (launch.fresh == launch.threads || launch.fresh != launch.threads - launch.live) break;
		start(threads + launch.order[launch.fresh], running->fiber);
	}
	leave();
	abort(); /* an ended thread is not continued */
}

static Fiber *idle_fiber() {
	if (idle.empty()) {
		char *memory = (char *)mmap(nullptr, STACK, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
		if (memory == MAP_FAILED || mprotect(memory, 4096, PROT_NONE)) return nullptr;
		Fiber *f = new Fiber{};
		/* Not all at the same place in their page, where they would push one another out of the cache. */
		f->top = memory + STACK - fibers.size() % 61 * 64;
		fibers.push_back(f);
		idle.push_back(f);
	}
	Fiber *f = idle.back();
	idle.pop_back();
	return f;
}

static void enter(Thread *t) {
	if (t->state == FRESH) {
		Fiber *f = idle_fiber();
		if (!f) {
			report(t, "no memory for its stack");
			return;
		}
		start(t, f);
#ifdef IGC_SWITCH
		void **sp = (void **)f->top;
		*--sp = nullptr;      /* work has no caller */
		*--sp = (void *)work; /* where igc_switch returns to */
		sp -= 6;              /* its registers */
		memset(sp, 0, 6 * sizeof *sp);
		f->sp = sp;
#else
		getcontext(&f->context);
		f->context.uc_stack.ss_sp = f->top - STACK / 2;
		f->context.uc_stack.ss_size = STACK / 2;
		makecontext(&f->context, work, 0);
#endif
	} else {
		choose(t);
	}
#ifdef IGC_SWITCH
	igc_switch(&scheduler, t->fiber->sp);
#else
	swapcontext(&scheduler, &t->fiber->context);
#endif
	if (running->state == ENDED) idle.push_back(running->fiber);
	running = nullptr;
}

static void run_block() {
	unsigned n = launch.threads;
	launch.fresh = launch.arrived = 0;
	launch.live = n;
	for (unsigned i = 0; i < n; i++) threads[i].state = FRESH;
	for (unsigned i = 0; i < n; i += WARP) warps[i / WARP] = {n - i < WARP ? (1u << (n - i)) - 1 : ~0u, 0};
	while (launch.live) {
		bool any = false;
		for (unsigned first = 0, last; first < n && launch.live; first = last) {
			unsigned warp = launch.order[first] / WARP;
			last = first + std::min<unsigned>(WARP, n - warp * WARP);
			/* A warp as long as it can, for its data is in the cache. */
			for (bool again = true; again;) {
				again = false;
				for (unsigned i = first; i < last && launch.live; i++) {
					Thread *t = threads + launch.order[i];
					if (t->state != FRESH && t->state != READY) continue;
					enter(t);
					if (launch.failed) return;
					any = again = true;
				}
			}
		}
		if (any || !launch.live) continue;
		const Thread *lane = nullptr, *block = nullptr; /* one of each kind that waits */
		for (unsigned i = 0; i < n; i++) {
			if (threads[i].state == IN_BLOCK && !block) block = threads + i;
			if (threads[i].state == IN_WARP && !lane) lane = threads + i;
		}
		if (block)
			report(lane, "waits for lanes %08x at %s:%d that never come; thread (%u,%u,%u) waits in __syncthreads at %s:%d",
				lane->mask, lane->file, lane->line, block->index.x, block->index.y, block->index.z, block->file, block->line);
		else
			report(lane, "waits for lanes %08x at %s:%d that never come", lane->mask, lane->file, lane->line);
		return;
	}
}

uint64_t random_number(uint64_t &s) {
	if (!s) {
		const char *text = getenv("IGC_EMULATED_SEED");
		s = (text ? strtoull(text, nullptr, 10) : 0) * 0x9E3779B97F4A7C15u + 88172645463325252u;
		if (!s) s = 1;
	}
	s ^= s << 13;
	s ^= s >> 7;
	s ^= s << 17;
	return s;
}

static uint64_t mixed; /* the state of the random orders */

template <class T> static void mix(T *p, size_t n) {
	for (; n > 1; n--) std::swap(p[n - 1], p[random_number(mixed) % n]);
}

bool guarded(const unsigned char *p, size_t n) {
	for (size_t i = 0; i < n; i++)
		if (p[i] != 0xFF) return false;
	return true;
}

static void order_threads(bool reverse, bool random) {
	unsigned n = launch.threads, count = (n + WARP - 1) / WARP, k = 0;
	unsigned order[MAX_THREADS / WARP];
	for (unsigned i = 0; i < count; i++) order[i] = reverse ? count - 1 - i : i;
	if (random) mix(order, count);
	for (unsigned i = 0; i < count; i++) {
		unsigned start = order[i] * WARP, lanes = std::min<unsigned>(WARP, n - start);
		for (unsigned j = 0; j < lanes; j++) launch.order[k + j] = start + (reverse ? lanes - 1 - j : j);
		if (random) mix(launch.order + k, lanes);
		k += lanes;
	}
}

bool run(const Kernel *kernel, const void *args, dim3 grid, dim3 block, size_t shared_bytes) {
	launch.kernel = kernel;
	launch.args = args;
	launch.threads = block.x * block.y * block.z;
	launch.failed = false;
	gridDim = grid;
	blockDim = block;
	begin_launch(args, kernel->bytes);
	for (unsigned i = 0; i < launch.threads; i++) {
		threads[i].number = i;
		threads[i].index = {i % block.x, i / block.x % block.y, i / block.x / block.y};
	}
	const char *wanted = getenv("IGC_EMULATED_ORDER");
	bool reverse = wanted && !strcmp(wanted, "reverse"), random = wanted && !strcmp(wanted, "random");
	size_t blocks = size_t(grid.x) * grid.y * grid.z;
	std::vector<size_t> order;
	if (random) {
		order.resize(blocks);
		for (size_t i = 0; i < blocks; i++) order[i] = i;
		mix(order.data(), blocks);
	}
	order_threads(reverse, random);
	for (size_t i = 0; i < blocks && !launch.failed; i++) {
		size_t b = random ? order[i] : reverse ? blocks - 1 - i : i;
		blockIdx = {uint(b % grid.x), uint(b / grid.x % grid.y), uint(b / grid.x / grid.y)};
		if (random && i) order_threads(reverse, random);
		memset(shared_memory, 0xFF, shared_bytes + GUARD);
		begin_block(launch.threads, shared_bytes);
		run_block();
		if (!launch.failed && !guarded(shared_memory + shared_bytes, GUARD))
			report(nullptr, "writes behind its %zu bytes of shared memory", shared_bytes);
	}
	if (launch.failed) idle = fibers; /* whatever is on the stacks is forgotten */
	return !launch.failed;
}

} // namespace igc
