// What the kernels share.
#pragma once
#define IGC_DEVICE
#include "device.h"
#include "args.h"

#define ALL 0xffffffffu

// atLeast is max(low, v) that keeps what is no number: a training that diverged
// must show it.
__device__ __forceinline__ float at_least(float low, float v) { return v < low ? low : v; }

// lane_sums adds N values, a power of two up to 32, over the lanes of a warp, each
// in a fixed order: v[0] of lane l becomes the sum of v[l / (32/N)]. Halving the
// values with each exchange takes 31 exchanges where N trees would take 5·N.
template <int N>
__device__ __forceinline__ void lane_sums(float (&v)[N]) {
	const int lane = threadIdx.x;
	int n = N;
#pragma unroll
	for (int o = 16; o > 0; o >>= 1) {
		if (n > 1) {
			n /= 2;
			const bool upper = lane & o;
#pragma unroll
			for (int i = 0; i < N / 2; i++)
				if (i < n) {
					const float keep = upper ? v[i + n] : v[i], send = upper ? v[i] : v[i + n];
					v[i] = keep + __shfl_xor_sync(ALL, send, o);
				}
		} else {
			v[0] += __shfl_xor_sync(ALL, v[0], o);
		}
	}
}

// power is the smallest power of two from n on.
__host__ __device__ constexpr int power(int n) { return n <= 1 ? 1 : 2 * power((n + 1) / 2); }

// block_sum is the sum over the threads of a block of 32·warps, in a fixed order, to
// thread 0. room is for 32 doubles.
__device__ __forceinline__ double block_sum(double v, double *room) {
	const int warps = blockDim.x / 32, warp = threadIdx.x / 32, lane = threadIdx.x % 32;
#pragma unroll
	for (int o = 16; o > 0; o >>= 1) v += __shfl_xor_sync(ALL, v, o);
	if (lane == 0) room[warp] = v;
	__syncthreads();
	v = 0;
	if (threadIdx.x == 0)
		for (int i = 0; i < warps; i++) v += room[i];
	__syncthreads();
	return v;
}

// trips calls f(i, whole) for i = 0, U, 2·U … below n. f takes the U values from i on,
// or, where whole.value is false, the rest of them. f issues all its loads before it
// uses one or writes, so that they are in flight at the same time; reading the last
// value for those that are beyond it keeps branches out of the rest, too.
template <bool VALUE>
struct Whole {
	static constexpr bool value = VALUE;
};

template <int U, class F>
__device__ __forceinline__ void trips(int n, F f) {
	int i = 0;
	for (; i + U <= n; i += U) f(i, Whole<true>());
	if (i < n) f(i, Whole<false>());
}
