// Convolutions: forward, and the gradient of the input.
//
// A thread computes CO output channels of PH×PW pixels of one picture, a warp the
// same of 32 pictures; weights are read from shared memory, the same for a warp.
// The warps of a thread block are tiles of output channels times strips of pixels:
// tiles that read the same input do so at the same time, from the first cache.
//
// What is read row by row of input is used for all rows of output that it belongs to.
#pragma once
#include "norm.h"

// tile_stride is the room of a tile's weights in shared memory: whole vectors.
__host__ __device__ constexpr int tile_stride(int co) { return co <= 2 ? co : (co + 3) / 4 * 4; }

template <int CO>
__device__ __forceinline__ void load_weights(float (&w)[CO], const float *from) {
	if constexpr (CO == 1) {
		w[0] = from[0];
	} else if constexpr (CO == 2) {
		const float2 v = *(const float2 *)from;
		w[0] = v.x, w[1] = v.y;
	} else {
#pragma unroll
		for (int o = 0; o < CO; o += 4) {
			const float4 v = *(const float4 *)(from + o);
			w[o] = v.x;
			if (o + 1 < CO) w[o + 1] = v.y;
			if (o + 2 < CO) w[o + 2] = v.z;
			if (o + 3 < CO) w[o + 3] = v.w;
		}
	}
}

// channel is channel j of group g.
__device__ __forceinline__ int channel(int g, int j, int groups, int per, int interleaved) {
	return interleaved ? j * groups + g : g * per + j;
}

// weight_at is where the weight from input channel c to output channel o lies.
__device__ __forceinline__ long long weight_at(const igc_conv &a, int g, int o, int c, int k, int kernel) {
	if (a.transposed) return ((long long)(g * a.ci + c) * a.co + o) * kernel + (a.turned ? kernel - 1 - k : k);
	return ((long long)(g * a.co + o) * a.ci + c) * kernel + k;
}

// finish_outputs writes the outputs of a thread and adds them to its sums. INSIDE says
// that all of them lie in the output.
//
// It takes 16 outputs at a time and reads all their masks before it writes the first
// output: the 16 reads wait together, and the compiler would not move a read to before
// a write.
template <bool INSIDE, int CO, int PH, int PW, int N>
__device__ __forceinline__ void finish_outputs(const igc_conv &a, float (&acc)[CO][PH][PW], float (&s)[N], int b, int g, int o0,
                                               int h0, int w0) {
	constexpr int ROWS = PH * PW < 16 ? PH : 16 / PW, CHANNELS = 16 / (ROWS * PW) < CO ? 16 / (ROWS * PW) : CO;
	static_assert(PH % ROWS == 0, "a step of the loop has whole rows");
	const bool masked = a.mx, scaled = a.mscale, summed = a.sums;
	const long long plane = (long long)a.OH * a.OW * LANES, row = a.OW * LANES;
	const int first = channel(g, o0, a.groups, a.co, a.interleaved), step = a.interleaved ? a.groups : 1;
	const int channels = a.co - o0, rows = a.OH - h0, columns = a.OW - w0;
	long long at = ((long long)b * a.groups * a.co + first) * plane + (h0 * a.OW + w0) * LANES + threadIdx.x;
#pragma unroll
	for (int o = 0; o < CO; o += CHANNELS, at += CHANNELS * step * plane - PH * row)
#pragma unroll
		for (int ph = 0; ph < PH; ph += ROWS, at += ROWS * row) {
			float m[CHANNELS][ROWS][PW];
			// How many columns of a row are outputs.
			auto width = [&](int i, int r) { return INSIDE ? PW : o + i < channels && ph + r < rows ? columns : 0; };
			if (masked) {
				float scale[CHANNELS], shift[CHANNELS];
#pragma unroll
				for (int i = 0; i < CHANNELS && o + i < CO; i++) {
					const int ch = first + (INSIDE || o + i < channels ? o + i : 0) * step;
					scale[i] = scaled ? __ldg(a.mscale + ch) : 1, shift[i] = scaled ? __ldg(a.mshift + ch) : 0;
#pragma unroll
					for (int r = 0; r < ROWS; r++) {
						const float *from = a.mx + at + i * step * plane + r * row;
						const int end = width(i, r);
#pragma unroll
						for (int pw = 0; pw < PW; pw++) m[i][r][pw] = pw < end ? __ldg(from + pw * LANES) : 0;
					}
				}
#pragma unroll
				for (int i = 0; i < CHANNELS && o + i < CO; i++)
#pragma unroll
					for (int r = 0; r < ROWS; r++)
#pragma unroll
						for (int pw = 0; pw < PW; pw++)
							// What is no number must not pass as 0.
							if (fmaf(scale[i], m[i][r][pw], shift[i]) <= 0) acc[o + i][ph + r][pw] = 0;
			}
#pragma unroll
			for (int i = 0; i < CHANNELS && o + i < CO; i++)
#pragma unroll
				for (int r = 0; r < ROWS; r++) {
					float *to = a.z + at + i * step * plane + r * row;
					const int end = width(i, r);
#pragma unroll
					for (int pw = 0; pw < PW; pw++) {
						if (pw < end)
							to[pw * LANES] = acc[o + i][ph + r][pw];
						else
							acc[o + i][ph + r][pw] = 0;
					}
				}
			if (!summed) continue;
#pragma unroll
			for (int i = 0; i < CHANNELS && o + i < CO; i++)
#pragma unroll
				for (int r = 0; r < ROWS; r++)
#pragma unroll
					for (int pw = 0; pw < PW; pw++) {
						const float v = acc[o + i][ph + r][pw];
						s[o + i] += v;
						s[CO + o + i] = fmaf(v, masked ? m[i][r][pw] : v, s[CO + o + i]);
					}
		}
}

// finish_strip writes the outputs of a thread and their sums.
template <int CO, int PH, int PW>
__device__ __forceinline__ void finish_strip(const igc_conv &a, float (&acc)[CO][PH][PW], int b, int g, int o0, int h0, int w0, int part) {
	constexpr int N = power(2 * CO);
	const int lane = threadIdx.x;
	float s[N];
#pragma unroll
	for (int i = 0; i < N; i++) s[i] = 0;
	if (o0 + CO <= a.co && h0 + PH <= a.OH && w0 + PW <= a.OW)
		finish_outputs<true>(a, acc, s, b, g, o0, h0, w0);
	else
		finish_outputs<false>(a, acc, s, b, g, o0, h0, w0);
	if (!a.sums) return;
	// Lanes without a picture do not count.
	if (b * LANES + lane >= a.n) {
#pragma unroll
		for (int i = 0; i < N; i++) s[i] = 0;
	}
	lane_sums(s);
	constexpr int per = 32 / N;
	const int i = lane / per, o = i < CO ? i : i - CO;
	if (lane % per == 0 && i < 2 * CO && o0 + o < a.co)
		a.sums[((long long)channel(g, o0 + o, a.groups, a.co, a.interleaved) * a.parts + part) * 2 + (i >= CO)] = s[0];
}

// end_sums ends the normalisation of the block's channels, so many from o0 on, if the block is the last that has sums of
// them.
__device__ __forceinline__ void end_sums(const igc_conv &a, int g, int o0, int channels) {
	if (!a.norm.counters || !last_block(a.norm.counters)) return;
	auto of = [&](int o) { return channel(g, o0 + o, a.groups, a.co, a.interleaved); };
	if (a.mx)
		end_norm<8>(a.norm, a.sums, a.parts, min(channels, a.co - o0), of, norm_backward);
	else
		end_norm<8>(a.norm, a.sums, a.parts, min(channels, a.co - o0), of, norm_forward);
}

// What a convolution reads: x as it is, its ReLU after a normalisation, or the
// gradient of a normalised tensor out of two.
enum Input { PLAIN, NORMAL, GRADIENT };

// The kernels of a fixed size. UP: gradient of the input of a convolution with
// stride S; of one with stride 1 it is a convolution like the forward one.
template <int KH, int KW, int S, bool UP, Input INPUT, int CO, int PH, int PW>
__device__ __forceinline__ void conv(const igc_conv &a) {
	SHARED(float, shared);
	constexpr int K = KH * KW, CS = tile_stride(CO);
	constexpr bool TWO = INPUT == GRADIENT;
	// The first row and the number of rows that PH rows of output read, relative
	// to the place of the first of them in the input; the same for columns.
	constexpr int R0 = UP ? -((KH - 1 - KH / 2) / S) : -(KH / 2), RN = UP ? (PH - 1 + KH / 2) / S - R0 + 1 : (PH - 1) * S + KH;
	constexpr int C0 = UP ? -((KW - 1 - KW / 2) / S) : -(KW / 2), CN = UP ? (PW - 1 + KW / 2) / S - C0 + 1 : (PW - 1) * S + KW;

	// The part of it that no other strip has.
	constexpr int OWN_ROWS = UP ? PH / S : PH, OWN_COLUMNS = UP ? PW / S : PW;

	// The columns that every thread has in the input, if the strips have no rest.
	constexpr int FIRST = -C0, LAST = FIRST + (UP ? PW / S : PW * S);

	const int lane = threadIdx.x, tiles = a.tiles, tile = threadIdx.y % tiles;
	const int strip = blockIdx.x * (blockDim.y / tiles) + threadIdx.y / tiles;
	const int across = (a.OW + PW - 1) / PW, strips = across * ((a.OH + PH - 1) / PH);
	const int groups = a.groups, g = blockIdx.y % groups, first = blockIdx.y / groups * tiles, b = blockIdx.z;
	const int o0 = (first + tile) * CO;
	const int h0 = strip / across * PH, w0 = strip % across * PW;
	const int H = a.H, W = a.W, ci = a.ci;
	const int hin = (UP ? h0 / S : h0 * S) + R0, win = (UP ? w0 / S : w0 * S) + C0;
	const bool active = strip < strips && o0 < a.co;
	const bool exact = a.OW % PW == 0 && (UP ? a.OW == W * S : a.OW * S == W);
	const bool valid = b * LANES + lane < a.n, normal = INPUT != PLAIN && a.scale;
	const bool keeps = TWO && a.dz && o0 == 0;
	const float low = a.low;
	const int rowStep = W * LANES, tapStep = tiles * CS;

	float acc[CO][PH][PW];
#pragma unroll
	for (int o = 0; o < CO; o++)
#pragma unroll
		for (int ph = 0; ph < PH; ph++)
#pragma unroll
			for (int pw = 0; pw < PW; pw++) acc[o][ph][pw] = 0;

	for (int c0 = 0; c0 < ci; c0 += a.chunk) {
		const int some = min(a.chunk, ci - c0);
		__syncthreads();
		for (int e = threadIdx.y * 32 + lane; e < tiles * CO * some * K; e += blockDim.y * 32) {
			const int k = e % K, c = e / K % some, o = e / K / some;
			const int to = ((c * K + k) * tiles + o / CO) * CS + o % CO;
			shared[to] = first * CO + o < a.co ? a.w[weight_at(a, g, first * CO + o, c0 + c, k, K)] : 0;
		}
		__syncthreads();
		if (!active) continue;
		// Channels lie a fixed step apart, and so do their weights.
		const int step = a.interleaved ? groups : 1, ch = channel(g, c0, groups, ci, a.interleaved);
		const long long next = (long long)step * H * W * LANES;
		const long long offset = (((long long)b * groups * ci + ch) * H * W + hin * W + win) * LANES + lane;
		const float *xc = a.x + offset, *x2c = TWO ? a.x2 + offset : nullptr;
		const float *ps = a.scale + ch, *ps2 = a.scale2 + ch, *pt = a.shift + ch;
		const float *weights = shared + tile * CS;
#pragma unroll K == 1 ? 2 : 1
		for (int c = 0; c < some; c++) {
			float scale = 1, scale2 = 0, shift = 0;
			if (normal) {
				scale = *ps, shift = *pt;
				if (TWO) scale2 = *ps2;
				// Lanes without a picture have 0, whatever lies there.
				if (TWO && !valid) scale = scale2 = shift = 0;
			}
#pragma unroll
			for (int r = 0; r < RN; r++) {
				if (hin + r < 0 || hin + r >= H) continue;
				const float *__restrict__ x = xc + r * rowStep, *__restrict__ x2 = TWO ? x2c + r * rowStep : nullptr;
				float row[CN];
				auto load = [&](int j) {
					if (INPUT == PLAIN)
						row[j] = x[j * LANES];
					else if (TWO)
						row[j] = fmaf(scale, x[j * LANES], fmaf(scale2, x2[j * LANES], shift));
					else
						row[j] = fmaxf(low, fmaf(scale, x[j * LANES], shift));
				};
				if (exact) {
#pragma unroll
					for (int j = 0; j < CN; j++) {
						row[j] = 0;
						if ((j >= FIRST || win + j >= 0) && (j < LAST || win + j < W)) load(j);
					}
				} else {
#pragma unroll
					for (int j = 0; j < CN; j++) {
						row[j] = 0;
						if (win + j >= 0 && win + j < W) load(j);
					}
				}
				// Of the tiles and strips that read a position, one writes what it read.
				if (TWO && keeps && r >= -R0 && r < OWN_ROWS - R0) {
					float *to = a.dz + (x - a.x);
#pragma unroll
					for (int j = -C0; j < OWN_COLUMNS - C0; j++)
						if (win + j < W) to[j * LANES] = row[j];
				}
#pragma unroll
				for (int ph = 0; ph < PH; ph++) {
					const int kh = UP ? ph + KH / 2 - S * (R0 + r) : R0 + r + KH / 2 - ph * S;
					if (kh < 0 || kh >= KH) continue;
#pragma unroll
					for (int kw = 0; kw < KW; kw++) {
						float w[CO];
						load_weights<CO>(w, weights + (kh * KW + kw) * tapStep);
#pragma unroll
						for (int pw = 0; pw < PW; pw++) {
							const int from = UP ? pw + KW / 2 - kw : pw * S + kw - KW / 2;
							if (UP && (from % S + S) % S != 0) continue;
							const int j = (UP ? from / S : from) - C0;
#pragma unroll
							for (int o = 0; o < CO; o++) acc[o][ph][pw] = fmaf(w[o], row[j], acc[o][ph][pw]);
						}
					}
				}
			}
			xc += next, weights += tapStep * K;
			if (TWO) x2c += next, ps2 += step;
			ps += step, pt += step;
		}
	}
	if (active) finish_strip<CO, PH, PW>(a, acc, b, g, o0, h0, w0, b * strips + strip);
	end_sums(a, g, first * CO, tiles * CO);
}
