/* How driver.cpp runs a kernel: each thread is a fiber (threads.cpp). */
#pragma once
#include "emulator.h"

enum {
	WARP = 32,
	MAX_THREADS = 1024,
	SHARED_DEFAULT = 48 << 10,
	SHARED_MAX = 96 << 10,
	REGISTERS = 65536, /* of a block, and of a multiprocessor */
	GUARD = 1 << 10, /* bytes of 0xFF around memory: what is written there is seen */
	STACK = 128 << 10, /* of a thread, with a page below that faults */
#ifdef IGC_CHECKED
	ALIGN = 64 << 10, /* of memory; in the checked library no two pieces share what lies between two multiples */
#else
	ALIGN = 256, /* as on hardware */
#endif
};

namespace igc {

extern Kernel *kernels; /* all that are compiled in */

/* registers_of_block is how many a block takes. A warp gets them in pieces of 256. */
unsigned registers_of_block(const Kernel *k, unsigned threads);

/* run executes a launch. It returns false, after a line on stderr, if the kernel does what hardware refuses or what is
 * undefined there. */
bool run(const Kernel *kernel, const void *args, dim3 grid, dim3 block, size_t shared_bytes);

/* guarded reports whether n bytes are those of new memory. */
bool guarded(const unsigned char *p, size_t n);

/* random_number changes a state, which is 0 at first: then IGC_EMULATED_SEED chooses it. */
uint64_t random_number(uint64_t &state);

/* wrong is fail with a text to format. */
__attribute__((format(printf, 1, 2))) void wrong(const char *format, ...);

uint3 index_of(unsigned thread);

#ifdef IGC_CHECKED /* checks.cpp says what is checked */
/* watch gives memory to the kernels, until unwatch: what they read and write elsewhere is an error. */
void watch(const void *base, size_t bytes);
void unwatch(const void *base);

extern unsigned me; /* the thread that runs */
static inline void now_runs(unsigned thread) { me = thread; }
void begin_launch(const void *args, size_t bytes);
void begin_block(unsigned threads, size_t shared_bytes);
void met_in_block();
void met_in_warp(unsigned first, uint group); /* by __syncwarp: the first thread of the warp, the lanes */
#else
static inline void now_runs(unsigned) {}
static inline void watch(const void *, size_t) {}
static inline void unwatch(const void *) {}
static inline void begin_launch(const void *, size_t) {}
static inline void begin_block(unsigned, size_t) {}
static inline void met_in_block() {}
static inline void met_in_warp(unsigned, uint) {}
#endif

} // namespace igc
