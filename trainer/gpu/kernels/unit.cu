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
	const float *z = a.z + from, *x = a.x + from;
	float *out = a.out + from;
	constexpr int U = 8;
	trips<U>(a.w, [&](int i, auto whole) {
		float v[U], y[U];
#pragma unroll
		for (int u = 0; u < U; u++) v[u] = z[(whole.value ? i + u : min(i + u, a.w - 1)) * LANES];
		if (a.x)
#pragma unroll
			for (int u = 0; u < U; u++) y[u] = x[(whole.value ? i + u : min(i + u, a.w - 1)) * LANES];
#pragma unroll
		for (int u = 0; u < U; u++) {
			v[u] = fmaf(scale, v[u], shift);
			if (a.x) v[u] += fmaf(xscale, y[u], xshift);
			if (whole.value || i + u < a.w) out[(i + u) * LANES] = at_least(a.low, v[u]);
		}
	});
}

// gx is the gradient of both terms.
__device__ __forceinline__ void add_grad_row(const igc_unit &a) {
	ROW(a.h);
	(void)scale, (void)shift;
	const long long from = (((long long)b * a.c + c) * a.h + row) * a.w * LANES + lane;
	const bool valid = b * LANES + lane < a.n;
	const float *out = a.out + from, *g = a.g + from, *z = a.z + from, *x = a.x + from;
	float *gx = a.gx + from, sg = 0, sz = 0, sx = 0;
	constexpr int U = 4;
	trips<U>(a.w, [&](int i, auto whole) {
		float vo[U], vg[U], vz[U], vx[U];
#pragma unroll
		for (int u = 0; u < U; u++) {
			const int at = (whole.value ? i + u : min(i + u, a.w - 1)) * LANES;
			vo[u] = a.out ? out[at] : 0, vg[u] = g[at], vz[u] = z[at];
		}
		if (a.xsums)
#pragma unroll
			for (int u = 0; u < U; u++) vx[u] = x[(whole.value ? i + u : min(i + u, a.w - 1)) * LANES];
#pragma unroll
		for (int u = 0; u < U; u++) {
			if (!whole.value && i + u >= a.w) break;
			const float v = valid && !(vo[u] <= a.low) ? vg[u] : 0;
			gx[(i + u) * LANES] = v;
			sg += v;
			sz = fmaf(v, vz[u], sz);
			if (a.xsums) sx = fmaf(v, vx[u], sx);
		}
	});
	put_sums(a.sums, c, a.parts, b * a.h + row, sg, sz);
	if (a.xsums) put_sums(a.xsums, c, a.parts, b * a.h + row, sg, sx);
}

KERNEL(add_grad, igc_unit, 256) {
	add_grad_row(a);
	end_rows(a);
}

// The largest of 3×3 positions, two apart; what is no number wins. Places outside are
// those next to them, which the window has anyway.
KERNEL(max_pool, igc_unit, 256) {
	const int oh = (a.h + 1) / 2, ow = (a.w + 1) / 2;
	ROW(oh);
	const float *z = a.z + ((long long)b * a.c + c) * a.h * a.w * LANES + lane;
	float *out = a.out + (((long long)b * a.c + c) * oh + row) * ow * LANES + lane;
	constexpr int U = 2;
	trips<U>(ow, [&](int w, auto whole) {
		float v[3][2 * U + 1];
#pragma unroll
		for (int i = 0; i < 3; i++)
#pragma unroll
			for (int j = 0; j < 2 * U + 1; j++) {
				const int h = min(max(2 * row - 1 + i, 0), a.h - 1), at = min(max(2 * w - 1 + j, 0), a.w - 1);
				v[i][j] = z[(h * a.w + at) * LANES];
			}
#pragma unroll
		for (int u = 0; u < U; u++) {
			if (!whole.value && w + u >= ow) break;
			float top = 0;
#pragma unroll
			for (int i = 0; i < 3; i++)
#pragma unroll
				for (int j = 2 * u; j < 2 * u + 3; j++) {
					const float y = at_least(0, fmaf(scale, v[i][j], shift));
					if (y > top || y != y) top = y;
				}
			out[(w + u) * LANES] = top;
		}
	});
}

// The gradient of a position is that of each window in which it is the first, row by
// row, that has the largest value: PyTorch's rule. Where that is 0, the ReLU stops it.
//
// A thread takes two positions at a time, of columns w and w + 1 with an even w. They
// lie in the windows w/2 and, the second, w/2 + 1. Rows above the row in question are
// those of the windows; an odd row has two rows of windows.
__device__ __forceinline__ void max_pool_grad_row(const igc_unit &a) {
	const int oh = (a.h + 1) / 2, ow = (a.w + 1) / 2;
	ROW(a.h);
	const bool valid = b * LANES + lane < a.n, odd = row % 2;
	const long long plane = ((long long)b * a.c + c) * a.h * a.w * LANES + lane;
	const long long small = ((long long)b * a.c + c) * oh * ow * LANES + lane;
	float *gx = a.gx + plane + row * a.w * LANES, sg = 0, sz = 0;
	for (int w = 0; w < a.w; w += 2) {
		float z[3][5], out[2][2], g[2][2]; // columns from w − 1, rows from row − 2 on; windows
#pragma unroll
		for (int i = 0; i < 3; i++)
#pragma unroll
			for (int j = 0; j < 5; j++)
				z[i][j] = a.z[plane + (max(row - 2 + i, 0) * a.w + min(max(w - 1 + j, 0), a.w - 1)) * LANES];
#pragma unroll
		for (int y = 0; y < 2; y++)
#pragma unroll
			for (int x = 0; x < 2; x++) {
				const long long at = small + (min(row / 2 + y, oh - 1) * ow + min(w / 2 + x, ow - 1)) * LANES;
				out[y][x] = a.out[at], g[y][x] = a.g[at];
			}
#pragma unroll
		for (int u = 0; u < 2; u++) {
			if (w + u >= a.w) break;
			const float v = at_least(0, fmaf(scale, z[2][1 + u], shift));
			float sum = 0;
#pragma unroll
			for (int y = 0; y < 2; y++)
#pragma unroll
				for (int x = 0; x <= u; x++) {
					bool first = v > 0 && out[y][x] == v && (y == 0 || (odd && row / 2 + 1 < oh)) && w / 2 + x < ow;
#pragma unroll
					for (int i = 0; i < 3; i++) {
						// The first row of the window: an odd row is its third or its first.
						const bool in = row - 2 + i >= 0 && i >= (y == 1 ? 2 : odd ? 0 : 1);
#pragma unroll
						for (int j = 2 * x; j < (i < 2 ? 2 * x + 3 : 1 + u); j++)
							if (in && w - 1 + j >= 0 && w - 1 + j < a.w && at_least(0, fmaf(scale, z[i][j], shift)) == v)
								first = false;
					}
					if (first) sum += g[y][x];
				}
			if (!valid) sum = 0;
			gx[(w + u) * LANES] = sum;
			sg += sum;
			sz = fmaf(sum, z[2][1 + u], sz);
		}
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
	const int size = a.h * a.w, warp = threadIdx.y, warps = blockDim.y, count = (size - warp + warps - 1) / warps;
	constexpr int U = 8;
	float s = 0;
	trips<U>(count, [&](int i, auto whole) {
		float v[U];
#pragma unroll
		for (int u = 0; u < U; u++) v[u] = z[(warp + (whole.value ? i + u : min(i + u, count - 1)) * warps) * LANES];
#pragma unroll
		for (int u = 0; u < U; u++)
			if (whole.value || i + u < count) s += at_least(a.low, fmaf(scale, v[u], shift));
	});
	room[warp * 32 + lane] = s;
	__syncthreads();
	if (warp != 0) return;
	for (int i = 1; i < warps; i++) s += room[i * 32 + lane];
	a.out[((long long)b * a.c + c) * LANES + lane] = s / (a.h * a.w);
}

// g is (B, c, 32).
__device__ __forceinline__ void pool_grad_row(const igc_unit &a) {
	ROW(a.h);
	const long long from = (((long long)b * a.c + c) * a.h + row) * a.w * LANES + lane;
	const bool valid = b * LANES + lane < a.n;
	const float g = valid ? a.g[((long long)b * a.c + c) * LANES + lane] / (a.h * a.w) : 0;
	const float *z = a.z + from;
	float *gx = a.gx + from, sg = 0, sz = 0;
	constexpr int U = 8;
	trips<U>(a.w, [&](int i, auto whole) {
		float v[U];
#pragma unroll
		for (int u = 0; u < U; u++) v[u] = z[(whole.value ? i + u : min(i + u, a.w - 1)) * LANES];
#pragma unroll
		for (int u = 0; u < U; u++) {
			if (!whole.value && i + u >= a.w) break;
			const float y = fmaf(scale, v[u], shift) <= a.low ? 0 : g;
			gx[(i + u) * LANES] = y;
			sg += y;
			sz = fmaf(y, v[u], sz);
		}
	});
	if (a.sums) put_sums(a.sums, c, a.parts, b * a.h + row, sg, sz);
}

KERNEL(pool_grad, igc_unit, 256) {
	pool_grad_row(a);
	end_rows(a);
}

// Four elements at a time: the tensors are whole blocks of 32.
KERNEL(sum, igc_sum, 256) {
	const long long step = (long long)gridDim.x * blockDim.x;
	for (long long i = (long long)blockIdx.x * blockDim.x + threadIdx.x; i < a.len / 4; i += step) {
		const float4 x = __ldg((const float4 *)a.a + i), y = __ldg((const float4 *)a.b + i);
		((float4 *)a.to)[i] = make_float4(x.x + y.x, x.y + y.y, x.z + y.z, x.w + y.w);
	}
}
