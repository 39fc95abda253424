// The end of the network: logits, cross-entropy, and the gradients of both. A warp
// takes a row of a matrix for 32 pictures, or for all pictures one by one.
#include "lanes.h"

// logits = bias + weight·pool: grid (⌈k/warps⌉, B).
KERNEL(linear, igc_head, 256) {
	const int lane = threadIdx.x, k = blockIdx.x * blockDim.y + threadIdx.y, b = blockIdx.y;
	if (k >= a.k) return;
	const float *pool = a.pool + (long long)b * a.c * LANES + lane, *w = a.weight + (long long)k * a.c;
	float s = a.bias[k];
	for (int c = 0; c < a.c; c++) s = fmaf(w[c], pool[c * LANES], s);
	a.logits[((long long)b * a.k + k) * LANES + lane] = s;
}

// loss = log Σ exp(logits − largest) + largest − logit of the label; dlogits =
// gain·(softmax − label's); correct where the label's logit is the first of the
// largest. Grid (B); the warps share the classes.
KERNEL(cross_entropy, igc_head, 256) {
	SHARED(float, room); // (3, warps, 32)
	const int lane = threadIdx.x, warp = threadIdx.y, warps = blockDim.y, b = blockIdx.x;
	const float *logits = a.logits + (long long)b * a.k * LANES + lane;
	const int label = a.labels[b * LANES + lane];
	float top = -INFINITY;
	int best = a.k;
	bool odd = false; // some logit is no number
	const int count = (a.k - warp + warps - 1) / warps; // classes of this warp
	constexpr int U = 8;
	trips<U>(count, [&](int i, auto whole) {
		float v[U];
#pragma unroll
		for (int u = 0; u < U; u++) v[u] = logits[(warp + (whole.value ? i + u : min(i + u, count - 1)) * warps) * LANES];
#pragma unroll
		for (int u = 0; u < U; u++) { // the last one again changes nothing
			odd |= v[u] != v[u];
			if (v[u] > top) top = v[u], best = warp + (i + u) * warps;
		}
	});
	room[warp * 32 + lane] = top;
	((int *)room)[(warps + warp) * 32 + lane] = odd ? -1 : best;
	__syncthreads();
	for (int i = 0; i < warps; i++) {
		const float t = room[i * 32 + lane];
		const int k = ((int *)room)[(warps + i) * 32 + lane];
		odd |= k < 0;
		if (t > top || (t == top && k < best)) top = t, best = k;
	}
	float sum = 0;
	for (int k = warp; k < a.k; k += warps) sum += expf(logits[k * LANES] - top);
	room[(2 * warps + warp) * 32 + lane] = sum;
	__syncthreads();
	sum = 0;
	for (int i = 0; i < warps; i++) sum += room[(2 * warps + i) * 32 + lane];
	if (warp == 0) {
		const float loss = logf(sum) + top - (label < 0 ? 0 : logits[label * LANES]);
		a.loss[b * LANES + lane] = label < 0 ? 0 : odd ? NAN : loss;
		a.correct[b * LANES + lane] = label >= 0 && !odd && best == label;
	}
	if (!a.dlogits) return;
	float *d = a.dlogits + (long long)b * a.k * LANES + lane;
	for (int k = warp; k < a.k; k += warps) {
		const float p = expf(logits[k * LANES] - top) / sum - (k == label);
		d[k * LANES] = label < 0 ? 0 : a.gain * p;
	}
}

// dpool = weightᵀ·dlogits: grid (⌈c/warps⌉, B).
KERNEL(linear_grad, igc_head, 256) {
	const int lane = threadIdx.x, c = blockIdx.x * blockDim.y + threadIdx.y, b = blockIdx.y;
	if (c >= a.c) return;
	const float *d = a.dlogits + (long long)b * a.k * LANES + lane;
	float s = 0;
	for (int k = 0; k < a.k; k++) s = fmaf(a.weight[(long long)k * a.c + c], d[k * LANES], s);
	a.dpool[((long long)b * a.c + c) * LANES + lane] = s;
}

// dweight = dlogits·poolᵀ, dbias = Σ dlogits, over all pictures: grid
// (⌈c/warps⌉, k).
KERNEL(linear_weight_grad, igc_head, 256) {
	const int lane = threadIdx.x, c = blockIdx.x * blockDim.y + threadIdx.y, k = blockIdx.y;
	if (c >= a.c) return;
	float s[2] = {0, 0};
	for (int b = 0; b < a.blocks; b++) {
		const float d = a.dlogits[((long long)b * a.k + k) * LANES + lane];
		s[0] = fmaf(d, a.pool[((long long)b * a.c + c) * LANES + lane], s[0]);
		s[1] += d;
	}
	lane_sums(s);
	if (lane == 0) a.dweight[(long long)k * a.c + c] = s[0];
	if (lane == 16 && c == 0) a.dbias[k] = s[0];
}
