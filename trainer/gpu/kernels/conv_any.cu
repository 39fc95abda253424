// Convolutions of any odd kernel and stride: those that only few networks have. A
// read for every four multiply–adds, and weights from memory: slow and simple.
#include "conv.h"

// any_strip computes CO output channels of a group, from o0 on.
template <bool TWO, int CO>
__device__ __forceinline__ void any_strip(const igc_conv &a, int g, int o0) {
	constexpr int PW = 4;
	const int lane = threadIdx.x, across = (a.OW + PW - 1) / PW, strips = across * a.OH;
	const int strip = blockIdx.x * blockDim.y + threadIdx.y, b = blockIdx.z;
	if (strip >= strips) return;
	const int h0 = strip / across, w0 = strip % across * PW;
	const bool valid = b * LANES + lane < a.n;
	float acc[CO][1][PW];
#pragma unroll
	for (int o = 0; o < CO; o++)
#pragma unroll
		for (int pw = 0; pw < PW; pw++) acc[o][0][pw] = 0;
	for (int c = 0; c < a.ci; c++) {
		const int ch = first_channel(g, a.ci, a.in) + c * a.in.by;
		const long long plane = ((long long)b * a.groups * a.ci + ch) * a.H * a.W * LANES + lane;
		const float scale = a.scale ? a.scale[ch] : 1, shift = a.scale ? a.shift[ch] : 0, scale2 = TWO ? a.scale2[ch] : 0;
		for (int k = 0; k < a.kh * a.kw; k++) {
			int h = a.up ? h0 + a.kh / 2 - k / a.kw : h0 * a.stride + k / a.kw - a.kh / 2;
			if (h < 0 || (a.up && h % a.stride != 0)) continue;
			if (a.up) h /= a.stride;
			if (h >= a.H) continue;
			float v[PW];
#pragma unroll
			for (int pw = 0; pw < PW; pw++) {
				v[pw] = 0;
				int w = a.up ? w0 + pw + a.kw / 2 - k % a.kw : (w0 + pw) * a.stride + k % a.kw - a.kw / 2;
				if (w < 0 || (a.up && w % a.stride != 0)) continue;
				if (a.up) w /= a.stride;
				if (w >= a.W) continue;
				const long long at = plane + (h * a.W + w) * LANES;
				if (TWO)
					v[pw] = valid ? fmaf(scale, a.x[at], fmaf(scale2, a.x2[at], shift)) : 0;
				else
					v[pw] = at_least(a.low, fmaf(scale, a.x[at], shift));
			}
#pragma unroll
			for (int o = 0; o < CO; o++) {
				const float w = o0 + o < a.co ? a.w[weight_at(a, g, o0 + o, c, k, a.kh * a.kw)] : 0;
#pragma unroll
				for (int pw = 0; pw < PW; pw++) acc[o][0][pw] = fmaf(w, v[pw], acc[o][0][pw]);
			}
		}
	}
	finish_strip<CO, 1, PW>(a, acc, b, g, o0, h0, w0, 0, b * strips + strip);
}

template <bool TWO>
__device__ __forceinline__ void conv_any(const igc_conv &a) {
	constexpr int CO = 4;
	const int g = blockIdx.y % a.groups, o0 = blockIdx.y / a.groups * CO;
	any_strip<TWO, CO>(a, g, o0);
	end_sums(a, g, o0, CO);
}

KERNEL(conv_any_normal, igc_conv, 256) { conv_any<false>(a); }
KERNEL(conv_any_gradient, igc_conv, 256) { conv_any<true>(a); }
