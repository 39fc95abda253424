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

// first_channel is the first channel of group g, of groups that have so many channels each. The others follow it, each step
// channels behind the one before. step.inverse spares the kernels a division.
__device__ __forceinline__ int first_channel(int g, int channels, const igc_step &step) {
	const int q = (int)((2ull * (unsigned)g * step.inverse) >> 32); // g / step
	return q * channels * step.by + g - q * step.by;
}

// weight_at is where the weight from input channel c to output channel o lies.
__device__ __forceinline__ long long weight_at(const igc_conv &a, int g, int o, int c, int k, int kernel) {
	if (a.transposed) return ((long long)(g * a.ci + c) * a.co + o) * kernel + (a.turned ? kernel - 1 - k : k);
	return ((long long)(g * a.co + o) * a.ci + c) * kernel + k;
}

// share_weights copies the weights of some input channels from c0 on, to the output
// channels of all tiles of the block, to shared memory: (some, K, tiles, CO).
//
// A thread reads four before it writes one. Threads take weights in the order of the
// memory, in rows of those of an output channel, or of an input channel if transposed.
template <int CO, int K>
__device__ __forceinline__ void share_weights(const igc_conv &a, float *shared, int g, int o0, int c0, int some) {
	constexpr int CS = tile_stride(CO), AT_ONCE = 4;
	const int outputs = a.tiles * CO, there = a.co - o0, threads = blockDim.y * 32;
	const int rows = a.transposed ? some : outputs, length = (a.transposed ? outputs : some) * K;
	const int start = threadIdx.y * 32 + threadIdx.x, rowStep = (a.transposed ? a.co : a.ci) * K;
	const int downwards = threads / length, onwards = threads % length;
	const float *from = a.w + (a.transposed ? ((long long)(g * a.ci + c0) * a.co + o0) * K : ((long long)(g * a.co + o0) * a.ci + c0) * K);
	for (int row = start / length, e = start % length; row < rows;) {
		float w[AT_ONCE];
		int to[AT_ONCE];
#pragma unroll
		for (int i = 0; i < AT_ONCE; i++) {
			const int o = a.transposed ? e / K : row, c = a.transposed ? row : e / K;
			const int k = a.transposed && a.turned ? K - 1 - e % K : e % K;
			to[i] = row < rows ? ((c * K + k) * a.tiles + o / CO) * CS + o % CO : -1;
			w[i] = row < rows && o < there ? __ldg(from + (long long)row * rowStep + e) : 0;
			e += onwards, row += downwards;
			if (e >= length) e -= length, row++;
		}
#pragma unroll
		for (int i = 0; i < AT_ONCE; i++)
			if (to[i] >= 0) shared[to[i]] = w[i];
	}
}

// finish_outputs writes the outputs of a thread and adds them to its sums. INSIDE says
// that all of them lie in the output.
//
// It takes 16 outputs at a time and reads all their masks before it writes the first
// output: the 16 reads wait together, and the compiler would not move a read to before
// a write.
template <bool INSIDE, int CO, int PH, int PW, int N>
__device__ __forceinline__ void finish_outputs(const igc_conv &a, float (&acc)[CO][PH][PW], float (&s)[N], int b, int g, int o0,
                                               int h0, int w0, int skip) {
	constexpr int ROWS = PH * PW < 16 ? PH : 16 / PW, CHANNELS = 16 / (ROWS * PW) < CO ? 16 / (ROWS * PW) : CO;
	static_assert(PH % ROWS == 0, "a step of the loop has whole rows");
	const bool masked = a.mx, scaled = a.mscale, summed = a.sums;
	const long long plane = (long long)a.OH * a.OW * LANES, row = a.OW * LANES;
	const int step = a.out.by, first = first_channel(g, a.co, a.out) + o0 * step;
	const int channels = a.co - o0, rows = a.OH - h0, columns = a.OW - w0;
	long long at = ((long long)b * a.groups * a.co + first) * plane + (h0 * a.OW + w0) * LANES + threadIdx.x;
#pragma unroll
	for (int o = 0; o < CO; o += CHANNELS, at += CHANNELS * step * plane - PH * row)
#pragma unroll
		for (int ph = 0; ph < PH; ph += ROWS, at += ROWS * row) {
			float m[CHANNELS][ROWS][PW];
			// Outputs are the columns of a row from skip to before its end.
			auto end_of = [&](int i, int r) { return o + i < channels && ph + r < rows ? columns : 0; };
			auto within = [&](int pw, int end) { return INSIDE || (pw >= skip && pw < end); };
			if (masked) {
				float scale[CHANNELS], shift[CHANNELS];
#pragma unroll
				for (int i = 0; i < CHANNELS && o + i < CO; i++) {
					const int ch = first + (INSIDE || o + i < channels ? o + i : 0) * step;
					scale[i] = scaled ? __ldg(a.mscale + ch) : 1, shift[i] = scaled ? __ldg(a.mshift + ch) : 0;
#pragma unroll
					for (int r = 0; r < ROWS; r++) {
						const float *from = a.mx + at + i * step * plane + r * row;
						const int end = end_of(i, r);
#pragma unroll
						for (int pw = 0; pw < PW; pw++) m[i][r][pw] = within(pw, end) ? __ldg(from + pw * LANES) : 0;
					}
				}
#pragma unroll
				for (int i = 0; i < CHANNELS && o + i < CO; i++)
#pragma unroll
					for (int r = 0; r < ROWS; r++)
#pragma unroll
						for (int pw = 0; pw < PW; pw++)
							// What is no number must not pass as 0.
							if (fmaf(scale[i], m[i][r][pw], shift[i]) <= a.mlow) acc[o + i][ph + r][pw] = 0;
			}
#pragma unroll
			for (int i = 0; i < CHANNELS && o + i < CO; i++)
#pragma unroll
				for (int r = 0; r < ROWS; r++) {
					float *to = a.z + at + i * step * plane + r * row;
					const int end = end_of(i, r);
#pragma unroll
					for (int pw = 0; pw < PW; pw++) {
						if (within(pw, end))
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
__device__ __forceinline__ void finish_strip(const igc_conv &a, float (&acc)[CO][PH][PW], int b, int g, int o0, int h0, int w0, int skip,
                                             int part) {
	constexpr int N = power(2 * CO);
	const int lane = threadIdx.x;
	float s[N];
#pragma unroll
	for (int i = 0; i < N; i++) s[i] = 0;
	if (o0 + CO <= a.co && h0 + PH <= a.OH && w0 + PW <= a.OW && skip == 0)
		finish_outputs<true>(a, acc, s, b, g, o0, h0, w0, skip);
	else
		finish_outputs<false>(a, acc, s, b, g, o0, h0, w0, skip);
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
		a.sums[((long long)(first_channel(g, a.co, a.out) + (o0 + o) * a.out.by) * a.parts + part) * 2 + (i >= CO)] = s[0];
}

// end_sums ends the normalisation of the block's channels, so many from o0 on, if the block is the last that has sums of
// them.
__device__ __forceinline__ void end_sums(const igc_conv &a, int g, int o0, int channels) {
	if (!a.norm.counters || !last_block(a.norm.counters)) return;
	const int first = first_channel(g, a.co, a.out) + o0 * a.out.by;
	auto of = [&](int o) { return first + o * a.out.by; };
	if (a.mx)
		end_norm<8>(a.norm, a.sums, a.parts, min(channels, a.co - o0), of, norm_backward);
	else
		end_norm<8>(a.norm, a.sums, a.parts, min(channels, a.co - o0), of, norm_forward);
}

// What a convolution reads: x as it is, its ReLU after a normalisation, or the
// gradient of a normalised tensor out of two.
enum Input { PLAIN, NORMAL, GRADIENT };

// The kernels of a fixed size. UP: gradient of the input of a convolution with
// stride S; of one with stride 1 it is a convolution like the forward one. Rows of
// input are read DEPTH rows before they are used.
template <int KH, int KW, int S, bool UP, Input INPUT, int CO, int PH, int PW, int DEPTH>
__device__ __forceinline__ void conv(const igc_conv &a) {
	SHARED(int4, places); // of a warp's outputs, and the weights
	float *const shared = reinterpret_cast<float *>(places + blockDim.y);
	constexpr int K = KH * KW, CS = tile_stride(CO);
	constexpr bool TWO = INPUT == GRADIENT;
	// The first row and the number of rows that PH rows of output read, relative
	// to the place of the first of them in the input; the same for columns.
	constexpr int R0 = UP ? -((KH - 1 - KH / 2) / S) : -(KH / 2), RN = UP ? (PH - 1 + KH / 2) / S - R0 + 1 : (PH - 1) * S + KH;
	constexpr int C0 = UP ? -((KW - 1 - KW / 2) / S) : -(KW / 2), CN = UP ? (PW - 1 + KW / 2) / S - C0 + 1 : (PW - 1) * S + KW;

	// The part of it that no other strip has.
	constexpr int OWN_ROWS = UP ? PH / S : PH, OWN_COLUMNS = UP ? PW / S : PW;

	// Columns from FIRST to LAST-1 lie in the input, for no output is narrower than a strip;
	// of the others there is at most one at each end.
	constexpr int FIRST = -C0, LAST = UP ? FIRST + PW / S : CN - KW / 2;
	static_assert(FIRST <= 1 && CN - LAST <= 1, "one column at each end may lie outside");

	const int lane = threadIdx.x, tiles = a.tiles, tile = threadIdx.y % tiles;
	const int strip = blockIdx.x * (blockDim.y / tiles) + threadIdx.y / tiles;
	const int down = (a.OH + PH - 1) / PH, strips = down * ((a.OW + PW - 1) / PW);
	const int groups = a.groups, g = blockIdx.y % groups, first = blockIdx.y / groups * tiles, b = blockIdx.z;
	const int o0 = (first + tile) * CO;
	// The last strip of a row lies so far to the left that it ends with the row. It
	// computes some outputs of the strip before once more, which do not count.
	constexpr int STEP = UP ? S : 1;
	const int h0 = strip % down * PH, column = strip / down * PW, most = (a.OW - PW + STEP - 1) / STEP * STEP;
	const int w0 = min(column, most);
	const int H = a.H, W = a.W, ci = a.ci;
	const int hin = (UP ? h0 / S : h0 * S) + R0, win = (UP ? w0 / S : w0 * S) + C0;
	const bool active = strip < strips && o0 < a.co;
	const bool left = win >= 0, right = win + CN - 1 < W; // whether the columns at the ends lie in the input
	const bool valid = b * LANES + lane < a.n, normal = TWO || (INPUT != PLAIN && a.scale);
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

	// After so many channels, what is read is again in the same registers.
	[[maybe_unused]] constexpr int UNROLL = K > 1 ? 1 : INPUT == PLAIN ? DEPTH + 1 : DEPTH;
	static_assert(RN == 1 || DEPTH <= RN, "what is read is of this channel or of the next");
	int step = min(a.in.by, groups); // the same as a.in.by, of which ptxas would compute plane again in each trip of the loop
	OPAQUE(step);
	const long long plane = (long long)step * H * rowStep;
	int ch = first_channel(g, ci, a.in), unread = ci - 1;
	const long long start = ((long long)b * groups * ci + ch) * H * rowStep + win * LANES + lane;
	const float *px = a.x + start, *px2 = TWO ? a.x2 + start : nullptr; // of the channel that is read
	float x[DEPTH][CN], x2[DEPTH][TWO ? CN : 1], scale = 1, scale2 = 0, shift = 0;
	auto inside = [&](int r) { return K == 1 || (hin + r >= 0 && hin + r < H); };
	// Of a row outside the input, the nearest row inside is read: a read that depends on
	// nothing need not wait for the one before.
	auto fetch = [&](int d, int r) {
		const int h = RN == 1 ? hin + r : min(max(hin + r, 0), H - 1);
		const float *from = px + h * rowStep, *from2 = TWO ? px2 + h * rowStep : nullptr;
#pragma unroll
		for (int j = 0; j < CN; j++) {
			const bool there = j < FIRST ? left : j >= LAST ? right : true;
			x[d][j] = there ? __ldg(from + j * LANES) : 0;
			if (TWO) x2[d][j] = there ? __ldg(from2 + j * LANES) : 0;
		}
	};
	// After the last channel it is read again.
	auto advance = [&] {
		const long long go = unread > 0 ? plane : 0;
		px += go, unread--;
		if (TWO) px2 += go;
	};
	auto coefficients = [&] {
		if (!normal) return;
		scale = __ldg(a.scale + ch), shift = __ldg(a.shift + ch);
		if (TWO) scale2 = __ldg(a.scale2 + ch);
		// Lanes without a picture have 0: what lies there are numbers, computed from an empty picture.
		if (TWO && !valid) scale = scale2 = shift = 0;
	};
	// What follows the loop needs of this lies in shared memory meanwhile, for lack of
	// registers.
	if (lane == 0) places[threadIdx.y] = make_int4(g, first * CO, h0, column);
	if (active) {
#pragma unroll
		for (int d = 0; d < DEPTH; d++) {
			if (d > 0 && d % RN == 0) advance();
			fetch(d, d % RN);
		}
		coefficients();
	}

	for (int c0 = 0; c0 < ci; c0 += a.chunk) {
		const int some = min(a.chunk, ci - c0);
		__syncthreads();
		share_weights<CO, K>(a, shared, places[threadIdx.y].x, places[threadIdx.y].y, c0, some);
		__syncthreads();
		if (!active) continue;
		const float *weights = shared + tile * CS;
#pragma unroll UNROLL
		for (int c = 0; c < some; c++) {
#pragma unroll
			for (int r = 0; r < RN; r++) {
				float row[CN];
				const float f = inside(r) ? scale : 0, f2 = inside(r) ? scale2 : 0, t = inside(r) ? shift : 0;
#pragma unroll
				for (int j = 0; j < CN; j++) {
					if (INPUT == PLAIN)
						row[j] = inside(r) ? x[0][j] : 0;
					else if (TWO)
						row[j] = fmaf(f, x[0][j], fmaf(f2, x2[0][j], t));
					else
						row[j] = fmaxf(low, fmaf(f, x[0][j], t));
					if (INPUT != PLAIN && !(j < FIRST ? left : j >= LAST ? right : true)) row[j] = 0;
				}
				// Of the tiles and strips that read a position, one writes what it read.
				if (TWO && keeps && r >= -R0 && r < OWN_ROWS - R0 && (RN == 1 || hin + r < H)) {
					static_assert(!TWO || DEPTH == 1, "px is at the channel in use");
					float *to = a.dz + (px - a.x) + (hin + r) * rowStep;
					const int begin = (column - w0) / (UP ? S : 1);
#pragma unroll
					for (int j = 0; j < OWN_COLUMNS; j++)
						if (j >= begin && (!UP || win - C0 + j < W)) to[(j - C0) * LANES] = row[j - C0];
				}
#pragma unroll
				for (int d = 1; d < DEPTH; d++)
#pragma unroll
					for (int j = 0; j < CN; j++) {
						x[d - 1][j] = x[d][j];
						if (TWO) x2[d - 1][j] = x2[d][j];
					}
				if ((r + DEPTH) % RN == 0) advance();
				fetch(DEPTH - 1, (r + DEPTH) % RN);
				if (r == RN - 1) {
					// So many channels ahead are read.
					constexpr int AHEAD = (RN - 1 + DEPTH) / RN;
					ch += unread + AHEAD > 0 ? step : 0;
					coefficients();
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
			weights += tapStep * K;
		}
	}
	const int4 at = places[threadIdx.y];
	const int begin = min(at.w, most);
	if (active)
		finish_strip<CO, PH, PW>(a, acc, b, at.x, at.y + tile * CO, at.z, begin, at.w - begin, b * strips + at.w / PW * down + at.z / PH);
	end_sums(a, at.x, at.y, tiles * CO);
}
