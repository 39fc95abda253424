/* Kernels for the tests of the checked library: those named wrong_… do what it must report, those named right_… do
 * what looks like it. All have blocks of 64 threads; p has 256 words, counter is 0. */
#include "device.h"

struct Check { unsigned *p; unsigned *counter; };

KERNEL(right_shared, Check, 64) {
	SHARED(unsigned, s);
	s[threadIdx.x] = threadIdx.x;
	__syncthreads();
	unsigned x = s[63 - threadIdx.x];
	__syncthreads();
	s[threadIdx.x] = x;
	a.p[64 * blockIdx.x + threadIdx.x] = s[threadIdx.x];
}

KERNEL(wrong_shared_read, Check, 64) {
	SHARED(unsigned, s);
	s[threadIdx.x] = threadIdx.x;
	a.p[64 * blockIdx.x + threadIdx.x] = s[63 - threadIdx.x];
}

KERNEL(wrong_shared_write, Check, 64) {
	SHARED(unsigned, s);
	s[threadIdx.x] = threadIdx.x;
	__syncthreads();
	unsigned x = s[63 - threadIdx.x];
	s[threadIdx.x] = x;
}

KERNEL(wrong_shared_both_write, Check, 64) {
	SHARED(unsigned, s);
	s[threadIdx.x / 2] = 1;
}

KERNEL(right_syncwarp, Check, 64) {
	SHARED(unsigned, s);
	s[threadIdx.x] = threadIdx.x;
	__syncwarp();
	unsigned x = s[threadIdx.x ^ 1];
	__syncwarp(0xfu << (threadIdx.x % 32 & ~3)); /* of four lanes, which are those that the next line needs */
	s[threadIdx.x ^ 3] = x;
}

KERNEL(wrong_syncwarp_of_others, Check, 64) {
	SHARED(unsigned, s);
	s[threadIdx.x] = threadIdx.x;
	__syncwarp(threadIdx.x % 32 < 16 ? 0xffffu : 0xffff0000u);
	a.p[64 * blockIdx.x + threadIdx.x] = s[threadIdx.x ^ 16];
}

KERNEL(wrong_shuffle_is_no_barrier, Check, 64) {
	SHARED(unsigned, s);
	s[threadIdx.x] = __shfl_xor_sync(~0u, threadIdx.x, 1);
	unsigned x = __shfl_xor_sync(~0u, threadIdx.x, 1);
	a.p[64 * blockIdx.x + threadIdx.x] = s[threadIdx.x ^ 1] + x;
}

KERNEL(right_bytes, Check, 64) { ((unsigned char *)a.p)[64 * blockIdx.x + threadIdx.x] = 1; }

KERNEL(right_global, Check, 64) {
	unsigned *p = a.p + 64 * blockIdx.x;
	p[threadIdx.x] = threadIdx.x;
	__syncthreads();
	unsigned x = p[63 - threadIdx.x];
	__syncthreads();
	p[threadIdx.x] = x + a.p[255];
}

KERNEL(wrong_global_in_a_block, Check, 64) {
	unsigned *p = a.p + 64 * blockIdx.x;
	p[threadIdx.x] = threadIdx.x;
	__syncwarp();
	a.p[128 + 64 * blockIdx.x + threadIdx.x] = p[63 - threadIdx.x];
}

KERNEL(wrong_blocks_both_write, Check, 64) { a.p[threadIdx.x] = 1; }

KERNEL(wrong_block_reads, Check, 64) {
	unsigned x = a.p[64 * (1 - blockIdx.x) + threadIdx.x];
	__threadfence();
	a.p[64 * blockIdx.x + threadIdx.x] = x;
}

KERNEL(right_counter, Check, 64) { atomicAdd(a.counter, 1u); }

KERNEL(wrong_counter_is_read, Check, 64) {
	atomicAdd(a.counter, 1u);
	a.p[64 * blockIdx.x + threadIdx.x] = *a.counter;
}

/* Each block writes its part; the last one adds up all parts. */
enum { FENCE_ALL = 1, FENCE_ONE = 2, MEET = 4, COUNT = 8, FENCE_AFTER = 16, AROUND_CACHE = 32 };
template <int HOW> __device__ __forceinline__ void last_block(const Check &a) {
	SHARED(unsigned, last);
	a.p[64 * blockIdx.x + threadIdx.x] = 1;
	if (HOW & FENCE_ALL) __threadfence();
	if (HOW & MEET) __syncthreads();
	if (threadIdx.x == 0) {
		if (HOW & FENCE_ONE) __threadfence();
		*last = HOW & COUNT ? atomicAdd(a.counter, 1u) == gridDim.x - 1 : 1;
		if (HOW & FENCE_AFTER) __threadfence();
	}
	__syncthreads();
	if (!*last) return;
	unsigned sum = 0;
	for (unsigned b = 0; b < gridDim.x; b++) {
		const unsigned *from = a.p + 64 * b + (threadIdx.x + 1) % 64;
		sum += HOW & AROUND_CACHE ? __ldcg(from) : *from;
	}
	a.p[128 + threadIdx.x] = sum;
	if (threadIdx.x == 0 && HOW & COUNT) *a.counter = 0;
}
KERNEL(right_last_block, Check, 64) { last_block<FENCE_ALL | MEET | COUNT | AROUND_CACHE>(a); }
KERNEL(right_last_block_one_fence, Check, 64) { last_block<MEET | FENCE_ONE | COUNT | AROUND_CACHE>(a); }
KERNEL(right_last_block_plain_reads, Check, 64) { last_block<FENCE_ALL | MEET | COUNT | FENCE_AFTER>(a); }
KERNEL(wrong_last_block_without_fence, Check, 64) { last_block<MEET | COUNT | AROUND_CACHE>(a); }
KERNEL(wrong_last_block_without_barrier, Check, 64) { last_block<FENCE_ALL | COUNT | AROUND_CACHE>(a); }
KERNEL(wrong_last_block_one_fence_without_barrier, Check, 64) { last_block<FENCE_ONE | COUNT | AROUND_CACHE>(a); }
KERNEL(wrong_last_block_without_counter, Check, 64) { last_block<FENCE_ALL | MEET | FENCE_AFTER | AROUND_CACHE>(a); }
KERNEL(wrong_last_block_reads_old_lines, Check, 64) { last_block<FENCE_ALL | MEET | COUNT>(a); }

KERNEL(right_ldg, Check, 64) { a.p[64 * blockIdx.x + threadIdx.x] = __ldg(a.p + 128 + threadIdx.x); }

KERNEL(wrong_ldg_of_what_is_written, Check, 64) {
	a.p[64 * blockIdx.x + threadIdx.x] = 1;
	a.p[128 + 64 * blockIdx.x + threadIdx.x] = __ldg(a.p + 64 * blockIdx.x + threadIdx.x);
}

KERNEL(wrong_read_behind, Check, 64) { if (a.p[256] == 1) a.p[0] = 1; }
KERNEL(wrong_read_before, Check, 64) { if (a.p[-1] == 1) a.p[0] = 1; }
KERNEL(wrong_write_nowhere, Check, 64) { *(unsigned *)((uintptr_t)a.p * 3) = 1; }
KERNEL(wrong_shared_read_behind, Check, 64) {
	SHARED(unsigned, s);
	a.p[64 * blockIdx.x + threadIdx.x] = s[65];
}

KERNEL(right_vector, Check, 64) {
	if (threadIdx.x < 16) ((float4 *)a.p)[16 * blockIdx.x + threadIdx.x] = make_float4(1, 2, 3, 4);
}

KERNEL(wrong_vector, Check, 64) {
	if (threadIdx.x == 0) ((float4 *)(a.p + 1))[16 * blockIdx.x] = make_float4(1, 2, 3, 4);
}

KERNEL(wrong_int, Check, 64) {
	int x = gridDim.x, sum = x + 0x7fffffff;
	a.p[64 * blockIdx.x + threadIdx.x] = sum;
}
KERNEL(wrong_shift, Check, 64) { a.p[64 * blockIdx.x + threadIdx.x] = 1u << (threadIdx.x + 1); }
KERNEL(wrong_element, Check, 64) {
	unsigned v[63];
	for (unsigned i = 0; i < 63; i++) v[i] = a.p[i + 128];
	a.p[64 * blockIdx.x + threadIdx.x] = v[threadIdx.x];
}
