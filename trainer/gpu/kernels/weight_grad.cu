// The gradient of a convolution's weights: a sum over pictures and positions.
//
// A thread adds up CO×CI kernels over some rows of one picture, a warp does so for 32
// pictures and adds them at the end. Each part of the rows has a result of its own; the
// update adds them in their order, so the sum does not depend on who was first.
#include "conv.h"

template <int KH, int KW, int S, int CO, int CI, bool ANY>
__device__ __forceinline__ void weight_grad(const igc_weight_grad &a) {
	constexpr int K = KH * KW, N = CO * CI * K;
	constexpr bool ring = S == 1 && KW == 3; // columns stay in registers while the window moves
	const int lane = threadIdx.x;
	int task = blockIdx.x * blockDim.y + threadIdx.y;
	if (task >= a.tasks) return;
	const int H = a.H, W = a.W, OW = a.OW, kernel = ANY ? a.kh * a.kw : K, stride = ANY ? a.stride : S;
	int kh0 = -(KH / 2), kw0 = -(KW / 2), k0 = 0;
	if (ANY) { // one position of the kernel at a time
		k0 = task % kernel, task /= kernel;
		kh0 = k0 / a.kw - a.kh / 2, kw0 = k0 % a.kw - a.kw / 2;
	}
	const int os = (a.co + CO - 1) / CO, is = (a.ci + CI - 1) / CI;
	const int i0 = task % is * CI, o0 = task / is % os * CO, g = task / is / os;
	const int per = (a.OH + a.rows - 1) / a.rows, part = blockIdx.y, b = part / per;
	const int from = part % per * a.rows, to = min(from + a.rows, a.OH);
	const bool valid = b * LANES + lane < a.n;

	const bool two = a.ca, normal = a.scale;
	const float low = a.low;

	// Channels beyond the last are read as the last and not written.
	const float *x[CI], *gr[CO], *z[CO];
	float scale[CI], shift[CI], ca[CO], cb[CO], cc[CO];
#pragma unroll
	for (int i = 0; i < CI; i++) {
		const int ch = channel(g, min(i0 + i, a.ci - 1), a.groups, a.ci, a.interleaved);
		x[i] = a.x + ((long long)b * a.groups * a.ci + ch) * H * W * LANES + lane;
		scale[i] = normal ? a.scale[ch] : 1, shift[i] = normal ? a.shift[ch] : 0;
	}
#pragma unroll
	for (int o = 0; o < CO; o++) {
		const int ch = channel(g, min(o0 + o, a.co - 1), a.groups, a.co, a.interleaved);
		const long long plane = (((long long)b * a.groups * a.co + ch) * a.OH + from) * OW * LANES + lane;
		gr[o] = a.g + plane;
		z[o] = two ? a.z + plane : gr[o];
		ca[o] = 1, cb[o] = cc[o] = 0;
		if (two) { // lanes without a picture have 0, whatever lies there
			ca[o] = valid ? a.ca[ch] : 0, cb[o] = valid ? a.cb[ch] : 0, cc[o] = valid ? a.cc[ch] : 0;
		}
	}
	float acc[N];
#pragma unroll
	for (int n = 0; n < N; n++) acc[n] = 0;

	for (int oh = from; oh < to; oh++) {
		// The place of column 0 in each row of the window.
		const float *rows[CI][KH];
		bool inside[KH];
#pragma unroll
		for (int kh = 0; kh < KH; kh++) {
			const int h = oh * stride + kh0 + kh;
			inside[kh] = h >= 0 && h < H;
#pragma unroll
			for (int i = 0; i < CI; i++) rows[i][kh] = x[i] + (long long)h * W * LANES;
		}
		float window[CI][KH][KW];
		// column puts column w of the input, which lies at steps of rows, into a slot.
		auto column = [&](int w, int at, int slot) {
			const bool there = w >= 0 && w < W;
#pragma unroll
			for (int kh = 0; kh < KH; kh++)
#pragma unroll
				for (int i = 0; i < CI; i++) {
					window[i][kh][slot] = 0;
					if (there && inside[kh]) window[i][kh][slot] = fmaxf(low, fmaf(scale[i], rows[i][kh][at * LANES], shift[i]));
				}
		};
		auto position = [&](int at, int turn) {
			float d[CO];
#pragma unroll
			for (int o = 0; o < CO; o++) d[o] = gr[o][at * LANES];
			if (two)
#pragma unroll
				for (int o = 0; o < CO; o++) d[o] = fmaf(ca[o], d[o], fmaf(cb[o], z[o][at * LANES], cc[o]));
#pragma unroll
			for (int o = 0; o < CO; o++)
#pragma unroll
				for (int i = 0; i < CI; i++)
#pragma unroll
					for (int kh = 0; kh < KH; kh++)
#pragma unroll
						for (int kw = 0; kw < KW; kw++) {
							const int n = ((o * CI + i) * KH + kh) * KW + kw;
							acc[n] = fmaf(d[o], window[i][kh][(turn + kw) % KW], acc[n]);
						}
		};
		// STEPS positions at a time, whose places are constants to the machine.
		constexpr int STEPS = ring ? KW : 2;
		if (ring) {
			column(-1, -1, 0);
			column(0, 0, 1);
		}
		for (int ow = 0; ow < OW; ow += STEPS) {
#pragma unroll
			for (int turn = 0; turn < STEPS; turn++) {
				if (turn > 0 && ow + turn >= OW) break;
				if (ring) {
					column(ow + turn + 1, turn + 1, (turn + 2) % KW);
					position(turn, turn);
				} else {
#pragma unroll
					for (int kw = 0; kw < KW; kw++) column((ow + turn) * stride + kw0 + kw, turn * stride + kw0 + kw, kw);
					position(turn, 0);
				}
			}
			const int step = min(STEPS, OW - ow);
#pragma unroll
			for (int i = 0; i < CI; i++)
#pragma unroll
				for (int kh = 0; kh < KH; kh++) rows[i][kh] += step * stride * LANES;
#pragma unroll
			for (int o = 0; o < CO; o++) gr[o] += step * LANES, z[o] += step * LANES;
		}
	}
	float *dw = a.dw + (long long)part * a.groups * a.co * a.ci * kernel;
#pragma unroll
	for (int n0 = 0; n0 < N; n0 += 32) {
		constexpr int most = N < 32 ? power(N) : 32;
		float s[most];
#pragma unroll
		for (int i = 0; i < most; i++) s[i] = n0 + i < N ? acc[n0 + i < N ? n0 + i : 0] : 0;
		lane_sums(s);
		const int n = n0 + lane / (32 / most), k = n % K, i = i0 + n / K % CI, o = o0 + n / K / CI;
		if (lane % (32 / most) == 0 && n < N && i < a.ci && o < a.co)
			dw[((long long)(g * a.co + o) * a.ci + i) * kernel + k0 + k] = s[0];
	}
}

#define WEIGHT_GRAD(CO, CI) \
	KERNEL(weight_grad3x3_##CO##x##CI, igc_weight_grad, 256) { weight_grad<3, 3, 1, CO, CI, false>(a); } \
	KERNEL(weight_grad3x3s2_##CO##x##CI, igc_weight_grad, 256) { weight_grad<3, 3, 2, CO, CI, false>(a); }

WEIGHT_GRAD(1, 1)
WEIGHT_GRAD(2, 2)
WEIGHT_GRAD(3, 3)
WEIGHT_GRAD(4, 2)

KERNEL(weight_grad1x1_2x2, igc_weight_grad, 256) { weight_grad<1, 1, 1, 2, 2, false>(a); }
KERNEL(weight_grad1x1_4x4, igc_weight_grad, 256) { weight_grad<1, 1, 1, 4, 4, false>(a); }
KERNEL(weight_grad1x1_8x8, igc_weight_grad, 256) { weight_grad<1, 1, 1, 8, 8, false>(a); }
KERNEL(weight_grad_any_4x4, igc_weight_grad, 256) { weight_grad<1, 1, 1, 4, 4, true>(a); }
