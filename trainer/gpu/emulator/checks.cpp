//go:build ignore

/* What the checked library sees beyond threads.cpp. Its kernels are compiled with -fsanitize=thread,undefined, and the
 * functions that such code calls are here in place of the compiler's libraries: each read and write of a kernel comes to
 * access(), each case of undefined behaviour to undefined().
 *
 * Every word of memory remembers who wrote it last and two of those who read it. A second access by another thread is a
 * race, if one of the two writes and nothing orders them. What orders them, as CUDA has it:
 *
 *   one launch after another, and __syncthreads among the threads of a block;
 *   __syncwarp among the lanes in its mask (shuffles and ballots do not);
 *   a counter: a thread that has called __threadfence, or whose block has since then met in __syncthreads, adds to it
 *   atomically. Whoever adds to it later may write what was used before that fence, and read it by __ldcg, as volatile, or
 *   after a __threadfence of its own: other reads may find an old line in the first cache. The threads of its block may
 *   do so after a __syncthreads. */
#include "threads.h"

#ifdef IGC_CHECKED
#include <dlfcn.h>
#include <link.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>

#include <algorithm>
#include <map>
#include <string>
#include <vector>

namespace igc {

unsigned me;

/* An access: the time, the thread in its block, and which bytes of the word; 0 for none. Blocks run one after another, so
 * the time tells the block too. */
using Access = uint64_t;
enum : Access { BYTES = 0xF, COUNTER = 0x10, THREAD = 0x3FF00, WHO = ~Access(0xFF) };
static uint32_t time_of(Access x) { return uint32_t(x >> 32); }
static unsigned thread_of(Access x) { return unsigned((x & THREAD) >> 8); }

struct Word { Access write, read, other; }; /* read is the last one, other one of another thread */

static void *map_memory(size_t bytes) {
	void *p = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (p == MAP_FAILED) {
		fprintf(stderr, "emulated GPU: no memory for the checks; run without IGC_EMULATED_CHECKED\n");
		abort();
	}
	return p;
}

/* Memory of the device, or of the host where the device can use it. */
struct Piece {
	uintptr_t base;
	size_t bytes;
	Word *words;
};

enum { PAGE_BITS = 16, ADDRESS_BITS = 47 };
static_assert(ALIGN == 1 << PAGE_BITS, "a page has one piece");
static Piece **pages = (Piece **)map_memory(sizeof(Piece *) << (ADDRESS_BITS - PAGE_BITS));
static std::map<uintptr_t, Piece *> pieces;
static Word shared_words[(SHARED_MAX + GUARD) / 4];

/* Time passes with each block, barrier and fence. */
static uint32_t now = 1;

/* The launch that runs. */
static struct {
	uint32_t start;
	uintptr_t args;
	size_t arg_bytes;
	std::vector<uint32_t> blocks; /* when each began */
} launch;

/* Until when the accesses of a block come before an addition to a counter. */
struct Release {
	size_t block;
	uint32_t added;            /* the time of the addition */
	uint32_t all;              /* of all threads: those before */
	std::vector<uint32_t> own; /* of each thread: up to this one; empty without a fence */
};
static std::map<uintptr_t, std::vector<Release>> counters; /* of the launch */

/* The block has added to a counter after the first n of its releases. */
struct Acquire {
	const std::vector<Release> *of;
	size_t n;
	unsigned thread;
	uint32_t added, fenced; /* fenced: 0 before the thread's next fence */
};

struct Fence { uint32_t time, barrier; }; /* barrier: the last one before it */

/* The block that runs. */
static struct {
	unsigned threads;
	size_t shared_bytes;
	uint32_t start, barrier;
	bool fenced; /* some thread has */
	Fence fences[MAX_THREADS], settled[MAX_THREADS]; /* of each thread the last, and the last before the barrier */
	std::vector<Acquire> acquires;
} block;

/* known[t][l]: the accesses of lane l of its warp before this time come before what thread t does now. */
static uint32_t known[MAX_THREADS][WARP];

void watch(const void *base, size_t bytes) {
	size_t n = (bytes + 3) / 4 * sizeof(Word);
	Piece *p = new Piece{(uintptr_t)base, bytes, (Word *)map_memory(n)};
	pieces[p->base] = p;
	for (uintptr_t page = p->base >> PAGE_BITS; page <= (p->base + bytes - 1) >> PAGE_BITS; page++) pages[page] = p;
}

void unwatch(const void *base) {
	auto i = pieces.find((uintptr_t)base);
	Piece *p = i->second;
	for (uintptr_t page = p->base >> PAGE_BITS; page <= (p->base + p->bytes - 1) >> PAGE_BITS; page++) pages[page] = nullptr;
	munmap(p->words, (p->bytes + 3) / 4 * sizeof(Word));
	pieces.erase(i);
	delete p;
}

void begin_launch(const void *args, size_t bytes) {
	if (now > 0xF0000000u) { /* everything is forgotten before the time is at its end */
		now = 1;
		memset(shared_words, 0, sizeof shared_words);
		memset(known, 0, sizeof known);
		for (auto &p : pieces) madvise(p.second->words, (p.second->bytes + 3) / 4 * sizeof(Word), MADV_DONTNEED);
	}
	launch.start = ++now;
	launch.args = (uintptr_t)args;
	launch.arg_bytes = bytes;
	launch.blocks.clear();
	counters.clear();
}

void begin_block(unsigned threads, size_t shared_bytes) {
	block.threads = threads;
	block.shared_bytes = shared_bytes;
	block.start = block.barrier = ++now;
	launch.blocks.push_back(now);
	block.acquires.clear();
	if (block.fenced) {
		memset(block.fences, 0, sizeof block.fences);
		memset(block.settled, 0, sizeof block.settled);
		block.fenced = false;
	}
}

void met_in_block() {
	block.barrier = ++now;
	if (block.fenced) memcpy(block.settled, block.fences, sizeof block.fences);
}

void met_in_warp(unsigned first, uint group) {
	++now;
	uint32_t joined[WARP] = {};
	for (unsigned l = 0; l < WARP; l++)
		for (unsigned k = 0; k < WARP; k++)
			if (group >> k & 1) joined[l] = group >> l & 1 ? now : std::max(joined[l], known[first + k][l]);
	for (unsigned k = 0; k < WARP; k++)
		if (group >> k & 1) memcpy(known[first + k], joined, sizeof joined);
}

void fence() {
	block.fences[me] = {now, block.barrier};
	block.fenced = true;
	for (Acquire &a : block.acquires)
		if (a.thread == me && !a.fenced) a.fenced = now;
	++now;
}

/* The thread adds to the counter at p: it publishes and acquires. */
static void add_to_counter(uintptr_t p) {
	std::vector<Release> &releases = counters[p];
	block.acquires.push_back({&releases, releases.size(), me, now, 0});
	Release r{launch.blocks.size() - 1, now, 0, {}};
	if (block.fenced) {
		r.own.resize(block.threads);
		for (unsigned t = 0; t < block.threads; t++) {
			const Fence &f = t == me ? block.fences[t] : block.settled[t];
			r.own[t] = f.time;
			r.all = std::max(r.all, f.barrier);
		}
	}
	releases.push_back(std::move(r));
}

enum Kind { READ, STRONG_READ, WRITE, ADD };

/* Whether a counter brought this block after an access of an earlier one. */
static bool published(Access x, Kind kind) {
	uint32_t t = time_of(x);
	size_t b = std::upper_bound(launch.blocks.begin(), launch.blocks.end(), t) - launch.blocks.begin() - 1;
	for (const Acquire &a : block.acquires) {
		uint32_t since = kind == READ ? a.fenced : a.added;
		if (!since || (a.thread != me && since >= block.barrier)) continue;
		for (size_t i = 0; i < a.n; i++) {
			const Release &r = (*a.of)[i];
			if (r.block != b) continue;
			if (x & COUNTER && t <= r.added) return true;
			if (!r.own.empty() && (t < r.all || t <= r.own[thread_of(x)])) return true;
		}
	}
	return false;
}

static bool ordered(Access x, Kind kind, bool global) {
	uint32_t t = time_of(x);
	if (t < (global ? launch.start : block.start)) return true;
	if (t < block.start) return published(x, kind);
	if (t < block.barrier) return true;
	unsigned k = thread_of(x);
	return k == me || (k / WARP == me / WARP && t < known[me][k % WARP]);
}

/* The line of the kernel for a place in the code, by a tool that the compiler came with. It lists what was inlined there
 * from the inside. */
static std::string source_line(void *pc) {
	Dl_info info;
	if (!dladdr(pc, &info) || !info.dli_fname) return "an unknown place";
	char command[1024], text[512];
	unsigned long at = (char *)pc - (char *)info.dli_fbase - 1;
	snprintf(command, sizeof command, "addr2line -i -e '%s' %#lx 2>/dev/null", info.dli_fname, at);
	std::string line;
	if (FILE *f = popen(command, "r")) {
		while (line.empty() && fgets(text, sizeof text, f)) {
			text[strcspn(text, " \n")] = 0;
			if (*text != '?' && !strstr(text, "emulator.h:")) line = text;
		}
		pclose(f);
	}
	if (!line.empty()) return line;
	snprintf(text, sizeof text, "%s+%#lx", info.dli_fname, at);
	return text;
}

static const char *verb(Kind kind) { return kind == WRITE ? "writes" : kind == ADD ? "adds to" : "reads"; }

__attribute__((noinline, cold)) static void race(Access x, bool wrote, Kind kind, const Piece *p, size_t offset, void *pc) {
	char where[64], who[96];
	if (p)
		snprintf(where, sizeof where, "byte %zu of memory of %zu bytes", offset, p->bytes);
	else
		snprintf(where, sizeof where, "byte %zu of shared memory", offset);
	uint3 t = index_of(thread_of(x));
	const char *did = x & COUNTER ? "added to" : wrote ? "wrote" : "read";
	if (time_of(x) >= block.start)
		snprintf(who, sizeof who, "thread (%u,%u,%u) %s since the last barrier", t.x, t.y, t.z, did);
	else
		snprintf(who, sizeof who, "another block %s in this launch", did);
	wrong("a race: it %s %s, which %s, at %s", verb(kind), where, who, source_line(pc).c_str());
}

__attribute__((noinline, cold)) static void outside(const Piece *near, uintptr_t p, size_t size, Kind kind, void *pc) {
	std::string at = source_line(pc);
	if (near)
		wrong("%s %zu bytes at byte %lld of memory of %zu bytes, at %s", verb(kind), size, (long long)(p - near->base),
			near->bytes, at.c_str());
	wrong("%s %zu bytes at %#zx, where no memory is, at %s", verb(kind), size, size_t(p), at.c_str());
}

/* Whether p is no memory that threads share: a stack, the parameters, what the library has. */
static bool private_memory(uintptr_t p) {
	if (p - ((uintptr_t)__builtin_frame_address(0) - STACK) < 2 * STACK || p - launch.args < launch.arg_bytes) return true;
	static const std::pair<uintptr_t, uintptr_t> library = [] {
		std::pair<uintptr_t, uintptr_t> range;
		dl_iterate_phdr([](dl_phdr_info *info, size_t, void *to) {
			uintptr_t first = ~uintptr_t(0), last = 0;
			for (int i = 0; i < info->dlpi_phnum; i++) {
				const ElfW(Phdr) &h = info->dlpi_phdr[i];
				if (h.p_type != PT_LOAD) continue;
				first = std::min<uintptr_t>(first, info->dlpi_addr + h.p_vaddr);
				last = std::max<uintptr_t>(last, info->dlpi_addr + h.p_vaddr + h.p_memsz);
			}
			if ((uintptr_t)&now < first || (uintptr_t)&now >= last) return 0;
			*(std::pair<uintptr_t, uintptr_t> *)to = {first, last};
			return 1;
		}, &range);
		return range;
	}();
	return p >= library.first && p < library.second;
}

/* Words of one of the two kinds of memory. */
template <Kind kind>
static inline void touch(Word *w, uintptr_t p, size_t size, const Piece *piece, size_t offset, void *pc) {
	const bool global = piece;
	const Access mine = Access(now) << 32 | Access(me) << 8;
	for (size_t done = 0; done < size; w++) {
		size_t from = (p + done) % 4, n = std::min(size - done, 4 - from);
		const Access bytes = ((1u << n) - 1) << from;
		done += n;
		if (kind <= STRONG_READ && (w->read & WHO) == mine) {
			w->read |= bytes;
			continue;
		}
		if (w->write & bytes && !(kind == ADD && w->write & COUNTER) && !ordered(w->write, kind, global))
			return race(w->write, true, kind, piece, offset, pc);
		if (kind >= WRITE) {
			for (Access x : {w->read, w->other})
				if (x & bytes && !ordered(x, kind, global)) return race(x, false, kind, piece, offset, pc);
			w->write = mine | bytes | (kind == ADD ? COUNTER : 0);
			continue;
		}
		/* The read of another block stays until the next launch. */
		uint32_t last = time_of(w->read), other = time_of(w->other);
		bool keep = global && other >= launch.start && other < block.start && last >= block.start;
		if (((w->read ^ mine) & THREAD || last < block.start) && !keep) w->other = w->read;
		w->read = mine | bytes;
	}
}

template <Kind kind> static inline void access(const void *at, size_t size, void *pc) {
	uintptr_t p = (uintptr_t)at;
	size_t offset = p - (uintptr_t)shared;
	if (offset < SHARED_MAX + GUARD) {
		if (offset + size > block.shared_bytes)
			return wrong("%s byte %zu of its %zu bytes of shared memory, at %s", verb(kind), offset, block.shared_bytes,
				source_line(pc).c_str());
		return touch<kind>(shared_words + offset / 4, p, size, nullptr, offset, pc);
	}
	const Piece *piece = p >> ADDRESS_BITS ? nullptr : pages[p >> PAGE_BITS];
	if (piece) {
		offset = p - piece->base;
		if (offset >= piece->bytes || size > piece->bytes - offset) return outside(piece, p, size, kind, pc);
		return touch<kind>(piece->words + offset / 4, p, size, piece, offset, pc);
	}
	if (!private_memory(p)) outside(nullptr, p, size, kind, pc);
}

void counter(const void *p, size_t size) {
	access<ADD>(p, size, __builtin_return_address(0));
	add_to_counter((uintptr_t)p);
}

void strong_read(const void *p, size_t size) { access<STRONG_READ>(p, size, __builtin_return_address(0)); }

void constant_read(const void *p, size_t size) {
	void *pc = __builtin_return_address(0);
	access<READ>(p, size, pc);
	uintptr_t a = (uintptr_t)p;
	const Piece *piece = pages[a >> PAGE_BITS];
	if (piece && time_of(piece->words[(a - piece->base) / 4].write) >= launch.start)
		wrong("reads by __ldg what this launch wrote, at %s", source_line(pc).c_str());
}

/* Where an expression is, as the compiler describes it. */
struct Place { const char *file; uint32_t line, column; };

static void undefined(const Place *at, const char *what) { wrong("%s at %s:%u", what, at->file, at->line); }

} // namespace igc

#define HOOK extern "C" __attribute__((visibility("hidden"))) void
#define ACCESSES(size) \
	HOOK __tsan_read##size(void *p) { igc::access<igc::READ>(p, size, __builtin_return_address(0)); } \
	HOOK __tsan_write##size(void *p) { igc::access<igc::WRITE>(p, size, __builtin_return_address(0)); } \
	HOOK __tsan_volatile_read##size(void *p) { igc::access<igc::STRONG_READ>(p, size, __builtin_return_address(0)); } \
	HOOK __tsan_volatile_write##size(void *p) { igc::access<igc::WRITE>(p, size, __builtin_return_address(0)); }
ACCESSES(1)
ACCESSES(2)
ACCESSES(4)
ACCESSES(8)
ACCESSES(16)
HOOK __tsan_read_range(void *p, size_t size) { igc::access<igc::READ>(p, size, __builtin_return_address(0)); }
HOOK __tsan_write_range(void *p, size_t size) { igc::access<igc::WRITE>(p, size, __builtin_return_address(0)); }
HOOK __tsan_init() {}

#define UNDEFINED(name, what) HOOK __ubsan_handle_##name(const igc::Place *at) { igc::undefined(at, what); }
UNDEFINED(type_mismatch_v1, "uses an address that is not aligned for its type")
UNDEFINED(add_overflow, "an integer overflows")
UNDEFINED(sub_overflow, "an integer overflows")
UNDEFINED(mul_overflow, "an integer overflows")
UNDEFINED(negate_overflow, "an integer overflows")
UNDEFINED(divrem_overflow, "divides by 0, or an integer overflows")
UNDEFINED(shift_out_of_bounds, "shifts by too many bits or a negative number")
UNDEFINED(out_of_bounds, "uses an element that the array does not have")
UNDEFINED(load_invalid_value, "reads a value that its type does not have")
UNDEFINED(builtin_unreachable, "reaches what it says is never reached")
UNDEFINED(missing_return, "ends without its result")
UNDEFINED(vla_bound_not_positive, "an array has no elements")
UNDEFINED(float_cast_overflow, "converts a number that is too large")
UNDEFINED(nonnull_arg, "passes a null pointer")
UNDEFINED(invalid_builtin, "counts the bits of 0")
#endif
