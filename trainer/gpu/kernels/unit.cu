// What lies between convolutions: the end of a residual unit, the max pool, the
// global average pool, the sum of two gradients.
//
// A warp takes a row of a channel of 32 pictures: grid (⌈rows/warps⌉, c, B).
#include "norm.h"

// put_sums writes the sums of a row over its pictures.
__device__ __forceinline__ void put_sums(float *sums, int c, int parts, int part, float g, float gz) {
	float s[2] = {g, gz};
	lane_sums(s);
	if (threadIdx.x % 16 == 0) sums[((long long)c * parts + part) * 2 + threadIdx.x / 16] = s[0];
}

// end_rows ends the normalisations of channel blockIdx.y, if the block is the last that has sums of it.
__device__ __forceinline__ void end_rows(const igc_unit &a) {
	if (!a.norm.counters || !last_block(a.norm.counters)) return;
	auto channel = [](int) { return (int)blockIdx.y; };
	end_norm<2>(a.norm, a.sums, a.parts, 1, channel, norm_backward);
	if (a.xsums) end_norm<2>(a.xnorm, a.xsums, a.parts, 1, channel, norm_backward);
}

#define ROW(height) \
	const int lane = threadIdx.x, row = blockIdx.x * blockDim.y + threadIdx.y, c = blockIdx.y, b = blockIdx.z; \
	if (row >= height) return; \
	const float scale = a.scale ? a.scale[c] : 1, shift = a.scale ? a.shift[c] : 0

KERNEL(add, igc_unit, 256) {
	ROW(a.h);
	const long long from = (((long long)b * a.c + c) * a.h + row) * a.w * LANES + lane;
	const float xscale = a.xscale ? a.xscale[c] : 1, xshift = a.xscale ? a.xshift[c] : 0;
	for (int i = 0; i < a.w; i++) {
		const long long at = from + i * LANES;
		float v = fmaf(scale, a.z[at], shift);
		if (a.x) v += fmaf(xscale, a.x[at], xshift);
		a.out[at] = at_least(0, v);
	}
}

// gx is the gradient of both terms.
__device__ __forceinline__ void add_grad_row(const igc_unit &a) {
	ROW(a.h);
	(void)scale, (void)shift;
	const long long from = (((long long)b * a.c + c) * a.h + row) * a.w * LANES + lane;
	const bool valid = b * LANES + lane < a.n;
	float sg = 0, sz = 0, sx = 0;
	for (int i = 0; i < a.w; i++) {
		const long long at = from + i * LANES;
		const float g = valid && !(a.out[at] <= 0) ? a.g[at] : 0;
		a.gx[at] = g;
		sg += g;
		sz += g * a.z[at];
		if (a.xsums) sx += g * a.x[at];
	}
	put_sums(a.sums, c, a.parts, b * a.h + row, sg, sz);
	if (a.xsums) put_sums(a.xsums, c, a.parts, b * a.h + row, sg, sx);
}

KERNEL(add_grad, igc_unit, 256) {
	add_grad_row(a);
	end_rows(a);
}

// The largest of 3×3 positions, two apart; what is no number wins.
KERNEL(max_pool, igc_unit, 256) {
	const int oh = (a.h + 1) / 2, ow = (a.w + 1) / 2;
	ROW(oh);
	const float *z = a.z + ((long long)b * a.c + c) * a.h * a.w * LANES + lane;
	float *out = a.out + (((long long)b * a.c + c) * oh + row) * ow * LANES + lane;
	for (int w = 0; w < ow; w++) {
		float top = 0;
		for (int i = max(2 * row - 1, 0); i < min(2 * row + 2, a.h); i++)
			for (int j = max(2 * w - 1, 0); j < min(2 * w + 2, a.w); j++) {
				const float v = at_least(0, fmaf(scale, z[(i * a.w + j) * LANES], shift));
				if (v > top || v != v) top = v;
			}
		out[w * LANES] = top;
	}
}

// The gradient of a position is that of each window in which it is the first, row by
// row, that has the largest value: PyTorch's rule. Where that is 0, the ReLU stops it.
__device__ __forceinline__ void max_pool_grad_row(const igc_unit &a) {
	const int oh = (a.h + 1) / 2, ow = (a.w + 1) / 2;
	ROW(a.h);
	const bool valid = b * LANES + lane < a.n;
	const long long plane = ((long long)b * a.c + c) * a.h * a.w * LANES + lane;
	const long long small = ((long long)b * a.c + c) * oh * ow * LANES + lane;
	float sg = 0, sz = 0;
	for (int w = 0; w < a.w; w++) {
		const long long at = plane + (row * a.w + w) * LANES;
		const float z = a.z[at], v = at_least(0, fmaf(scale, z, shift));
		float g = 0;
		for (int y = row / 2; y <= (row + 1) / 2 && y < oh; y++)
			for (int x = w / 2; x <= (w + 1) / 2 && x < ow; x++) {
				if (v <= 0 || a.out[small + (y * ow + x) * LANES] != v) continue;
				bool first = true;
				for (int i = max(2 * y - 1, 0); i <= row; i++)
					for (int j = max(2 * x - 1, 0); j < min(2 * x + 2, a.w) && (i < row || j < w); j++)
						if (at_least(0, fmaf(scale, a.z[plane + (i * a.w + j) * LANES], shift)) == v) first = false;
				if (first) g += a.g[small + (y * ow + x) * LANES];
			}
		if (!valid) g = 0;
		a.gx[at] = g;
		sg += g;
		sz += g * z;
	}
	put_sums(a.sums, c, a.parts, b * a.h + row, sg, sz);
}

KERNEL(max_pool_grad, igc_unit, 256) {
	max_pool_grad_row(a);
	end_rows(a);
}

// The mean over all positions: grid (1, c, B).
KERNEL(pool, igc_unit, 256) {
	SHARED(float, room); // (8, 32)
	const int lane = threadIdx.x, c = blockIdx.y, b = blockIdx.z;
	const float scale = a.scale ? a.scale[c] : 1, shift = a.scale ? a.shift[c] : 0;
	const float *z = a.z + ((long long)b * a.c + c) * a.h * a.w * LANES + lane;
	float s = 0;
	for (int p = threadIdx.y; p < a.h * a.w; p += blockDim.y) s += at_least(0, fmaf(scale, z[p * LANES], shift));
	room[threadIdx.y * 32 + lane] = s;
	__syncthreads();
	if (threadIdx.y != 0) return;
	for (int i = 1; i < (int)blockDim.y; i++) s += room[i * 32 + lane];
	a.out[((long long)b * a.c + c) * LANES + lane] = s / (a.h * a.w);
}

// g is (B, c, 32). Without a scale, z is what a ReLU let pass, and whoever made it has
// its mask.
__device__ __forceinline__ void pool_grad_row(const igc_unit &a) {
	ROW(a.h);
	const long long from = (((long long)b * a.c + c) * a.h + row) * a.w * LANES + lane;
	const bool valid = b * LANES + lane < a.n;
	const float g = valid ? a.g[((long long)b * a.c + c) * LANES + lane] / (a.h * a.w) : 0;
	float sg = 0, sz = 0;
	for (int i = 0; i < a.w; i++) {
		const long long at = from + i * LANES;
		const float z = a.z[at], gx = a.scale && fmaf(scale, z, shift) <= 0 ? 0 : g;
		a.gx[at] = gx;
		sg += gx;
		sz += gx * z;
	}
	if (a.sums) put_sums(a.sums, c, a.parts, b * a.h + row, sg, sz);
}

KERNEL(pool_grad, igc_unit, 256) {
	pool_grad_row(a);
	end_rows(a);
}

KERNEL(sum, igc_sum, 256) {
	const long long step = (long long)gridDim.x * blockDim.x;
	for (long long i = (long long)blockIdx.x * blockDim.x + threadIdx.x; i < a.len; i += step) a.to[i] = a.a[i] + a.b[i];
}
