// 1×1 convolutions of many channels, by the matrix units of a GPU.
//
// Their operands are TF32 numbers, float32 with ten bits behind the point, and their sums are float32. So the bits
// are others than those of conv.h, and a study has to ask for them (precision = "tf32").
//
// Every product is one of 16×8 by 8×8 numbers, of which each lane of a warp has a few. How the rows and columns of
// the small matrices are assigned to channels and pictures is free, and is chosen so that a lane reads and writes
// four pictures that lie side by side.
#pragma once
#include "conv.h"

#ifdef __CUDACC__
// igc_tf32 rounds to the nearest TF32 number.
__device__ __forceinline__ uint igc_tf32(float x) {
	uint v;
	asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(v) : "f"(x));
	return v;
}

// igc_mma_tf32 adds a·b to the sums. With r = lane/4 and c = lane%4 a lane has
//   a (16×8): (r, c), (r+8, c), (r, c+4), (r+8, c+4)
//   b (8×8): (c, r), (c+4, r)
//   sums (16×8): (r, 2c), (r, 2c+1), (r+8, 2c), (r+8, 2c+1)
__device__ __forceinline__ void igc_mma_tf32(float (&sums)[4], const uint (&a)[4], const uint (&b)[2]) {
	// Volatile, for all lanes must take part: it must not be moved to where some of them do not come.
	asm volatile("mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
		: "+f"(sums[0]), "+f"(sums[1]), "+f"(sums[2]), "+f"(sums[3])
		: "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}
#endif

// four is four pictures of one channel and pixel.
struct four { float v[4]; };

__device__ __forceinline__ four load_four(const float *from) {
	const float4 v = __ldg((const float4 *)from);
	return {{v.x, v.y, v.z, v.w}};
}

// store_four is one store of 16 bytes. Of a plain assignment the compiler makes four stores of 4 bytes, and each of them
// touches every sector of 32 bytes that the warp writes.
__device__ __forceinline__ void store_four(float *to, const float (&v)[4]) {
	__stwb((float4 *)to, make_float4(v[0], v[1], v[2], v[3]));
}

// row_sums adds four values over the eight lanes with the same lane%4, each in a fixed order. The lane gets the sum
// of v[lane/8], rounded down to a whole number.
__device__ __forceinline__ float row_sums(const float (&v)[4]) {
	const bool upper = threadIdx.x & 16, odd = threadIdx.x & 8;
	float s[2];
#pragma unroll
	for (int i = 0; i < 2; i++) s[i] = (upper ? v[i + 2] : v[i]) + __shfl_xor_sync(ALL, upper ? v[i] : v[i + 2], 16);
	const float sum = (odd ? s[1] : s[0]) + __shfl_xor_sync(ALL, odd ? s[0] : s[1], 8);
	return sum + __shfl_xor_sync(ALL, sum, 4);
}

// A warp computes so many pixels at once, of so many tiles of eight output channels, and reads so many steps ahead: as many
// as fit into the registers.
__host__ __device__ constexpr int tf32_pixels(int tiles) { return tiles <= 2 ? 2 : 1; }
__host__ __device__ constexpr int tf32_ahead(int tiles, Input input) { return tiles <= 6 && input != GRADIENT ? 2 : 1; }

// conv_tf32 is conv of a 1×1 kernel. A warp computes 8·TILES output channels of a.pixels pixels of 32 pictures, which
// are the rows of its products; output channels are their columns. Lane 4r + c reads channels c and c+4 of eight, and
// writes channels 2c and 2c+1 of a tile, both of pictures 4r … 4r+3.
template <Input INPUT, int TILES>
__device__ __forceinline__ void conv_tf32(const igc_conv &a) {
	SHARED(float, shared);
	constexpr bool TWO = INPUT == GRADIENT;
	constexpr int P = tf32_pixels(TILES), AHEAD = tf32_ahead(TILES, INPUT);
	const int lane = threadIdx.x, r = lane / 4, c = lane % 4, thread = threadIdx.y * 32 + lane, threads = blockDim.y * 32;
	const int groups = a.groups, g = blockIdx.y % groups, o0 = blockIdx.y / groups * 8 * TILES, b = blockIdx.z;
	const int ci = a.ci, steps = (ci + 7) / 8, HW = a.OH * a.OW;
	const bool normal = INPUT != PLAIN && a.scale, keeps = TWO && a.dz && o0 == 0;
	const float low = a.low;

	// The weights, as the lanes have them in b, then scale and shift of the input and of the mask. Beyond the last channel
	// weights are 0.
	uint *const weights = (uint *)shared;
	float *const norms = shared + steps * TILES * 64, *const masks = norms + steps * 24;
	constexpr int AT_ONCE = 8; // reads of a thread before it needs the first of them
	for (int e0 = thread; e0 < steps * TILES * 64; e0 += AT_ONCE * threads) {
		float w[AT_ONCE];
#pragma unroll
		for (int n = 0; n < AT_ONCE; n++) {
			const int e = e0 + n * threads, l = e / 2 % 32, tile = e / 64 % TILES, step = e / 64 / TILES;
			const int o = o0 + tile * 8 + l / 4, i = step * 8 + e % 2 * 4 + l % 4;
			w[n] = o < a.co && i < ci ? __ldg(a.w + weight_at(a, g, o, i, 0, 1)) : 0;
		}
#pragma unroll
		for (int n = 0; n < AT_ONCE; n++)
			if (e0 + n * threads < steps * TILES * 64) weights[e0 + n * threads] = igc_tf32(w[n]);
	}
	const int x_channel = first_channel(g, ci, a.in), z_channel = first_channel(g, a.co, a.out);
	for (int i = thread; i < steps * 8; i += threads) {
		const int ch = x_channel + min(i, ci - 1) * a.in.by;
		norms[i] = normal ? a.scale[ch] : 1;
		norms[steps * 8 + i] = normal ? a.shift[ch] : 0;
		if (TWO) norms[steps * 16 + i] = normal ? a.scale2[ch] : 0;
	}
	for (int i = thread; i < TILES * 8; i += threads) {
		const int ch = z_channel + min(o0 + i, a.co - 1) * a.out.by;
		masks[2 * i] = a.mscale ? a.mscale[ch] : 1, masks[2 * i + 1] = a.mscale ? a.mshift[ch] : 0;
	}
	__syncthreads();

	// From a channel to the next one of the group. x0 and z0 are of the first pixel, x0 of the group's first channel, z0 of
	// channel 2c.
	const int x_next = a.in.by * HW * LANES, z_next = a.out.by * HW * LANES;
	const long long x0 = ((long long)b * groups * ci + x_channel) * HW * LANES + 4 * r;
	const long long z0 = ((long long)b * groups * a.co + z_channel + (o0 + 2 * c) * a.out.by) * HW * LANES + 4 * r;
	const float *const from = a.x + x0, *const from2 = TWO ? a.x2 + x0 : nullptr, *const mx = a.mx ? a.mx + z0 : nullptr;
	float *const to = a.z + z0;
	// The sums of a warp's pixels: of z and z·mx of each channel.
	float *const warps = masks + TILES * 16, *const sums = warps + threadIdx.y * TILES * 16;
	for (int i = lane; i < TILES * 16; i += 32) sums[i] = 0;
	__syncwarp();

	const int first = (blockIdx.x * blockDim.y + threadIdx.y) * a.pixels, last = min(first + a.pixels, HW);
	for (int p0 = first; p0 < last; p0 += P) {
		float acc[TILES][P][2][4];
#pragma unroll
		for (int t = 0; t < TILES; t++)
#pragma unroll
			for (int p = 0; p < P; p++)
#pragma unroll
				for (int i = 0; i < 8; i++) acc[t][p][i / 4][i % 4] = 0;

		// What a step reads is read some steps before. Channels and pixels beyond the last are read as the last.
		four ahead[AHEAD][TWO ? 2 : 1][P][2];
		auto load = [&](four (&into)[TWO ? 2 : 1][P][2], int step) {
#pragma unroll
			for (int h = 0; h < 2; h++) {
				const int plane = min(step * 8 + h * 4 + c, ci - 1) * x_next;
#pragma unroll
				for (int p = 0; p < P; p++) {
					const int at = plane + min(p0 + p, HW - 1) * LANES;
					into[0][p][h] = load_four(from + at);
					if (TWO) into[TWO][p][h] = load_four(from2 + at);
				}
			}
		};
#pragma unroll
		for (int d = 0; d < AHEAD; d++)
			if (d < steps) load(ahead[d], d);
		for (int s0 = 0; s0 < steps; s0 += AHEAD)
#pragma unroll
			for (int d = 0; d < AHEAD; d++) {
				const int step = s0 + d;
				if (step >= steps) break;
				uint x[P][2][4];
#pragma unroll
				for (int h = 0; h < 2; h++) {
					const int i = step * 8 + h * 4 + c;
					const float *n = norms + i;
					const float scale = n[0], shift = n[8 * steps], scale2 = TWO ? n[16 * steps] : 0;
#pragma unroll
					for (int p = 0; p < P; p++)
#pragma unroll
						for (int k = 0; k < 4; k++) {
							float v = ahead[d][0][p][h].v[k];
							if (TWO) { // lanes without a picture have 0, whatever lies there
								v = fmaf(scale, v, fmaf(scale2, ahead[d][TWO][p][h].v[k], shift));
								v = ahead[d][0][p][h].v[k] = b * LANES + 4 * r + k < a.n ? v : 0;
							} else if (INPUT == NORMAL)
								v = fmaxf(low, fmaf(scale, v, shift));
							x[p][k / 2][2 * h + k % 2] = igc_tf32(v);
						}
#pragma unroll
					for (int p = 0; p < P; p++)
						if (TWO && keeps && i < ci && p0 + p < last)
							store_four(a.dz + x0 + i * x_next + (p0 + p) * LANES, ahead[d][0][p][h].v);
				}
				if (step + AHEAD < steps) load(ahead[d], step + AHEAD);
				const uint *w = weights + step * TILES * 64 + 2 * lane;
#pragma unroll
				for (int t = 0; t < TILES; t++) {
					const uint2 v = *(const uint2 *)(w + 64 * t);
					const uint wt[2] = {v.x, v.y};
#pragma unroll
					for (int p = 0; p < P; p++)
#pragma unroll
						for (int m = 0; m < 2; m++) igc_mma_tf32(acc[t][p][m], x[p][m], wt);
				}
			}

#pragma unroll
		for (int p = 0; p < P; p++) {
			if (p0 + p >= last) break;
			// What masks several tiles is read before anything of them is written.
			constexpr int SOME = 2;
#pragma unroll
			for (int t0 = 0; t0 < TILES; t0 += SOME) {
				const int at = t0 * 8 * z_next + (p0 + p) * LANES;
				const int left = a.co - (o0 + t0 * 8 + 2 * c); // channels
				four mask[2 * SOME];
#pragma unroll
				for (int i = 0; i < 2 * SOME; i++) {
					const int o = i / 2 * 8 + i % 2;
					mask[i] = {{0, 0, 0, 0}};
					if (a.mx && o < left) mask[i] = load_four(mx + at + o * z_next);
				}
#pragma unroll
				for (int t = 0; t < SOME && t0 + t < TILES; t++) {
					float v4[4] = {0, 0, 0, 0}; // sums of z and z·mx of channel 2c, then of channel 2c+1
#pragma unroll
					for (int e = 0; e < 2; e++) {
						const int o = t * 8 + e;
						if (o >= left) continue;
						const float2 of_mask = *(const float2 *)(masks + 2 * (8 * t0 + 2 * c + o));
						float z[4];
#pragma unroll
						for (int k = 0; k < 4; k++) {
							float v = acc[t0 + t][p][k / 2][k % 2 * 2 + e], by = v;
							if (a.mx) {
								by = mask[2 * t + e].v[k];
								// What is no number must not pass as 0.
								if (fmaf(of_mask.x, by, of_mask.y) <= a.mlow) v = 0;
							}
							z[k] = v;
							if (b * LANES + 4 * r + k >= a.n) v = by = 0; // lanes without a picture do not count
							v4[2 * e] += v;
							v4[2 * e + 1] = fmaf(v, by, v4[2 * e + 1]);
						}
						store_four(to + at + o * z_next, z);
					}
					if (!a.sums) continue;
					const float sum = row_sums(v4);
					if (lane % 8 < 4) sums[(t0 + t) * 16 + 4 * c + lane / 8] += sum;
				}
			}
		}
	}
	if (!a.sums) return;
	// Those of all warps, in their order.
	__syncthreads();
	for (int e = thread; e < TILES * 16; e += threads) {
		const int o = o0 + e / 2;
		float sum = 0;
		for (int w = 0; w < (int)blockDim.y; w++) sum += warps[w * TILES * 16 + e];
		if (o < a.co)
			a.sums[((long long)(z_channel + o * a.out.by) * a.parts + b * gridDim.x + blockIdx.x) * 2 + e % 2] = sum;
	}
	end_sums(a, g, o0, TILES * 8);
}

// weight_grad_tf32 is weight_grad of a 1×1 kernel, by one tensor of gradients. A thread block adds up 16·OUT by 8·IN
// weights over some rows of 32 pictures: each of its warps takes some of the pixels, and pictures are what the products
// add over. Lane 4r + c reads pictures 4c … 4c+3 of 16, of output channels r and r+8 and of input channel r.
template <int OUT, int IN>
__device__ __forceinline__ void weight_grad_tf32(const igc_weight_grad &a) {
	SHARED(float, shared);
	const int lane = threadIdx.x, r = lane / 4, c = lane % 4, thread = threadIdx.y * 32 + lane, warps = blockDim.y;
	const int is = (a.ci + 8 * IN - 1) / (8 * IN), os = (a.co + 16 * OUT - 1) / (16 * OUT);
	const int i0 = blockIdx.x % is * 8 * IN, o0 = blockIdx.x / is % os * 16 * OUT, g = blockIdx.x / is / os;
	const int per = (a.OH + a.rows - 1) / a.rows, part = blockIdx.y, b = part / per, HW = a.OH * a.OW;
	const int from = part % per * a.rows * a.OW, to = min(from + a.rows * a.OW, HW);
	const float low = a.low;

	// From a channel to the next one of the group. Those beyond the last are read as the last and not written.
	const int x_next = a.in.by * HW * LANES, dz_next = a.out.by * HW * LANES;
	const int x_channel = first_channel(g, a.ci, a.in), dz_channel = first_channel(g, a.co, a.out);
	const float *const x = a.x + ((long long)b * a.groups * a.ci + x_channel + (i0 + r) * a.in.by) * HW * LANES;
	const float *const dz = a.g + ((long long)b * a.groups * a.co + dz_channel + (o0 + r) * a.out.by) * HW * LANES;
	const int left_i = a.ci - i0 - r, left_o = a.co - o0 - r; // channels from the lane's first one on
	for (int i = thread; i < 8 * IN; i += warps * 32) {
		const int ch = x_channel + min(i0 + i, a.ci - 1) * a.in.by;
		shared[2 * i] = a.scale ? a.scale[ch] : 1, shared[2 * i + 1] = a.scale ? a.shift[ch] : 0;
	}
	__syncthreads();

	float acc[OUT][IN][4];
#pragma unroll
	for (int i = 0; i < OUT * IN * 4; i++) acc[i / 4 / IN][i / 4 % IN][i % 4] = 0;

	for (int half = from * 2 + threadIdx.y; half < to * 2; half += warps) { // of a pixel's pictures
		const int picture = half % 2 * 16 + 4 * c, at = half / 2 * LANES + picture;
		four d[2 * OUT], v[IN];
#pragma unroll
		for (int o = 0; o < 2 * OUT; o++) d[o] = load_four(dz + min(8 * o, left_o - 1) * dz_next + at);
#pragma unroll
		for (int i = 0; i < IN; i++) v[i] = load_four(x + min(8 * i, left_i - 1) * x_next + at);
		uint left[OUT][2][4]; // of both products of a picture's half
#pragma unroll
		for (int o = 0; o < 2 * OUT; o++)
#pragma unroll
			for (int k = 0; k < 4; k++) left[o / 2][k / 2][o % 2 + k % 2 * 2] = igc_tf32(d[o].v[k]);
#pragma unroll
		for (int i = 0; i < IN; i++) {
			const float *n = shared + 2 * (8 * i + r);
			uint right[2][2];
#pragma unroll
			for (int k = 0; k < 4; k++) right[k / 2][k % 2] = igc_tf32(fmaxf(low, fmaf(n[0], v[i].v[k], n[1])));
#pragma unroll
			for (int o = 0; o < OUT; o++) {
				igc_mma_tf32(acc[o][i], left[o][0], right[0]);
				igc_mma_tf32(acc[o][i], left[o][1], right[1]);
			}
		}
	}

	// The sums of the warps, in their order, for eight input channels at a time.
	float *dw = a.dw + (long long)part * a.groups * a.co * a.ci;
#pragma unroll
	for (int i = 0; i < IN; i++) {
		__syncthreads();
#pragma unroll
		for (int o = 0; o < OUT; o++)
			*(float4 *)(shared + ((threadIdx.y * OUT + o) * 32 + lane) * 4) =
				make_float4(acc[o][i][0], acc[o][i][1], acc[o][i][2], acc[o][i][3]);
		__syncthreads();
		for (int e = thread; e < OUT * 128; e += warps * 32) {
			const int l = e / 4 % 32, to_o = o0 + e / 128 * 16 + e % 4 / 2 * 8 + l / 4, to_i = i0 + i * 8 + l % 4 * 2 + e % 2;
			float sum = 0;
			for (int w = 0; w < warps; w++) sum += shared[w * OUT * 128 + e];
			if (to_o < a.co && to_i < a.ci) dw[(long long)(g * a.co + to_o) * a.ci + to_i] = sum;
		}
	}
}
