/* What a kernel source may use beyond C++ and CUDA's own functions, in two versions: for the CUDA compiler, here, and for
 * the host's, in ../emulator/emulator.h, where each kernel runs in the tests without a GPU.
 *
 *   KERNEL(name, Args, threads) { … a.x … }   a kernel with one parameter, const Args a, by value, launched with at
 *                                             most that many threads a block
 *   KERNEL_FOR(name, Args, threads, resident)   the same, with so few registers that so many threads run at once
 *   SHARED(float, rows);                      rows points to the block's shared memory, whose size the launch gives
 *   OPAQUE(v)                                 the compiler forgets what it knows of the int v
 */
#pragma once
#ifdef __CUDACC__

/* A multiprocessor has room for 512 threads of each kernel at least: 128 registers a thread. Fewer threads wait for memory
 * most of the time. */
#define KERNEL(name, Args, threads) extern "C" __global__ void __launch_bounds__(threads, 512 / (threads)) name(const Args a)

/* One declaration for all, as a file may not declare it with two types; 16 bytes for float4. */
extern __shared__ __align__(16) unsigned char shared_memory[];
#define SHARED(type, name) type *const name = reinterpret_cast<type *>(shared_memory)

#define KERNEL_FOR(name, Args, threads, resident) \
	extern "C" __global__ void __launch_bounds__(threads, (resident) / (threads)) name(const Args a)

/* OPAQUE(v) hides from the compiler what v is. In a loop it keeps the compiler from computing what follows from v before
 * the loop, and from holding all of that in registers. */
#define OPAQUE(v) asm volatile("" : "+r"(v))

#else
#include "../emulator/emulator.h"
#endif
