//go:build ignore

/* What the program links as libcuda: it opens the real one when it starts, so the same binary runs on machines without
 * a driver (package cu alone would not even be loaded there, and with a driver but no device it ends the process).
 *
 *   IGC_CUDA_LIBRARY   the library to open instead of libcuda.so.1
 *
 * Without a library, or if its cuInit fails, cuInit succeeds, there are 0 devices, everything else answers
 * CUDA_ERROR_NO_DEVICE and igc_cuda_why says why. A function that the library lacks answers CUDA_ERROR_NOT_FOUND.
 *
 * build.sh makes symbols.h from the header: SYMBOL(index, name) for each function but the two below. A symbol is one
 * jump through the table, so arguments and results of any kind pass. All is hidden in the binary: were it not, the
 * library's calls of its own functions would come here. */
#include <cuda.h>
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>

#define SYMBOL(index, name) #name,
static const char *const names[] = {
#include "symbols.h"
};
#undef SYMBOL
enum { count = sizeof names / sizeof *names };

__attribute__((visibility("hidden"))) void *igc_cuda_table[count];

#if defined __x86_64__
#define JUMP(index) "jmp *igc_cuda_table+8*" #index "(%rip)\n"
#elif defined __aarch64__
#define JUMP(index) "adrp x16, igc_cuda_table+8*" #index "\nldr x16, [x16, #:lo12:igc_cuda_table+8*" #index "]\nbr x16\n"
#else
#error "no trampoline for this processor"
#endif
#if defined __CET__ && __CET__ & 1
#define LANDING "endbr64\n"
#else
#define LANDING ""
#endif
#define SYMBOL(index, name) \
	__asm__(".text\n.p2align 4\n.globl " #name "\n.hidden " #name "\n.type " #name ", %function\n" #name ":\n" \
		LANDING JUMP(index) ".size " #name ", .-" #name "\n");
#include "symbols.h"

static CUresult absent(void) { return CUDA_ERROR_NOT_FOUND; }
static CUresult none(void) { return CUDA_ERROR_NO_DEVICE; }

static char why[512] = "cuInit was not called";
static CUresult (*init)(unsigned), (*devices)(int *);

__attribute__((visibility("hidden"))) const char *igc_cuda_why(void) { return why; }

static void without(void) {
	for (int i = 0; i < count; i++) igc_cuda_table[i] = none;
	init = NULL;
	devices = NULL;
}

__attribute__((constructor)) static void open_library(void) {
	/* As many hardware queues as there are: with the driver's 8, trainings on more streams wait for one another. */
	setenv("CUDA_DEVICE_MAX_CONNECTIONS", "32", 0);
	const char *name = getenv("IGC_CUDA_LIBRARY");
	if (!name || !*name) name = "libcuda.so.1";
	void *library = dlopen(name, RTLD_NOW | RTLD_LOCAL);
	without();
	if (!library) {
		snprintf(why, sizeof why, "%s", dlerror());
		return;
	}
	init = (CUresult (*)(unsigned))dlsym(library, "cuInit");
	devices = (CUresult (*)(int *))dlsym(library, "cuDeviceGetCount");
	if (!init || !devices) {
		snprintf(why, sizeof why, "%s: not a CUDA driver, it lacks cuInit or cuDeviceGetCount", name);
		without();
		return;
	}
	for (int i = 0; i < count; i++) {
		void *found = dlsym(library, names[i]);
		igc_cuda_table[i] = found ? found : (void *)absent;
	}
}

static void failed(const char *call, CUresult r) {
	const char *text = NULL;
	if (cuGetErrorName(r, &text) == CUDA_SUCCESS && text)
		snprintf(why, sizeof why, "%s: %s", call, text);
	else
		snprintf(why, sizeof why, "%s: error %d", call, r);
	without();
}

__attribute__((visibility("hidden"))) CUresult cuInit(unsigned flags) {
	if (!init) return CUDA_SUCCESS;
	CUresult r = init(flags);
	int n = 0;
	if (r != CUDA_SUCCESS)
		failed("cuInit", r);
	else if ((r = devices(&n)) != CUDA_SUCCESS)
		failed("cuDeviceGetCount", r);
	else
		snprintf(why, sizeof why, "%s", n > 0 ? "" : "the driver sees no device");
	return CUDA_SUCCESS;
}

__attribute__((visibility("hidden"))) CUresult cuDeviceGetCount(int *n) {
	if (devices) return devices(n);
	*n = 0;
	return CUDA_SUCCESS;
}
