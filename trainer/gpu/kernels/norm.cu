// Batch normalisation between its sums and those who normalise while they read: one
// block a channel, in float64, as the CPU does it.
#include "lanes.h"

KERNEL(norm, igc_norm, 128) {
	SHARED(double, room);
	const int c = blockIdx.x;
	double mean = 0, variance = 0;
	if (a.training) {
		double s = 0, q = 0;
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
	if (a.training) {
		// As in PyTorch the running variance is the unbiased one.
		const double unbiased = variance * a.count / (a.count > 2 ? a.count - 1 : 1), f = a.factor;
		a.running_mean[c] = (float)(f * a.running_mean[c] + (1 - f) * mean);
		a.running_var[c] = (float)(f * a.running_var[c] + (1 - f) * unbiased);
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
	if (!isfinite(a.scale[c]) || !isfinite(a.shift[c])) a.state->odd = 1;
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
