// Batch normalisation between its sums and those who normalise while they read: one
// block a channel, in float64, as the CPU does it.
#include "lanes.h"

// As in PyTorch, what an evaluation normalises by is the unbiased variance.
__device__ __forceinline__ double unbiased(double variance, double count) {
	return variance * count / (count > 2 ? count - 1 : 1);
}

KERNEL(norm, igc_norm, 128) {
	SHARED(double, room);
	const int c = blockIdx.x;
	double mean = 0, variance = 0, s = 0, q = 0;
	if (a.training) {
		for (int p = threadIdx.x; p < a.parts; p += blockDim.x) {
			s += a.sums[((long long)c * a.parts + p) * 2];
			q += a.sums[((long long)c * a.parts + p) * 2 + 1];
		}
		s = block_sum(s, room);
		q = block_sum(q, room);
		mean = s / a.count;
		variance = q / a.count - mean * mean;
		if (variance < 0) variance = 0; // by rounding, where all values are equal
	}
	if (threadIdx.x != 0) return;
	if (a.training && a.measured) {
		a.measured[c * 3] += s;
		a.measured[c * 3 + 1] += q;
		a.measured[c * 3 + 2] += a.count;
	} else if (a.training) {
		const double f = a.factor;
		a.running_mean[c] = (float)(f * a.running_mean[c] + (1 - f) * mean);
		a.running_var[c] = (float)(f * a.running_var[c] + (1 - f) * unbiased(variance, a.count));
		a.mean[c] = mean;
		a.istd[c] = 1 / sqrt(variance + a.epsilon);
	} else {
		mean = a.running_mean[c];
		variance = a.running_var[c];
	}
	const double scale = a.weight[c] / sqrt(variance + a.epsilon);
	a.scale[c] = (float)scale;
	a.shift[c] = (float)(a.bias[c] - mean * scale);
	// The ReLUs that follow take what is no number for 0.
	if (!isfinite(a.scale[c]) || !isfinite(a.shift[c])) atomicOr(&a.state->odd, 1);
}

// One thread a channel of any normalisation.
KERNEL(norm_measured, igc_measured, 128) {
	const int c = blockIdx.x * blockDim.x + threadIdx.x;
	if (c >= a.c) return;
	const double count = a.measured[c * 3 + 2], mean = a.measured[c * 3] / count;
	double variance = a.measured[c * 3 + 1] / count - mean * mean;
	if (variance < 0) variance = 0;
	a.mean[c] = (float)mean;
	a.variance[c] = (float)unbiased(variance, count);
}

// With ẑ = (z − mean)·istd and N values of a channel:
//
//	dbias = Σg, dweight = Σ g·ẑ
//	dz = weight·istd·(g − dbias/N − ẑ·dweight/N)
KERNEL(norm_grad, igc_norm_grad, 128) {
	SHARED(double, room);
	const int c = blockIdx.x;
	double g = 0, gz = 0;
	for (int p = threadIdx.x; p < a.parts; p += blockDim.x) {
		g += a.sums[((long long)c * a.parts + p) * 2];
		gz += a.sums[((long long)c * a.parts + p) * 2 + 1];
	}
	g = block_sum(g, room);
	gz = block_sum(gz, room);
	if (threadIdx.x != 0) return;
	const double mean = a.mean[c], istd = a.istd[c], dw = istd * (gz - mean * g);
	const double ca = a.weight[c] * istd, cb = -ca * istd * dw / a.count;
	a.dweight[c] = (float)dw;
	a.dbias[c] = (float)g;
	a.ca[c] = (float)ca;
	a.cb[c] = (float)cb;
	a.cc[c] = (float)(-ca * g / a.count - cb * mean);
}
