/* Kernels for the tests of the emulator, right ones and wrong ones. */
#include "device.h"

struct Vector { float *p; int n; float add; };

KERNEL(add, Vector, 1024) {
	int i = blockIdx.x * blockDim.x + threadIdx.x;
	if (i >= a.n) return;
	a.p[i] += a.add;
}

struct Two { float *to; const float *from; int n; };

/* The sum of each block's part: through shared memory over the warps, by shuffles within. */
KERNEL(sums, Two, 1024) {
	SHARED(float, part);
	int i = blockIdx.x * blockDim.x + threadIdx.x, lane = threadIdx.x % 32, warp = threadIdx.x / 32;
	float x = i < a.n ? __ldg(a.from + i) : 0;
#pragma unroll
	for (int d = 16; d > 0; d /= 2) x += __shfl_xor_sync(~0u, x, d);
	if (lane == 0) part[warp] = x;
	__syncthreads();
	for (int d = blockDim.x / 64; d > 0; d /= 2) {
		if ((int)threadIdx.x < d) part[threadIdx.x] += part[threadIdx.x + d];
		__syncthreads();
	}
	if (threadIdx.x == 0) a.to[blockIdx.x] = part[0];
}

struct Words { unsigned *p; };

/* Eight words from each thread, which the test knows. */
KERNEL(lanes, Words, 64) {
	unsigned lane = threadIdx.x % 32, *p = a.p + 8 * threadIdx.x;
	p[0] = __shfl_sync(~0u, lane, 5);
	p[1] = __shfl_xor_sync(~0u, lane, 3);
	p[2] = __shfl_down_sync(~0u, lane, 4);
	p[3] = __shfl_up_sync(~0u, lane, 4);
	p[4] = __shfl_down_sync(~0u, lane, 1, 8);
	p[5] = __ballot_sync(~0u, lane % 3 == 0);
	p[6] = (unsigned)__shfl_xor_sync(~0u, 1e9 + lane, 31); /* a double */
	p[7] = __shfl_xor_sync(lane < 16 ? 0xffffu : 0xffff0000u, lane, 1);
	__syncwarp();
}

/* The threads from 40 on leave; the rest go on with barriers and shuffles. */
KERNEL(leavers, Words, 128) {
	SHARED(unsigned, s);
	if (threadIdx.x >= 40) return;
	s[threadIdx.x] = threadIdx.x;
	__syncthreads();
	unsigned x = s[39 - threadIdx.x];
	x = max(x, __shfl_xor_sync(threadIdx.x < 32 ? ~0u : 0xffu, x, 1));
	__syncthreads();
	a.p[threadIdx.x] = x;
}

KERNEL(indices, Words, 1024) {
	unsigned block = (blockIdx.z * gridDim.y + blockIdx.y) * gridDim.x + blockIdx.x;
	unsigned thread = (threadIdx.z * blockDim.y + threadIdx.y) * blockDim.x + threadIdx.x;
	a.p[block * blockDim.x * blockDim.y * blockDim.z + thread] = block * 10000 + thread;
	atomicAdd(a.p + gridDim.x * gridDim.y * gridDim.z * blockDim.x * blockDim.y * blockDim.z, 1u);
}

KERNEL(other_barrier, Words, 64) {
	if (threadIdx.x < 16) __syncthreads();
	__syncthreads();
}

KERNEL(no_lane, Words, 64) {
	if (threadIdx.x == 35)
		__syncthreads();
	else if (threadIdx.x >= 32)
		a.p[0] = __shfl_xor_sync(~0u, threadIdx.x, 1);
}

KERNEL(behind, Vector, 32) { a.p[a.n] = threadIdx.x; }

KERNEL(shared_behind, Words, 32) {
	SHARED(unsigned, s);
	s[32 + threadIdx.x] = 1;
}

/* Reads what another thread may not have written yet. */
KERNEL(race, Words, 64) {
	SHARED(unsigned, s);
	s[threadIdx.x] = threadIdx.x;
	a.p[threadIdx.x] = s[63 - threadIdx.x];
}
KERNEL(no_ptx, Words, 32) {}

struct Product { float *sums; const float *a, *b; };

/* sums (16×8) += a (16×8) · b (8×8), all row by row. */
KERNEL(product, Product, 32) {
	const int r = threadIdx.x / 4, c = threadIdx.x % 4;
	const unsigned left[4] = {igc_tf32(a.a[r * 8 + c]), igc_tf32(a.a[(r + 8) * 8 + c]), igc_tf32(a.a[r * 8 + c + 4]),
		igc_tf32(a.a[(r + 8) * 8 + c + 4])};
	const unsigned right[2] = {igc_tf32(a.b[c * 8 + r]), igc_tf32(a.b[(c + 4) * 8 + r])};
	float *to[4] = {a.sums + r * 8 + 2 * c, a.sums + r * 8 + 2 * c + 1, a.sums + (r + 8) * 8 + 2 * c,
		a.sums + (r + 8) * 8 + 2 * c + 1};
	float sums[4] = {*to[0], *to[1], *to[2], *to[3]};
	igc_mma_tf32(sums, left, right);
	for (int i = 0; i < 4; i++) *to[i] = sums[i];
}

KERNEL(product_of_some, Words, 32) {
	float sums[4] = {};
	const unsigned left[4] = {}, right[2] = {};
	if (threadIdx.x == 31) return;
	igc_mma_tf32(sums, left, right);
	a.p[threadIdx.x] = 0;
}

KERNEL(product_of_float32, Words, 32) {
	float sums[4] = {};
	const unsigned left[4] = {1}, right[2] = {};
	igc_mma_tf32(sums, left, right);
	a.p[threadIdx.x] = 0;
}
