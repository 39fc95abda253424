// The gradient of a convolution's weights: a sum over pictures and positions.
//
// A thread adds up CO×CI kernels over some rows of one picture, a warp does so for 32
// pictures and adds them at the end. Each part of the rows has a result of its own; the
// update adds them in their order, so the sum does not depend on who was first.
//
// A thread waits for memory once for U positions: their loads are issued before any of
// them is needed, and none stands in a branch. Where a load would lie outside of the
// picture it reads the nearest place inside, and the value is not used.
#include "conv.h"

// Tile is what a warp computes. A tile that would reach beyond the last channel begins
// earlier, and does not write what the tile before it writes.
template <int CO, int CI>
struct Tile {
	bool there;       // such a tile is there
	int oskip, iskip; // the first channels of the tile that are not written
	int k;            // the place in the kernel, if a tile has only one
	int from, to;     // rows of the output
	// Of the first channels: row 0 of the inputs, and the place of the results.
	const float *x, *dz, *z;
	float *dw;
	int xstep, dstep; // from a channel to the next
	float scale[CI], shift[CI], ca[CO], cb[CO], cc[CO];
};

// tile_of finds the tile of this warp for kernels of so many positions, of which a tile
// has each or only one.
template <int CO, int CI, bool TWO>
__device__ __forceinline__ Tile<CO, CI> tile_of(const igc_weight_grad &a, int positions, bool each) {
	Tile<CO, CI> t;
	const int lane = threadIdx.x, warps = blockDim.y / a.across;
	const int part = blockIdx.y * warps + threadIdx.y / a.across;
	int task = blockIdx.x * a.across + threadIdx.y % a.across;
	t.there = task < a.tasks && part < a.parts;
	if (!t.there) return t;
	t.k = 0;
	if (!each) t.k = task % positions, task /= positions;
	const int otiles = (a.co + CO - 1) / CO, itiles = (a.ci + CI - 1) / CI;
	const int is = task % itiles * CI, os = task / itiles % otiles * CO, g = task / itiles / otiles;
	const int i0 = min(is, a.ci - CI), o0 = min(os, a.co - CO);
	t.iskip = is - i0, t.oskip = os - o0;
	t.dw = a.dw + (((long long)part * a.groups * a.co + g * a.co + o0) * a.ci + i0) * positions + t.k;
	const int per = (a.OH + a.rows - 1) / a.rows, b = part / per;
	t.from = part % per * a.rows, t.to = min(t.from + a.rows, a.OH);

	const int xch = first_channel(g, a.ci, a.in) + i0 * a.in.by, dch = first_channel(g, a.co, a.out) + o0 * a.out.by;
	const int hw = a.H * a.W * LANES, ohw = a.OH * a.OW * LANES;
	const long long plane = ((long long)b * a.groups * a.co + dch) * ohw + lane;
	t.x = a.x + ((long long)b * a.groups * a.ci + xch) * hw + lane;
	t.dz = a.g + plane;
	t.z = TWO ? a.z + plane : nullptr;
	t.xstep = a.in.by * hw, t.dstep = a.out.by * ohw;
#pragma unroll
	for (int i = 0; i < CI; i++) {
		t.scale[i] = a.scale ? a.scale[xch + i * a.in.by] : 1;
		t.shift[i] = a.scale ? a.shift[xch + i * a.in.by] : 0;
	}
	if (TWO) {
		const bool valid = b * LANES + lane < a.n; // the others have 0: what lies there are numbers
#pragma unroll
		for (int o = 0; o < CO; o++) {
			t.ca[o] = valid ? a.ca[dch + o * a.out.by] : 0;
			t.cb[o] = valid ? a.cb[dch + o * a.out.by] : 0;
			t.cc[o] = valid ? a.cc[dch + o * a.out.by] : 0;
		}
	}
	return t;
}

// put_tile adds acc, (CO, CI, K), over the lanes and writes it to a kernel of so many
// positions.
template <int CO, int CI, int K, int N0 = 0>
__device__ __forceinline__ void put_tile(const Tile<CO, CI> &t, const float (&acc)[CO * CI * K], int ci, int positions) {
	constexpr int N = CO * CI * K, some = N - N0 < 32 ? N - N0 : 32, most = power(some);
	const int lane = threadIdx.x;
	float s[most];
#pragma unroll
	for (int i = 0; i < most; i++) s[i] = i < some ? acc[N0 + (i < some ? i : 0)] : 0;
	lane_sums(s);
	const int n = N0 + lane / (32 / most), k = n % K, i = n / K % CI, o = n / K / CI;
	if (lane % (32 / most) == 0 && n < N && i >= t.iskip && o >= t.oskip) t.dw[(o * ci + i) * positions + k] = s[0];
	if constexpr (N0 + 32 < N) put_tile<CO, CI, K, N0 + 32>(t, acc, ci, positions);
}

// gradient_of is the gradient of the output in channel o.
template <bool TWO, int CO, int CI>
__device__ __forceinline__ float gradient_of(const Tile<CO, CI> &t, int o, float g, float z) {
	return TWO ? fmaf(t.ca[o], g, fmaf(t.cb[o], z, t.cc[o])) : g;
}

// 3×3 kernels of stride S. The columns of the input come U·S at a time, and two of them
// (S = 1) or one stays for the next position. With S = 1 a position is complete when the
// column right of it has come, so that its gradient stays as well.
template <int S, int CO, int CI, int U, bool TWO>
__device__ __forceinline__ void weight_grad3x3(const igc_weight_grad &a) {
	constexpr int OLD = 3 - S, LATE = S == 1 ? 1 : 0;
	const Tile<CO, CI> t = tile_of<CO, CI, TWO>(a, 9, true);
	if (!t.there) return;
	const int H = a.H, W = a.W, OW = a.OW;
	const float low = a.low;
	float acc[CO * CI * 9];
#pragma unroll
	for (int n = 0; n < CO * CI * 9; n++) acc[n] = 0;

	for (int oh = t.from; oh < t.to; oh++) {
		const float *row[3], *dz = t.dz + (long long)oh * OW * LANES, *z = TWO ? t.z + (long long)oh * OW * LANES : nullptr;
		float scale[3][CI], shift[3][CI]; // 0 outside of the picture
#pragma unroll
		for (int kh = 0; kh < 3; kh++) {
			const int h = oh * S - 1 + kh;
			const bool inside = kh == 0 ? h >= 0 : kh == 1 || h < H;
			row[kh] = t.x + (long long)(inside ? h : oh * S) * W * LANES;
#pragma unroll
			for (int i = 0; i < CI; i++) {
				scale[kh][i] = inside ? t.scale[i] : 0, shift[kh][i] = inside ? t.shift[i] : 0;
			}
		}
		float x[CI][3][OLD + U * S], d[CO][LATE + U];
#pragma unroll
		for (int i = 0; i < CI; i++)
#pragma unroll
			for (int kh = 0; kh < 3; kh++)
#pragma unroll
				for (int c = 0; c < OLD; c++) x[i][kh][c] = 0;
#pragma unroll
		for (int o = 0; o < CO; o++) d[o][0] = 0;

		// add adds a position, whose columns begin at c, to the sums.
		auto add = [&](int c, int u, int columns) {
#pragma unroll
			for (int o = 0; o < CO; o++)
#pragma unroll
				for (int i = 0; i < CI; i++)
#pragma unroll
					for (int kh = 0; kh < 3; kh++)
#pragma unroll
						for (int kw = 0; kw < columns; kw++) {
							const int n = (o * CI + i) * 9 + kh * 3 + kw;
							acc[n] = fmaf(d[o][u], x[i][kh][c + kw], acc[n]);
						}
		};
		// trip takes U positions, or the rest of them, from p on.
		auto trip = [&](int p, auto whole) {
			int xstep = t.xstep, dstep = t.dstep;
			OPAQUE(xstep);
			OPAQUE(dstep);
			float g1[CO][U], z1[CO][U], x1[CI][3][U * S];
#pragma unroll
			for (int u = 0; u < U; u++) {
				const int at = whole.value ? u : min(u, OW - 1 - p);
#pragma unroll
				for (int o = 0; o < CO; o++) {
					g1[o][u] = __ldg(dz + (long long)o * dstep + at * LANES);
					z1[o][u] = TWO ? __ldg(z + (long long)o * dstep + at * LANES) : 0;
				}
			}
#pragma unroll
			for (int c = 0; c < U * S; c++) {
				const int at = whole.value ? c : min(c, W - 1 - p * S);
#pragma unroll
				for (int i = 0; i < CI; i++)
#pragma unroll
					for (int kh = 0; kh < 3; kh++) x1[i][kh][c] = __ldg(row[kh] + (long long)i * xstep + at * LANES);
			}
#pragma unroll
			for (int u = 0; u < U; u++) {
#pragma unroll
				for (int c = u * S; c < u * S + S; c++)
#pragma unroll
					for (int i = 0; i < CI; i++)
#pragma unroll
						for (int kh = 0; kh < 3; kh++) {
							const float v = fmaxf(low, fmaf(scale[kh][i], x1[i][kh][c], shift[kh][i]));
							x[i][kh][OLD + c] = whole.value || p * S + c < W ? v : 0;
						}
#pragma unroll
				for (int o = 0; o < CO; o++) {
					const float v = gradient_of<TWO>(t, o, g1[o][u], z1[o][u]);
					d[o][LATE + u] = whole.value || p + u < OW ? v : 0;
				}
				add(u * S, u, 3);
			}
#pragma unroll
			for (int i = 0; i < CI; i++)
#pragma unroll
				for (int kh = 0; kh < 3; kh++)
#pragma unroll
					for (int c = 0; c < OLD; c++) x[i][kh][c] = x[i][kh][U * S + c];
			if (LATE)
#pragma unroll
				for (int o = 0; o < CO; o++) d[o][0] = d[o][U];
		};
		int p = 0;
		for (; (p + U) * S <= W; p += U) {
			trip(p, Whole<true>());
#pragma unroll
			for (int kh = 0; kh < 3; kh++) row[kh] += U * S * LANES;
			dz += U * LANES;
			if (TWO) z += U * LANES;
		}
		if (p < OW) trip(p, Whole<false>());
		if (LATE) add(0, 0, 2); // the last position, which has no column right of it
	}
	put_tile<CO, CI, 9>(t, acc, a.ci, 9);
}

// 1×1 kernels of stride 1: the rows of a part are one run of positions. Without NORMAL
// the input is only held to low.
template <int CO, int CI, int U, bool NORMAL>
__device__ __forceinline__ void weight_grad1x1(const igc_weight_grad &a) {
	const Tile<CO, CI> t = tile_of<CO, CI, false>(a, 1, true);
	if (!t.there) return;
	const float low = a.low;
	float acc[CO * CI];
#pragma unroll
	for (int n = 0; n < CO * CI; n++) acc[n] = 0;
	const long long first = (long long)t.from * a.W * LANES;
	const float *x = t.x + first, *dz = t.dz + first;
	int left = (t.to - t.from) * a.W;
	auto trip = [&](auto whole) {
		int xstep = t.xstep, dstep = t.dstep;
		OPAQUE(xstep);
		OPAQUE(dstep);
		float x1[CI][U], d[CO][U];
#pragma unroll
		for (int u = 0; u < U; u++) {
			const int at = whole.value ? u : min(u, left - 1);
#pragma unroll
			for (int i = 0; i < CI; i++) x1[i][u] = __ldg(x + (long long)i * xstep + at * LANES);
#pragma unroll
			for (int o = 0; o < CO; o++) d[o][u] = __ldg(dz + (long long)o * dstep + at * LANES);
		}
#pragma unroll
		for (int u = 0; u < U; u++) {
			float v[CI];
#pragma unroll
			for (int i = 0; i < CI; i++) v[i] = fmaxf(low, NORMAL ? fmaf(t.scale[i], x1[i][u], t.shift[i]) : x1[i][u]);
#pragma unroll
			for (int o = 0; o < CO; o++)
#pragma unroll
				for (int i = 0; i < CI; i++)
					acc[o * CI + i] = fmaf(whole.value || u < left ? d[o][u] : 0, v[i], acc[o * CI + i]);
		}
	};
	for (; left >= U; left -= U) {
		trip(Whole<true>());
		x += U * LANES, dz += U * LANES;
	}
	if (left > 0) trip(Whole<false>());
	put_tile<CO, CI, 1>(t, acc, a.ci, 1);
}

// Kernels of any size and stride: one position of the kernel at a time.
template <int CO, int CI, int U, bool TWO>
__device__ __forceinline__ void weight_grad_any(const igc_weight_grad &a) {
	const Tile<CO, CI> t = tile_of<CO, CI, TWO>(a, a.kh * a.kw, false);
	if (!t.there) return;
	const int H = a.H, W = a.W, OW = a.OW, stride = a.stride;
	const float low = a.low;
	float acc[CO * CI];
#pragma unroll
	for (int n = 0; n < CO * CI; n++) acc[n] = 0;
	for (int oh = t.from; oh < t.to; oh++) {
		const int h = oh * stride + t.k / a.kw - a.kh / 2, w0 = t.k % a.kw - a.kw / 2;
		if (h < 0 || h >= H) continue;
		const float *x = t.x + (long long)h * W * LANES, *dz = t.dz + (long long)oh * OW * LANES;
		const float *z = TWO ? t.z + (long long)oh * OW * LANES : nullptr;
		for (int p = 0; p < OW; p += U) {
			int xstep = t.xstep, dstep = t.dstep;
			OPAQUE(xstep);
			OPAQUE(dstep);
			float x1[CI][U], g1[CO][U], z1[CO][U];
#pragma unroll
			for (int u = 0; u < U; u++) {
				const int at = min(p + u, OW - 1) * LANES, xat = min(max((p + u) * stride + w0, 0), W - 1) * LANES;
#pragma unroll
				for (int i = 0; i < CI; i++) x1[i][u] = __ldg(x + (long long)i * xstep + xat);
#pragma unroll
				for (int o = 0; o < CO; o++) {
					g1[o][u] = __ldg(dz + (long long)o * dstep + at);
					z1[o][u] = TWO ? __ldg(z + (long long)o * dstep + at) : 0;
				}
			}
#pragma unroll
			for (int u = 0; u < U; u++) {
				const int w = (p + u) * stride + w0;
				const bool inside = p + u < OW && w >= 0 && w < W;
				float v[CI];
#pragma unroll
				for (int i = 0; i < CI; i++) v[i] = fmaxf(low, fmaf(t.scale[i], x1[i][u], t.shift[i]));
#pragma unroll
				for (int o = 0; o < CO; o++) {
					const float d = inside ? gradient_of<TWO>(t, o, g1[o][u], z1[o][u]) : 0;
#pragma unroll
					for (int i = 0; i < CI; i++) acc[o * CI + i] = fmaf(d, v[i], acc[o * CI + i]);
				}
			}
		}
	}
	put_tile<CO, CI, 1>(t, acc, a.ci, a.kh * a.kw);
}

// The kernels, with the positions that a thread takes at a time: as many as 128
// registers hold. plain: the gradient of the output is g; gradient: it is made of g and
// z. tilesOf in ../conv.go lists the tiles.
#define GRAD3X3(CO, CI, U) \
	KERNEL(weight_grad3x3_plain_##CO##x##CI, igc_weight_grad, 256) { weight_grad3x3<1, CO, CI, U, false>(a); }
GRAD3X3(1, 1, 4)
GRAD3X3(2, 2, 4)
GRAD3X3(3, 1, 4)
GRAD3X3(4, 1, 4)
GRAD3X3(5, 1, 4)

#define GRAD3X3_TWO(CO, CI, U) \
	KERNEL(weight_grad3x3_gradient_##CO##x##CI, igc_weight_grad, 256) { weight_grad3x3<1, CO, CI, U, true>(a); }
GRAD3X3_TWO(1, 1, 4)
GRAD3X3_TWO(2, 2, 2)
GRAD3X3_TWO(4, 1, 4)

#define GRAD3X3S2(CO, CI, U) \
	KERNEL(weight_grad3x3s2_plain_##CO##x##CI, igc_weight_grad, 256) { weight_grad3x3<2, CO, CI, U, false>(a); }
GRAD3X3S2(1, 1, 4)
GRAD3X3S2(2, 2, 2)
GRAD3X3S2(3, 1, 4)
GRAD3X3S2(4, 1, 4)
GRAD3X3S2(6, 1, 2)

#define GRAD3X3S2_TWO(CO, CI, U) \
	KERNEL(weight_grad3x3s2_gradient_##CO##x##CI, igc_weight_grad, 256) { weight_grad3x3<2, CO, CI, U, true>(a); }
GRAD3X3S2_TWO(1, 1, 4)
GRAD3X3S2_TWO(2, 2, 2)
GRAD3X3S2_TWO(4, 1, 2)

#define GRAD1X1(CO, CI, U) \
	KERNEL(weight_grad1x1_plain_##CO##x##CI, igc_weight_grad, 256) { weight_grad1x1<CO, CI, U, false>(a); }
GRAD1X1(1, 1, 4)
GRAD1X1(2, 2, 4)
GRAD1X1(3, 3, 4)
GRAD1X1(4, 4, 4)
GRAD1X1(5, 5, 4)
GRAD1X1(6, 6, 2)
GRAD1X1(7, 7, 2)
GRAD1X1(8, 8, 2)

// The input is normalised.
#define GRAD1X1_NORMAL(CO, CI, U) \
	KERNEL(weight_grad1x1_normal_plain_##CO##x##CI, igc_weight_grad, 256) { weight_grad1x1<CO, CI, U, true>(a); }
GRAD1X1_NORMAL(1, 1, 4)
GRAD1X1_NORMAL(2, 2, 4)
GRAD1X1_NORMAL(4, 4, 4)

#define GRAD_ANY(CO, CI) \
	KERNEL(weight_grad_any_plain_##CO##x##CI, igc_weight_grad, 256) { weight_grad_any<CO, CI, 2, false>(a); } \
	KERNEL(weight_grad_any_gradient_##CO##x##CI, igc_weight_grad, 256) { weight_grad_any<CO, CI, 2, true>(a); }
GRAD_ANY(1, 1)
GRAD_ANY(2, 2)
GRAD_ANY(4, 4)
