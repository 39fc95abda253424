// How a kernel ends a batch normalisation whose sums it made, in float64 as the CPU does it.
#pragma once
#include "lanes.h"

// last_block tells the threads of a block whether all blocks with the same blockIdx.y have written what they write: then
// it is the last of them, and only then may it read what the others wrote, past the first cache. All threads of a block
// must come here.
//
// This is the pattern of NVIDIA's sample threadFenceReduction and of the programming guide's section on fences. The
// barrier puts the writes of the block's threads before the fence of one of them, and the fence puts them before the
// count. Who then reads the largest count has all other counts before it, and the second fence and barrier put them
// before the reads of its block. The other blocks read nothing more and need no second fence, which would empty the first
// cache of their multiprocessor. Which block is the last differs from run to run, but what it does must not depend on it.
__device__ __forceinline__ bool last_block(int *counters) {
	SHARED(int, last);
	__syncthreads();
	if (threadIdx.x == 0 && threadIdx.y == 0) {
		__threadfence();
		*last = atomicAdd(counters + blockIdx.y, 1) == (int)(gridDim.x * gridDim.z) - 1;
		if (*last) {
			counters[blockIdx.y] = 0; // for the next launch
			__threadfence();
		}
	}
	__syncthreads();
	return *last;
}

// As in PyTorch, what an evaluation normalises by is the unbiased variance.
__device__ __forceinline__ double unbiased(double variance, double count) {
	return variance * count / (count > 2 ? count - 1 : 1);
}

// write_scale writes by what a channel is multiplied and what is added to it.
__device__ __forceinline__ void write_scale(double mean, double variance, double epsilon, double weight, double bias,
		float *scale, float *shift, igc_state *state) {
	const double s = weight / sqrt(variance + epsilon);
	*scale = (float)s;
	*shift = (float)(bias - mean * s);
	// The ReLUs that follow take what is no number for 0.
	if (!isfinite(*scale) || !isfinite(*shift)) atomicOr(&state->odd, 1);
}

// norm_forward ends a channel whose values have the sum s, and their squares q.
__device__ __forceinline__ void norm_forward(const igc_norm &n, int c, double s, double q) {
	const double mean = s * n.inverse;
	double variance = q * n.inverse - mean * mean;
	if (variance < 0) variance = 0; // by rounding, where all values are equal
	if (n.measured) {
		n.measured[c * 3] += s;
		n.measured[c * 3 + 1] += q;
		n.measured[c * 3 + 2] += n.count;
	} else {
		const double f = n.factor;
		n.running_mean[c] = (float)(f * n.running_mean[c] + (1 - f) * mean);
		n.running_var[c] = (float)(f * n.running_var[c] + (1 - f) * unbiased(variance, n.count));
		n.mean[c] = mean;
		n.istd[c] = 1 / sqrt(variance + n.epsilon);
	}
	write_scale(mean, variance, n.epsilon, n.weight[c], n.bias[c], n.scale + c, n.shift + c, n.state);
}

// norm_backward ends a channel whose gradients have the sum g, and their products with z the sum gz. With
// ẑ = (z − mean)·istd and N values:
//
//	dbias = Σg, dweight = Σ g·ẑ
//	dz = weight·istd·(g − dbias/N − ẑ·dweight/N)
__device__ __forceinline__ void norm_backward(const igc_norm &n, int c, double g, double gz) {
	const double mean = n.mean[c], istd = n.istd[c], dw = istd * (gz - mean * g);
	const double ca = n.weight[c] * istd, cb = -ca * istd * dw * n.inverse;
	n.dweight[c] = (float)dw;
	n.dbias[c] = (float)g;
	n.ca[c] = (float)ca;
	n.cb[c] = (float)cb;
	n.cc[c] = (float)(-ca * g * n.inverse - cb * mean);
}

// end_norm adds up the parts (c, parts, 2) of so many channels, channel(0), channel(1) …, and ends each. As many lanes
// share a channel as let all channels be summed at the same time, if there are enough. The order of each sum depends on the
// sizes of the launch alone. A lane loads so many parts at once. end
// is norm_forward or norm_backward.
template <int LOADS, class F, class E>
__device__ __forceinline__ void end_norm(const igc_norm &n, const float *sums, int parts, int channels, F channel, E end) {
	const int thread = threadIdx.y * 32 + threadIdx.x, threads = blockDim.y * 32;
	int per = 32;
	while (per > 1 && per * channels > threads) per /= 2;
	for (int first = 0; first < channels; first += threads / per) {
		if (first + (int)threadIdx.y * 32 / per >= channels) break; // a warp without a channel
		const int i = first + thread / per, c = channel(min(i, channels - 1));
		const float2 *from = (const float2 *)sums + (long long)c * parts;
		double s[2] = {0, 0};
		for (int p = thread % per; p < parts; p += LOADS * per) {
			float2 v[LOADS];
#pragma unroll
			for (int k = 0; k < LOADS; k++) {
				const int at = p + k * per;
				v[k] = __ldcg(from + min(at, parts - 1));
				if (at >= parts) v[k].x = v[k].y = 0;
			}
#pragma unroll
			for (int k = 0; k < LOADS; k++) s[0] += v[k].x, s[1] += v[k].y;
		}
		for (int o = per / 2; o > 0; o /= 2)
			for (int k = 0; k < 2; k++) s[k] += __shfl_xor_sync(ALL, s[k], o);
		if (i < channels && thread % per == 0) end(n, c, s[0], s[1]);
	}
}
