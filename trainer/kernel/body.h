// The kernels. A file for each instruction set includes this one and defines
// ISA(name), VW (floats in a vector, 16, 8 or 4), the vector's broadcast BC(f), a
// store past the caches STREAM(p, v) with STREAM_END after the last, and the register
// blocks.
//
// All loops have the same structure. A block of pictures is read row by row. fill_row
// normalises a row into a scratch row with zero columns at both ends ("padded row"),
// so that the micro-kernels need no special case at the borders. As many padded rows
// as the kernel has are kept; they stay in the L2 cache. With 16 pictures innermost,
// one vector is one pixel of VW pictures, and a weight is a scalar: every L and M is
// the same dense arithmetic. A row is a sequence of vectors, 16/VW for each column,
// and the micro-kernels take them in this order, so that a cache line, which is a
// column, is read once for any VW.

#include <string.h>
#include "rows.h"

typedef float vec __attribute__((vector_size(4 * VW)));
typedef int ivec __attribute__((vector_size(4 * VW)));
typedef float uvec __attribute__((vector_size(4 * VW), aligned(4), may_alias));

#define LOAD(p) ((vec) * (const uvec *)(p))
#define STORE(p, v) (*(uvec *)(p) = (v))

// FORGET, after a step of a tile with n accumulators, makes the compiler load the
// shared operands again in the next step. Otherwise it keeps them in registers, which
// saves loads up to KEEP accumulators, and costs spills beyond that.
#define FORGET(n) do { if ((n) > KEEP) __asm__ volatile("" ::: "memory"); } while (0)

// relu keeps NaN, so that a training that diverged shows it in its loss.
INLINE vec relu(vec v) {
	return (vec)((ivec)v & ~(v <= 0));
}

// where returns v where x > 0 and 0 elsewhere.
INLINE vec where(vec x, vec v) {
	return (vec)((ivec)v & (x > 0));
}

INLINE float hsum(vec v) {
	float s[VW];
	STORE(s, v);
	UNROLL for (int w = VW / 2; w; w /= 2)
		UNROLL for (int k = 0; k < w; k++) s[k] += s[k + w];
	return s[0];
}

// ---- forward micro-kernels ----
//
// The tile sizes are constants wherever these functions are inlined. The arrays have a
// fixed size because GCC keeps only such arrays in registers.

// COL is where vector p of a row lies if the columns in use are step apart.
#define COL(p, step) ((p) / (16 / VW) * (step) * 16 + (p) % (16 / VW) * VW)

// taps says which columns a convolution reads and writes. Forward, output
// column p reads from column p*in on, and out is 1. The gradient by the input of
// a convolution with stride 2 is a convolution whose input lies on every second
// column: each output column meets every second tap only, so that it is computed
// in two phases, of the even columns and of the odd, with in = 1 and out = 2.
// Kernels are KH x KW, both odd.
typedef struct {
	long KH, KW;
	long in, out, phase;
} taps;

// conv_tile: OT output channels by PT vectors of one partition, from vector p0 on.
// y (OT, columns, 16), row[k] (Ci, columns, 16) padded rows or NULL, w (OT, Ci, KH, KW).
INLINE void conv_tile(const int OT, const int PT, const taps t, float *y, long ycs, const float *const *row, long xcs,
		const float *w, long Ci, long p0) {
	const long KK = t.KH * t.KW, P = t.KW / 2;
	vec acc[6][8];
	UNROLL for (int o = 0; o < OT; o++)
		UNROLL for (int p = 0; p < PT; p++) acc[o][p] = (vec){0};
	for (long i = 0; i < Ci; i++) {
		for (int kh = 0; kh < t.KH; kh++) {
			if (!row[kh]) continue;
			const float *x = row[kh] + i * xcs + COL(p0, t.in), *wk = w + i * KK + kh * t.KW;
			UNROLL for (int kw = 0; kw < t.KW; kw++) {
				if ((t.phase + kw - P) % t.out) continue;
				const long at = (P + (t.phase + kw - P) / t.out) * 16;
				vec b[6];
				UNROLL for (int o = 0; o < OT; o++) b[o] = BC(wk[o * Ci * KK + kw]);
				UNROLL for (int p = 0; p < PT; p++) {
					vec v = LOAD(x + COL(p, t.in) + at);
					UNROLL for (int o = 0; o < OT; o++) acc[o][p] += b[o] * v;
				}
				FORGET(OT * PT);
			}
		}
	}
	y += COL(p0, t.out) + t.phase * 16;
	UNROLL for (int o = 0; o < OT; o++)
		UNROLL for (int p = 0; p < PT; p++) STORE(y + o * ycs + COL(p, t.out), acc[o][p]);
}

#define CONV(ot, pt) \
	for (; p + pt <= n; p += pt) conv_tile(ot, pt, t, yo, ycs, row, xcs, wo, Ci, p);

// conv_taps: y (L*Co, columns, 16) with channel stride ycs = the primary
// convolution of padded rows with channel stride xcs.
INLINE void conv_taps(const taps t, float *y, long ycs, const float *const *rows, long xcs, long columns,
		const float *w, long L, long Ci, long Co, stream *next) {
	const long n = columns * (16 / VW);
	for (long l = 0; l < L; l++) {
		const float *row[MAX_K];
		for (int k = 0; k < t.KH; k++) row[k] = rows[k] ? rows[k] + l * Ci * xcs : 0;
		for (long o = 0; o < Co;) {
			// Tiles of nearly equal height: 5 = 3 + 2, not 4 + 1.
			long left = Co - o, tiles = (left + CONV_OT - 1) / CONV_OT, ot = (left + tiles - 1) / tiles, p = 0;
			float *yo = y + (l * Co + o) * ycs;
			const float *wo = w + (l * Co + o) * Ci * t.KH * t.KW;
			switch (ot) {
			case 1: CONV(1, CONV_P1) CONV(1, 2) CONV(1, 1) break;
			case 2: CONV(2, CONV_P2) CONV(2, 2) CONV(2, 1) break;
			case 3: CONV(3, CONV_P3) CONV(3, 2) CONV(3, 1) break;
#if CONV_OT > 3
			case 4: CONV(4, CONV_P4) CONV(4, 2) CONV(4, 1) break;
#endif
			}
			ahead(next, ot * columns * Ci * t.KH * t.KW);
			o += ot;
		}
	}
}

// 3x3 kernels are compiled on their own, all others in one.
#define CONV_TAPS(name, kh, kw, in, out, phase) \
	static __attribute__((noinline)) void name(const taps *t, float *y, long ycs, const float *const *rows, \
			long xcs, long columns, const float *w, long L, long Ci, long Co, stream *next) { \
		conv_taps((taps){kh, kw, in, out, phase}, y, ycs, rows, xcs, columns, w, L, Ci, Co, next); \
	}
CONV_TAPS(conv_3x3, 3, 3, 1, 1, 0)
CONV_TAPS(conv_3x3_stride, 3, 3, 2, 1, 0)
CONV_TAPS(conv_3x3_even, 3, 3, 1, 2, 0)
CONV_TAPS(conv_3x3_odd, 3, 3, 1, 2, 1)
CONV_TAPS(conv_any, t->KH, t->KW, t->in, t->out, t->phase)

// conv_row: row h of y (L*Co, OW, 16) = the primary convolution of KH padded
// rows, whose columns start at the left padding; row[k] is NULL above and below
// the picture.
static void conv_row(const igc_conv *a, float *y, long ycs, const float *const *rows, const float *w, stream *next) {
	const taps t = {a->KH, a->KW, a->stride, 1, 0};
	const long xcs = (a->W + a->KW - 1) * 16, OW = (a->W + a->stride - 1) / a->stride;
	(a->KH != 3 || a->KW != 3 ? conv_any : t.in == 2 ? conv_3x3_stride : conv_3x3)
		(&t, y, ycs, rows, xcs, OW, w, a->L, a->Ci, a->Co, next);
}

// convt_row: a row of dx (L*Ci, W, 16), the gradient by the input, from padded
// rows of dy; w has in and out exchanged, its kernels turned by 180 degrees.
static void convt_row(const igc_conv *a, float *dx, const float *const *rows, const float *w, stream *next) {
	const long xcs = ((a->W + a->stride - 1) / a->stride + a->KW - 1) * 16;
	for (long phase = 0; phase < a->stride; phase++) {
		const taps t = {a->KH, a->KW, 1, a->stride, phase};
		(a->KH != 3 || a->KW != 3 ? conv_any : t.out == 1 ? conv_3x3 : phase ? conv_3x3_odd : conv_3x3_even)(
			&t, dx, a->W * 16, rows, xcs, (a->W - phase + a->stride - 1) / a->stride, w, a->L, a->Co, a->Ci, next);
	}
}

// What the secondary convolution multiplies. With -DIGC_ROUND_TF32 it is rounded as for the matrix units of a GPU, from 16
// channels on, which shows what precision = "tf32" does to results without a GPU (docs/gpu.md).
#ifdef IGC_ROUND_TF32
static float mixed(float x, long L) {
	unsigned bits;
	memcpy(&bits, &x, 4);
	if (L < 16 || x != x) return x;
	bits = (bits + 0x1000) & 0xffffe000;
	memcpy(&x, &bits, 4);
	return x;
}
static void mixed_row(float *x, long n, long L) {
	for (long i = 0; i < n; i++) x[i] = mixed(x[i], L);
}
#else
#define mixed(x, L) (x)
#define mixed_row(x, n, L)
#endif

// mix_tile: OT outputs by PT vectors of one L x L matrix over channels. With sums (OT, 2, 16), scs apart, the outputs
// are the block's: they leave past the caches, since they are read again when the whole batch is done, and their sums and
// the sums of their squares are added to sums.
INLINE void mix_tile(const int OT, const int PT, float *z, long zcs, float *sums, long scs, const float *y, long ycs,
		const float *w, long L) {
	vec acc[6][8];
	UNROLL for (int o = 0; o < OT; o++)
		UNROLL for (int p = 0; p < PT; p++) acc[o][p] = (vec){0};
	for (long i = 0; i < L; i++) {
		vec v[8];
		UNROLL for (int p = 0; p < PT; p++) v[p] = LOAD(y + i * ycs + p * VW);
		UNROLL for (int o = 0; o < OT; o++) {
			vec b = BC(mixed(w[o * L + i], L));
			UNROLL for (int p = 0; p < PT; p++) acc[o][p] += b * v[p];
		}
	}
	if (!sums) {
		UNROLL for (int o = 0; o < OT; o++)
			UNROLL for (int p = 0; p < PT; p++) STORE(z + o * zcs + p * VW, acc[o][p]);
		return;
	}
	const int N = MIN(PT, 16 / VW);
	UNROLL for (int o = 0; o < OT; o++, sums += scs) {
		UNROLL for (int p = 0; p < PT; p++) STREAM(z + o * zcs + p * VW, acc[o][p]);
		UNROLL for (int k = 0; k < N; k++) {
			vec s = LOAD(sums + k * VW), q = LOAD(sums + 16 + k * VW);
			UNROLL for (int p = k; p < PT; p += N) {
				s += acc[o][p];
				q += acc[o][p] * acc[o][p];
			}
			STORE(sums + k * VW, s);
			STORE(sums + 16 + k * VW, q);
		}
	}
}

#define MIX(ot, pt) \
	case ot: \
		for (long q = p; q < p + pt; q += MIN(pt, MIX_PT(ot))) \
			mix_tile(ot, MIN(pt, MIX_PT(ot)), zo + q * VW, M * zcs, \
				sums ? sums + (o * M + first) * 32 + q * VW % 16 : 0, M * 32, yo + q * VW, M * ycs, wo, L); \
		break;

// MIX_COLUMNS: all outputs of a partition at PT vectors, whose inputs stay in the L1 cache meanwhile.
#define MIX_COLUMNS(pt) \
	for (; p + pt <= n; p += pt) \
		for (long o = 0; o < L;) { \
			long left = L - o, tiles = (left + MIX_OT - 1) / MIX_OT, ot = (left + tiles - 1) / tiles; \
			float *zo = z + (o * M + first) * zcs; \
			const float *yo = y + first * ycs, *wo = w + (m * L + o) * L; \
			switch (ot) { MIX(1, pt) MIX(2, pt) MIX(3, pt) MIX(4, pt) MIX(5, pt) MIX(6, pt) } \
			ahead(next, ot * L * pt * VW / 16); \
			o += ot; \
		}

// mix_row: a 1x1 factor with partitions of L channels that lie M apart, on one row of
// C channels. Output l of a partition is the sum over k of w[l][k] times its
// input k: the permutation of Eq. 2 is this index, nothing is moved. With sums
// (C, 2, 16) this is the last factor of a block, forward.
static void mix_row(float *z, long zcs, float *sums, const float *y, long ycs, long W, const float *w, igc_mix f,
		long C, stream *next) {
	const long n = W * (16 / VW), L = f.K, M = f.step;
	for (long m = 0; m < C / L; m++) {
		const long first = channel(L, M, m * L);
		long p = 0;
		MIX_COLUMNS(4)
		MIX_COLUMNS(1)
	}
}

// ---- weight-gradient micro-kernels ----
//
// They add to accumulators of VW lanes for each weight; reduce() sums the
// lanes once for each picture block.

// mixgrad_tile: acc (AT, L, VW) += sum over columns of dz (AT channels) times y (BT channels).
INLINE void mixgrad_tile(const int AT, const int BT, float *acc, long L, const float *dz, long dzs, const float *y,
		long ys, long W) {
	vec a[6][6];
	UNROLL for (int i = 0; i < AT; i++)
		UNROLL for (int j = 0; j < BT; j++) a[i][j] = LOAD(acc + (i * L + j) * VW);
	for (long k = 0; k < W * 16; k += VW) {
		vec v[6];
		UNROLL for (int j = 0; j < BT; j++) v[j] = LOAD(y + j * ys + k);
		UNROLL for (int i = 0; i < AT; i++) {
			vec d = LOAD(dz + i * dzs + k);
			UNROLL for (int j = 0; j < BT; j++) a[i][j] += d * v[j];
		}
	}
	UNROLL for (int i = 0; i < AT; i++)
		UNROLL for (int j = 0; j < BT; j++) STORE(acc + (i * L + j) * VW, a[i][j]);
}

#define MIXGRAD_TILES(at, bt) \
	for (; j + bt <= L; j += bt) { \
		mixgrad_tile(at, bt, ai + j * VW, L, di, M * dzs, yi + j * M * ys, M * ys, W); \
		ahead(next, at * bt * W); \
	}
#define MIXGRAD(at) case at: MIXGRAD_TILES(at, MIXGRAD_BT) MIXGRAD_TILES(at, 2) MIXGRAD_TILES(at, 1) break;

// mixgrad_row: acc (C, L, VW) += the row's share of the gradient of a mix's
// weights; dz and y are (C, W, 16) with channel strides dzs and ys.
static void mixgrad_row(float *acc, const float *dz, long dzs, const float *y, long ys, long W, igc_mix f, long C,
		stream *next) {
	const long L = f.K, M = f.step;
	for (long m = 0; m < C / L; m++) {
		const long first = channel(L, M, m * L);
		for (long i = 0; i < L;) {
			long left = L - i, tiles = (left + MIXGRAD_AT - 1) / MIXGRAD_AT, at = (left + tiles - 1) / tiles, j = 0;
			float *ai = acc + (m * L + i) * L * VW;
			const float *di = dz + (i * M + first) * dzs, *yi = y + first * ys;
			switch (at) { MIXGRAD(1) MIXGRAD(2) MIXGRAD(3) MIXGRAD(4) }
			i += at;
		}
	}
}

// convgrad_tile: acc (OT, Ci, KH*KW, VW) += sum over columns of dy (OT channels)
// times K shifts of RT padded rows of x, the columns S apart: row[r] starts at
// the column that meets tap at[r] of (Ci, KH*KW). It takes CONVGRAD_Q columns at
// a time: two need fewer loads, and more registers.
INLINE void convgrad_tile(const int OT, const int RT, const int K, const int S, float *acc, long taps,
		const float *dy, long dys, const float *const *row, const long *at, long W) {
	enum { Q = CONVGRAD_Q };
	const float *x[6];
	vec a[4][6][3];
	UNROLL for (int r = 0; r < RT; r++) x[r] = row[r];
	UNROLL for (int o = 0; o < OT; o++)
		UNROLL for (int r = 0; r < RT; r++)
			UNROLL for (int k = 0; k < K; k++) a[o][r][k] = LOAD(acc + (o * taps + at[r] + k) * VW);
	long p = 0;
	for (; p + Q <= W; p += Q)
		UNROLL for (int s = 0; s < 16; s += VW) {
			vec d[4][Q];
			UNROLL for (int o = 0; o < OT; o++)
				UNROLL for (int q = 0; q < Q; q++) d[o][q] = LOAD(dy + o * dys + (p + q) * 16 + s);
			UNROLL for (int r = 0; r < RT; r++)
				UNROLL for (int c = 0; c < (Q - 1) * S + K; c++) {
					vec v = LOAD(x[r] + (p * S + c) * 16 + s);
					UNROLL for (int o = 0; o < OT; o++)
						UNROLL for (int q = 0; q < Q; q++)
							if (c - q * S >= 0 && c - q * S < K) a[o][r][c - q * S] += d[o][q] * v;
				}
			FORGET(OT * RT * K);
		}
	for (; Q > 1 && p < W; p++)
		UNROLL for (int s = 0; s < 16; s += VW)
			UNROLL for (int o = 0; o < OT; o++) {
				vec d = LOAD(dy + o * dys + p * 16 + s);
				UNROLL for (int r = 0; r < RT; r++)
					UNROLL for (int k = 0; k < K; k++) a[o][r][k] += d * LOAD(x[r] + (p * S + k) * 16 + s);
			}
	UNROLL for (int o = 0; o < OT; o++)
		UNROLL for (int r = 0; r < RT; r++)
			UNROLL for (int k = 0; k < K; k++) STORE(acc + (o * taps + at[r] + k) * VW, a[o][r][k]);
}

#define CONVGRAD(ot, rt) \
	for (; r + rt <= n; r += rt) { \
		convgrad_tile(ot, rt, K, S, ao, taps, dyo, dys, row + r, at + r, OW); \
		ahead(next, ot * rt * K * OW); \
	}

INLINE void convgrad_taps(const int K, const int S, const igc_conv *a, float *acc, const float *dy,
		const float *const *rows, stream *next) {
	const long Ci = a->Ci, Co = a->Co, KH = a->KH, KW = a->KW, taps = Ci * KH * KW;
	const long OW = (a->W + S - 1) / S, xcs = (a->W + KW - 1) * 16, dys = (OW + KW - 1) * 16;
	enum { CHUNK = 64 }; // rows at a time
	for (long l = 0; l < a->L; l++)
		for (long tap = 0; tap < taps;) {
			const float *row[CHUNK];
			long at[CHUNK], n = 0;
			for (; n < CHUNK && tap < taps; tap += K) {
				const float *x = rows[tap / KW % KH];
				if (x) row[n] = x + (l * Ci + tap / (KH * KW)) * xcs + tap % KW * 16, at[n++] = tap;
			}
			for (long o = 0; o < Co;) {
				long left = Co - o, tiles = (left + CONVGRAD_OT - 1) / CONVGRAD_OT, ot = (left + tiles - 1) / tiles;
				long r = 0;
				float *ao = acc + (l * Co + o) * taps * VW;
				const float *dyo = dy + (l * Co + o) * dys;
				switch (ot) {
				case 1: CONVGRAD(1, CONVGRAD_R1) CONVGRAD(1, 1) break;
				case 2: CONVGRAD(2, CONVGRAD_R2) CONVGRAD(2, 1) break;
				case 3: CONVGRAD(3, CONVGRAD_R3) CONVGRAD(3, 1) break;
				case 4: CONVGRAD(4, CONVGRAD_R4) CONVGRAD(4, 1) break;
				}
				o += ot;
			}
		}
}

// convgrad_row: acc (L*Co, Ci, KH, KW, VW) += the row's share of the gradient of
// wp. dy points at the first real column of a padded row, rows as in conv_row.
static void convgrad_row(const igc_conv *a, float *acc, const float *dy,
		const float *const *rows, stream *next) {
	switch (a->KW == 3 ? a->stride : 2 + a->stride) {
	case 1: convgrad_taps(3, 1, a, acc, dy, rows, next); break;
	case 2: convgrad_taps(3, 2, a, acc, dy, rows, next); break;
	case 3: convgrad_taps(1, 1, a, acc, dy, rows, next); break;
	case 4: convgrad_taps(1, 2, a, acc, dy, rows, next); break;
	}
}

// reduce: dw[k] = the sum of the lanes of acc[k].
static void reduce(float *dw, const float *acc, long n) {
	for (long k = 0; k < n; k++) dw[k] = hsum(LOAD(acc + k * VW));
}

// ---- passes over one row ----

// lane_mask: 1 for the valid lanes, 0 for padding.
INLINE void lane_mask(float *mask, long valid) {
	for (int n = 0; n < 16; n++) mask[n] = n < valid;
}

// fill_row: a padded row (C, W + 2*pad, 16) = relu(scale*x + shift) of row h, linear
// without the ReLU, or x.
static void fill_row(float *out, const igc_conv *a, long C, long h) {
	const long W = a->W, pad = a->KW / 2 * 16;
	for (long q = 0; q < C; q++, out += W * 16 + 2 * pad) {
		const long c = channel(a->Ci, a->step_in, q);
		const float *x = a->x + (h * C + c) * W * 16;
		float *o = out + pad;
		memset(out, 0, pad * sizeof(float));
		if (a->scale) {
			vec scale = BC(a->scale[c]), shift = BC(a->shift[c]);
			if (a->linear)
				for (long k = 0; k < W * 16; k += VW) STORE(o + k, scale * LOAD(x + k) + shift);
			else
				for (long k = 0; k < W * 16; k += VW) STORE(o + k, relu(scale * LOAD(x + k) + shift));
		} else {
			memcpy(o, x, W * 16 * sizeof(float));
		}
		memset(o + W * 16, 0, pad * sizeof(float));
	}
}

// copy_row: out = row, n floats, past the caches.
static void copy_row(float *out, const float *row, long n) {
	for (long k = 0; k < n; k += VW) STREAM(out + k, LOAD(row + k));
}

// finish_row: z of row h = row (C, W, 16), channel stride cs, past the caches as in
// mix_tile. Adds its sums of z and z*z, valid lanes only.
static void finish_row(const igc_conv *a, const float *row, long cs, const float *mask, long C, long W, long h) {
	for (long k = 0; k < C; k++, row += cs) {
		const long c = channel(a->Co, a->step_out, k);
		float *z = a->z + (h * C + c) * W * 16;
		vec s[16 / VW], q[16 / VW];
		UNROLL for (int k = 0; k < 16 / VW; k++) s[k] = q[k] = (vec){0};
		for (long p = 0; p < W * 16; p += 16)
			UNROLL for (int k = 0; k < 16 / VW; k++) {
				vec v = LOAD(row + p + k * VW);
				STREAM(z + p + k * VW, v);
				s[k] += v;
				q[k] += v * v;
			}
		if (!a->sum) continue;
		vec st = (vec){0}, qt = (vec){0};
		UNROLL for (int k = 0; k < 16 / VW; k++) {
			vec m = LOAD(mask + k * VW);
			st += m * s[k];
			qt += m * q[k];
		}
		a->sum[c] += hsum(st);
		a->sumsq[c] += hsum(qt);
	}
}

// add_sums adds what the last mix summed of a row, sums (C, 2, 16), valid lanes only.
static void add_sums(const igc_conv *a, const float *sums, const float *mask, long C) {
	for (long c = 0; c < C; c++, sums += 32) {
		vec s = (vec){0}, q = (vec){0};
		UNROLL for (int k = 0; k < 16; k += VW) {
			vec m = LOAD(mask + k);
			s += m * LOAD(sums + k);
			q += m * LOAD(sums + 16 + k);
		}
		a->sum[c] += hsum(s);
		a->sumsq[c] += hsum(q);
	}
}

// dz_row: out (C, W, 16), channel stride cs, = the gradient of z in row h, zero
// in padding lanes.
static void dz_row(float *out, long cs, const igc_conv *a, const float *mask, long C, long W, long h) {
	for (long q = 0; q < C; q++, out += cs) {
		const long c = channel(a->Co, a->step_out, q);
		const float *z = a->z + (h * C + c) * W * 16;
		vec ca = BC(a->ca[c]), cb = BC(a->cb[c]), cc = BC(a->cc[c]);
		if (a->gscale) {
			vec scale = BC(a->gscale[c]), shift = BC(a->gshift[c]);
			for (long s = 0; s < 16; s += VW) {
				vec m = LOAD(mask + s), g = ca * LOAD(a->g + c * 16 + s);
				for (long k = s; k < W * 16; k += 16) {
					vec v = LOAD(z + k);
					STORE(out + k, m * (where(scale * v + shift, g) + cb * v + cc));
				}
			}
			continue;
		}
		const float *g = a->g + (h * C + c) * W * 16;
		for (long s = 0; s < 16; s += VW) {
			vec m = LOAD(mask + s);
			for (long k = s; k < W * 16; k += 16) STORE(out + k, m * (ca * LOAD(g + k) + cb * LOAD(z + k) + cc));
		}
	}
}

// gx_row: gx of row h = dx (C, W, 16) where the ReLU let a pass, and its sums;
// without normalisation all of dx. act is the padded row of a at its first real
// column.
static void gx_row(const igc_conv *a, const float *dx, const float *act, long C, long h) {
	const long W = a->W, PW = W + a->KW - 1;
	for (long k = 0; k < C; k++, dx += W * 16, act += PW * 16) {
		const long c = channel(a->Ci, a->step_in, k);
		const float *x = a->x + (h * C + c) * W * 16;
		float *gx = a->gx + (h * C + c) * W * 16;
		if (!a->scale) {
			memcpy(gx, dx, W * 16 * sizeof(float));
			continue;
		}
		vec s = (vec){0}, q = (vec){0};
		for (long k = 0; k < W * 16; k += VW) {
			vec v = LOAD(dx + k);
			if (!a->linear) v = where(LOAD(act + k), v);
			STORE(gx + k, v);
			s += v;
			q += v * LOAD(x + k);
		}
		a->gsum[c] += hsum(s);
		a->gxsum[c] += hsum(q);
	}
}

// relu_row: row (n floats) = relu(row).
static void relu_row(float *row, long n) {
	for (long k = 0; k < n; k += VW) STORE(row + k, relu(LOAD(row + k)));
}

// mask_row: d (C, W, 16), channel stride ds, = d where y > 0, 0 elsewhere.
static void mask_row(float *d, long ds, const float *y, long ys, long C, long W) {
	for (long c = 0; c < C; c++, d += ds, y += ys)
		for (long k = 0; k < W * 16; k += VW) STORE(d + k, where(LOAD(y + k), LOAD(d + k)));
}

// ---- the block ----

// The rings of padded rows: of a, as many as a row of the output meets (and at
// least as many as lie between two of them), and of the gradient of y.
#define RING(a) MAX((a)->KH, (a)->stride)
#define XROW(h) ((h) >= 0 && (h) < H ? ring + ((h) % RING(a)) * Cx * PW * 16 : 0)
#define DROW(h) ((h) >= 0 && (h) < OH ? dring + ((h) % KH) * Cz * PO * 16 : 0)

// APART is the distance between the channels of rows of z and y, a line more than a
// row: 32 columns apart, channels of one partition of even M would all fall into the
// same lines of the L1 cache.
#define APART ((OW + 1) * 16)

void ISA(igc_conv_forward)(const igc_conv *a) {
	const long H = a->H, W = a->W, KH = a->KH, S = a->stride, P = KH / 2, Cx = a->L * a->Ci, Cz = a->L * a->Co;
	const long OH = (H + S - 1) / S, OW = (W + S - 1) / S, PW = W + a->KW - 1, apart = APART;
	float mask[16];
	lane_mask(mask, a->valid);
	float *ring = a->scratch;                 // RING x (Cx, PW, 16): a
	float *y = ring + RING(a) * Cx * PW * 16; // (Cz, OW, 16)
	float *z = y + Cz * apart;                // (Cz, OW, 16): between two mixes
	float *sums = z + Cz * apart;             // (Cz, 2, 16)
	if (a->sum) {
		memset(a->sum, 0, Cz * sizeof(double));
		memset(a->sumsq, 0, Cz * sizeof(double));
	}
	for (long h = 0, filled = 0; h < OH; h++) {
		for (; filled < H && filled <= S * h + P; filled++) fill_row(XROW(filled), a, Cx, filled);
		const float *rows[MAX_K];
		for (long k = 0; k < KH; k++) rows[k] = XROW(S * h - P + k);
		stream next = {{0}};
		if (filled < H) stream_add(&next, a->x + filled * Cx * W * 16, MIN(S, H - filled) * Cx * W);
		stream_start(&next, OW * Cz * (a->Ci * KH * a->KW + mix_depth(a)));
		conv_row(a, y, apart, rows, a->wp, &next);
		if (a->between) relu_row(y, Cz * apart);
		if (!a->mixes) finish_row(a, y, apart, mask, Cz, OW, h);
		float *from = y, *to = z; // they take turns
		const float *w = a->ws;
		for (long n = 0; n < a->mixes; n++) {
			mixed_row(from, Cz * apart, a->mix[n].K);
			if (n == 0 && a->y)
				for (long c = 0; c < Cz; c++) copy_row(a->y + (h * Cz + c) * OW * 16, from + c * apart, OW * 16);
			if (n < a->mixes - 1) {
				mix_row(to, apart, 0, from, apart, OW, w, a->mix[n], Cz, &next);
			} else {
				memset(sums, 0, Cz * 32 * sizeof(float));
				mix_row(a->z + h * Cz * OW * 16, OW * 16, sums, from, apart, OW, w, a->mix[n], Cz, &next);
				if (a->sum) add_sums(a, sums, mask, Cz);
			}
			w += Cz * a->mix[n].K;
			float *last = from;
			from = to, to = last;
		}
	}
	STREAM_END;
}

void ISA(igc_conv_backward)(const igc_conv *a) {
	const long H = a->H, W = a->W, KH = a->KH, KW = a->KW, S = a->stride, P = KH / 2;
	const long L = a->L, Ci = a->Ci, Co = a->Co, Cx = L * Ci, Cz = L * Co, KK = KH * KW;
	const long OH = (H + S - 1) / S, OW = (W + S - 1) / S, PW = W + KW - 1, PO = OW + KW - 1;
	const long apart = APART;
	float mask[16];
	lane_mask(mask, a->valid);
	float *ring = a->scratch;                            // RING x (Cx, PW, 16): a
	float *dring = ring + RING(a) * Cx * PW * 16;        // KH x (Cz, PO, 16): gradient of y
	float *dz = dring + KH * Cz * PO * 16;               // (Cz, OW, 16)
	float *row = dz + Cz * apart;                        // y (Cz, OW, 16), then dx (Cx, W, 16)
	float *rest = row + MAX(Cz * apart, Cx * W * 16);    // mixes-1 x (Cz, OW, 16): what the other mixes read
	float *accp = rest + MAX(a->mixes - 1, 0) * Cz * apart; // (Cz, Ci, KH, KW, VW)
	float *accs = accp + Cz * Ci * KK * VW;              // of each mix (Cz, K, VW)
	const long depth = mix_depth(a);
	memset(accp, 0, Cz * (Ci * KK + depth) * VW * sizeof(float));
	memset(dring, 0, KH * Cz * PO * 16 * sizeof(float)); // only the padding stays zero
	if (a->gx && a->scale) {
		memset(a->gsum, 0, Cx * sizeof(double));
		memset(a->gxsum, 0, Cx * sizeof(double));
	}
	const long primary = OW * Cz * Ci * KK, mixes = OW * Cz * depth;
	const long again = (a->mixes && !a->y ? primary : 0) + (a->mixes > 1 ? mixes - OW * Cz * a->mix[a->mixes - 1].K : 0);
	// Row h of dy completes the rows of dx up to S*h + S-1 - P.
	for (long h = 0, filled = 0, done = 0; h < OH || (a->gx && done < H); h++) {
		for (; filled < H && filled <= S * h + MAX(P, S - 1 - P); filled++) fill_row(XROW(filled), a, Cx, filled);
		stream next = {{0}};
		if (filled < H) stream_add(&next, a->x + filled * Cx * W * 16, MIN(S, H - filled) * Cx * W);
		if (h + 1 < OH) {
			const long at = (h + 1) * Cz * OW * 16;
			stream_add(&next, a->z + at, Cz * OW);
			if (!a->gscale) stream_add(&next, a->g + at, Cz * OW);
			if (a->y) stream_add(&next, a->y + at, Cz * OW);
		}
		stream_start(&next, primary + 2 * mixes + again + (a->gx ? primary : 0));
		const float *rows[MAX_K];
		if (h < OH) {
			for (long k = 0; k < KH; k++) rows[k] = XROW(S * h - P + k);
			float *dy = DROW(h) + KW / 2 * 16;
			if (a->mixes) {
				dz_row(dz, apart, a, mask, Cz, OW, h);
				const float *y = row;
				long ys = apart;
				if (a->y) {
					y = a->y + h * Cz * OW * 16, ys = OW * 16;
				} else {
					conv_row(a, row, apart, rows, a->wp, &next);
					if (a->between) relu_row(row, Cz * apart);
					mixed_row(row, Cz * apart, a->mix[0].K);
				}
				const float *w = a->ws;
				for (long n = 1; n < a->mixes; n++) {
					float *to = rest + (n - 1) * Cz * apart;
					mix_row(to, apart, 0, n > 1 ? to - Cz * apart : y, n > 1 ? apart : ys, OW, w, a->mix[n - 1], Cz, &next);
					mixed_row(to, Cz * apart, a->mix[n].K);
					w += Cz * a->mix[n - 1].K;
				}
				// From the last mix to the first: the gradient of its weights, then that of its input, which takes
				// the place of the input.
				float *d = dz, *acc = accs + Cz * depth * VW;
				const float *wt = a->wst + Cz * depth;
				for (long n = a->mixes - 1; n >= 0; n--) {
					const igc_mix f = a->mix[n];
					acc -= Cz * f.K * VW, wt -= Cz * f.K;
					mixed_row(d, Cz * apart, f.K);
					float *in = rest + (n - 1) * Cz * apart;
					mixgrad_row(acc, d, apart, n ? in : y, n ? apart : ys, OW, f, Cz, &next);
					mix_row(n ? in : dy, n ? apart : PO * 16, 0, d, apart, OW, wt, f, Cz, &next);
					d = in;
				}
				if (a->between) mask_row(dy, PO * 16, y, ys, Cz, OW);
			} else {
				dz_row(dy, PO * 16, a, mask, Cz, OW, h);
			}
			convgrad_row(a, accp, dy, rows, &next);
		}
		for (; a->gx && done < H && done <= S * h + S - 1 - P; done++) {
			for (long k = 0; k < KH; k++) {
				const long at = done - P + k;
				rows[k] = at >= 0 && at % S == 0 ? DROW(at / S) : 0;
			}
			convt_row(a, row, rows, a->wpt, &next);
			gx_row(a, row, XROW(done) + KW / 2 * 16, Cx, done);
		}
	}
	reduce(a->dwp, accp, Cz * Ci * KK);
	reduce(a->dws, accs, Cz * depth);
}

// ---- residual units and max pool ----

void ISA(igc_add_forward)(const igc_add *a) {
	const long n = a->W * 16;
	for (long k = 0; k < a->H * a->C; k++) {
		const long c = k % a->C;
		const float *z = a->z + k * n, *x = a->x ? a->x + k * n : z;
		float *out = a->out + k * n;
		vec scale = BC(a->scale[c]), shift = BC(a->shift[c]), bscale = BC(a->x ? 1.0f : 0.0f);
		if (a->bscale) bscale = BC(a->bscale[c]), shift += BC(a->bshift[c]);
		for (long i = 0; i < n; i += VW) {
			vec v = scale * LOAD(z + i) + (bscale * LOAD(x + i) + shift);
			STORE(out + i, a->linear ? v : relu(v));
		}
	}
}

void ISA(igc_add_backward)(const igc_add *a) {
	const long n = a->W * 16;
	memset(a->gsum, 0, a->C * sizeof(double));
	memset(a->gzsum, 0, a->C * sizeof(double));
	if (a->bscale) memset(a->gxsum, 0, a->C * sizeof(double));
	for (long k = 0; k < a->H * a->C; k++) {
		const long c = k % a->C;
		const float *z = a->z + k * n, *x = a->x ? a->x + k * n : z, *out = a->out + k * n;
		const float *g = a->pooled ? a->g + c * 16 : a->g + k * n;
		float *gx = a->gx + k * n;
		vec s = (vec){0}, q = (vec){0}, r = (vec){0};
		for (long i = 0; i < n; i += VW) {
			vec v = LOAD(g + (a->pooled ? i % 16 : i));
			if (!a->linear) v = where(LOAD(out + i), v);
			STORE(gx + i, v);
			s += v;
			q += v * LOAD(z + i);
			if (a->bscale) r += v * LOAD(x + i);
		}
		a->gsum[c] += hsum(s);
		a->gzsum[c] += hsum(q);
		if (a->bscale) a->gxsum[c] += hsum(r);
	}
}

// The padding is zero, which is never larger than the output of a ReLU.
void ISA(igc_max_forward)(const igc_max *a) {
	const long H = a->H, W = a->W, OH = (H + 1) / 2, OW = (W + 1) / 2;
	for (long h = 0; h < OH; h++)
		for (long c = 0; c < a->C; c++) {
			vec scale = BC(a->scale[c]), shift = BC(a->shift[c]);
			for (long w = 0; w < OW; w++)
				for (long s = 0; s < 16; s += VW) {
					vec top = (vec){0};
					for (long i = MAX(2 * h - 1, 0); i < MIN(2 * h + 2, H); i++)
						for (long j = MAX(2 * w - 1, 0); j < MIN(2 * w + 2, W); j++) {
							vec v = relu(scale * LOAD(a->x + ((i * a->C + c) * W + j) * 16 + s) + shift);
							ivec larger = (v > top) | (v != v); // NaN wins, and stays
							top = (vec)(((ivec)v & larger) | ((ivec)top & ~larger));
						}
					STORE(a->out + ((h * a->C + c) * OW + w) * 16 + s, top);
				}
		}
}

// The gradient goes to the first position, row by row, that has the largest
// value: PyTorch's rule. Where that value is 0, the ReLU stops it.
void ISA(igc_max_backward)(const igc_max *a) {
	const long H = a->H, W = a->W, OH = (H + 1) / 2, OW = (W + 1) / 2;
	memset(a->gx, 0, H * a->C * W * 16 * sizeof(float));
	for (long h = 0; h < OH; h++)
		for (long c = 0; c < a->C; c++) {
			vec scale = BC(a->scale[c]), shift = BC(a->shift[c]);
			for (long w = 0; w < OW; w++)
				for (long s = 0; s < 16; s += VW) {
					const long at = ((h * a->C + c) * OW + w) * 16 + s;
					vec top = LOAD(a->out + at), g = where(top, LOAD(a->g + at));
					for (long i = MAX(2 * h - 1, 0); i < MIN(2 * h + 2, H); i++)
						for (long j = MAX(2 * w - 1, 0); j < MIN(2 * w + 2, W); j++) {
							const long k = ((i * a->C + c) * W + j) * 16 + s;
							ivec here = relu(scale * LOAD(a->x + k) + shift) == top;
							STORE(a->gx + k, LOAD(a->gx + k) + (vec)((ivec)g & here));
							g = (vec)((ivec)g & ~here);
						}
				}
		}
	memset(a->gsum, 0, a->C * sizeof(double));
	memset(a->gxsum, 0, a->C * sizeof(double));
	for (long k = 0; k < H * a->C; k++) {
		vec s = (vec){0}, q = (vec){0};
		for (long i = k * W * 16; i < (k + 1) * W * 16; i += VW) {
			vec v = LOAD(a->gx + i);
			s += v;
			q += v * LOAD(a->x + i);
		}
		a->gsum[k % a->C] += hsum(s);
		a->gxsum[k % a->C] += hsum(q);
	}
}

void ISA(igc_sum)(float *to, const float *from, long n) {
	for (long k = 0; k < n; k += VW) STORE(to + k, LOAD(to + k) + LOAD(from + k));
}

// ---- the head ----

void ISA(igc_pool_forward)(const igc_head *a) {
	const long W = a->W, C = a->C;
	const float inv = 1.0f / (a->H * W);
	memset(a->pool, 0, C * 16 * sizeof(float));
	if (a->open) memset(a->open, 0, C * 16 * sizeof(float));
	if (a->open) memset(a->openx, 0, C * 16 * sizeof(float));
	// A row at a time, so that a sum over 1,024 positions rounds little.
	for (long h = 0; h < a->H; h++)
		for (long c = 0; c < C; c++) {
			const float *x = a->x + (h * C + c) * W * 16;
			vec scale = BC(a->scale[c]), shift = BC(a->shift[c]), one = BC(1.0f);
			for (long k = c * 16; k < c * 16 + 16; k += VW, x += VW) {
				vec r = (vec){0}, n = (vec){0}, q = (vec){0};
				if (a->linear) {
					for (long w = 0; w < W; w++) {
						vec v = LOAD(x + w * 16);
						r += scale * v + shift;
						q += v;
					}
					n = BC((float)W);
				} else if (!a->open) {
					for (long w = 0; w < W; w++) r += relu(scale * LOAD(x + w * 16) + shift);
				} else {
					for (long w = 0; w < W; w++) {
						vec v = LOAD(x + w * 16), b = scale * v + shift;
						r += relu(b);
						n += where(b, one);
						q += where(b, v);
					}
				}
				if (a->open) {
					STORE(a->open + k, LOAD(a->open + k) + n);
					STORE(a->openx + k, LOAD(a->openx + k) + q);
				}
				STORE(a->pool + k, LOAD(a->pool + k) + r);
			}
		}
	for (long k = 0; k < C * 16; k += VW) STORE(a->pool + k, LOAD(a->pool + k) * BC(inv));
}

// The gradient is the same at all positions of a picture where the ReLU is
// open; the sums over them need only what forward counted.
void ISA(igc_pool_backward)(const igc_head *a) {
	const float inv = 1.0f / (a->H * a->W);
	for (long c = 0; c < a->C; c++) {
		vec s = (vec){0}, q = (vec){0};
		for (long k = c * 16; k < c * 16 + 16; k += VW) {
			vec g = LOAD(a->dpool + k) * BC(inv);
			STORE(a->gx + k, g);
			s += g * LOAD(a->open + k);
			q += g * LOAD(a->openx + k);
		}
		a->gsum[c] = hsum(s);
		a->gxsum[c] = hsum(q);
	}
}

void ISA(igc_linear_forward)(const igc_head *a) {
	for (long k = 0; k < a->K; k++)
		for (int s = 0; s < 16; s += VW) {
			vec t = BC(a->bias[k]);
			for (long c = 0; c < a->C; c++) t += BC(a->w[k * a->C + c]) * LOAD(a->pool + c * 16 + s);
			STORE(a->logits + k * 16 + s, t);
		}
}

// Padding lanes of dlogits are zero, so they add nothing here.
void ISA(igc_linear_backward)(const igc_head *a) {
	for (long k = 0; k < a->K; k++) {
		vec b = (vec){0};
		for (int s = 0; s < 16; s += VW) b += LOAD(a->dlogits + k * 16 + s);
		a->db[k] = hsum(b);
		for (long c = 0; c < a->C; c++) {
			vec t = (vec){0};
			for (int s = 0; s < 16; s += VW) t += LOAD(a->dlogits + k * 16 + s) * LOAD(a->pool + c * 16 + s);
			a->dw[k * a->C + c] = hsum(t);
		}
	}
	for (long c = 0; c < a->C; c++)
		for (int s = 0; s < 16; s += VW) {
			vec t = (vec){0};
			for (long k = 0; k < a->K; k++) t += BC(a->w[k * a->C + c]) * LOAD(a->dlogits + k * 16 + s);
			STORE(a->dpool + c * 16 + s, t);
		}
}

void ISA(igc_row)(const igc_conv *a, int micro, long n) {
	const long H = a->KH, KH = a->KH, KW = a->KW, W = a->W, L = a->L, Cx = L * a->Ci, Cz = L * a->Co;
	const long OW = (W + a->stride - 1) / a->stride, PW = W + KW - 1, PO = OW + KW - 1, apart = APART;
	float *ring = a->scratch, *dy = ring + RING(a) * Cx * PW * 16, *dz = dy + Cz * PO * 16, *y = dz + Cz * apart;
	float *accp = y + Cz * apart, *accs = accp + Cz * a->Ci * KH * KW * VW; // and the weights, which are fewer
	const float *rows[MAX_K];
	for (long k = 0; k < KH; k++) rows[k] = XROW(k);
	stream none = {{0}};
	for (long i = 0; i < n; i++) {
		switch (micro) {
		case IGC_PRIMARY: conv_row(a, y, apart, rows, accp, &none); break;
		case IGC_SECONDARY:
			for (long m = 0; m < a->mixes; m++) mix_row(dz, apart, 0, y, apart, OW, accs, a->mix[m], Cz, &none);
			break;
		case IGC_PRIMARY_GRAD: convgrad_row(a, accp, dy + KW / 2 * 16, rows, &none); break;
		case IGC_SECONDARY_GRAD:
			for (long m = 0; m < a->mixes; m++) mixgrad_row(accs, dz, apart, y, apart, OW, a->mix[m], Cz, &none);
			break;
		}
	}
}

// igc_probe: rounds times FMA_CHAINS independent multiply-adds of a vector,
// the peak; or a copy, the memory's bandwidth.
void ISA(igc_probe)(igc_probe *p) {
	if (p->src) {
		copy_row(p->dst, p->src, p->n);
		STREAM_END;
		return;
	}
	vec a[FMA_CHAINS], b = BC(1.0f + 1e-7f), c = BC(1e-9f);
	UNROLL for (int k = 0; k < FMA_CHAINS; k++) a[k] = BC((float)k);
	for (long i = 0; i < p->rounds; i++) {
		UNROLL for (int k = 0; k < FMA_CHAINS; k++) a[k] = a[k] * b + c;
		__asm__ volatile("" : "+m"(i));
	}
	UNROLL for (int k = 0; k < FMA_CHAINS; k++) p->result += hsum(a[k]);
}
