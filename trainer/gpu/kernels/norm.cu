// What a batch normalisation needs apart from the kernels that make its sums.
#include "norm.h"

// One thread a channel of any normalisation, in this kernel and the next.
KERNEL(norm_running, igc_running, 128) {
	const int c = blockIdx.x * blockDim.x + threadIdx.x;
	if (c >= a.c) return;
	const igc_affine at = a.affine[c];
	write_scale(a.mean[c], a.variance[c], a.epsilon, a.value[at.weight], a.value[at.bias], a.scale + c, a.shift + c, a.state);
}

KERNEL(norm_measured, igc_measured, 128) {
	const int c = blockIdx.x * blockDim.x + threadIdx.x;
	if (c >= a.c) return;
	const double count = a.measured[c * 3 + 2], mean = a.measured[c * 3] / count;
	double variance = a.measured[c * 3 + 1] / count - mean * mean;
	if (variance < 0) variance = 0;
	a.mean[c] = (float)mean;
	a.variance[c] = (float)unbiased(variance, count);
}
