/* How driver.cpp runs a kernel: each thread is a fiber (threads.cpp). */
#pragma once
#include "emulator.h"

enum {
	WARP = 32,
	MAX_THREADS = 1024,
	SHARED_DEFAULT = 48 << 10,
	SHARED_MAX = 96 << 10,
	GUARD = 1 << 10, /* bytes of 0xFF around memory: what is written there is seen */
};

namespace igc {

extern Kernel *kernels; /* all that are compiled in */

/* run executes a launch. It returns false, after a line on stderr, if the kernel does what hardware refuses or what is
 * undefined there. */
bool run(const Kernel *kernel, const void *args, dim3 grid, dim3 block, size_t shared_bytes);

/* guarded reports whether n bytes are those of new memory. */
bool guarded(const unsigned char *p, size_t n);

} // namespace igc
