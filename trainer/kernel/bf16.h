// The kernels of bfloat16. A file for each instruction set includes this one and
// defines BF16(name), the names' ending; put_past and PAST_END, stores past the caches;
// and what its processors do better than plain C: DOT, FMA or HALF_FMA, PACK, RELU,
// OPEN, LARGE_TILES, and HARDWARE with the instructions of AMX. Vectors have 16 lanes of
// float32 whatever the processor, no sum depends on the register blocks, and every fused
// multiply-add is written as one: all instruction sets give the same bits.
//
// The structure is that of body.h. What differs is how numbers are multiplied: DOT
// adds two products to each lane. A product over channels takes them from pairs of
// channels of one picture, which is a paired row (bf16_plan.h) and a pair of weights. A
// weight's gradient is a sum over pictures and columns, so it takes plain rows as they
// lie in memory. Micro-kernels read paired or plain rows and write plain ones;
// pair_row makes one from the other. With IGC_AMX, products are added in another order, by
// the kernels of bf16_amx.h.

#include <string.h>
#include "bf16_plan.h"

// Register blocks. Without the registers of AVX-512 the smallest are used: larger ones
// would take minutes to compile.
#ifdef LARGE_TILES
#define TILE 6
#define MIX_PT 4
#define GRAD_AT 4
#else
#define TILE 1
#define MIX_PT 2
#define GRAD_AT 1
#endif

typedef unsigned short bf16;
typedef float vec __attribute__((vector_size(64)));          // 16 float32
typedef int ivec __attribute__((vector_size(64)));           // 16 pairs of bfloat16
typedef unsigned uvec __attribute__((vector_size(64)));
typedef short hvec __attribute__((vector_size(64)));         // 32 bfloat16
typedef float fmem __attribute__((vector_size(64), aligned(4), may_alias));
typedef int imem __attribute__((vector_size(64), aligned(2), may_alias));
typedef int halfvec __attribute__((vector_size(32)));
typedef int halfmem __attribute__((vector_size(32), aligned(2), may_alias));

#define LOAD(p) ((vec) * (const fmem *)(p))
#define STORE(p, v) (*(fmem *)(p) = (v))
#define ILOAD(p) ((ivec) * (const imem *)(p))
#define ISTORE(p, v) (*(imem *)(p) = (v))
#define ALL(x) {(x), (x), (x), (x), (x), (x), (x), (x), (x), (x), (x), (x), (x), (x), (x), (x)}
#define BC(f) ((vec)ALL(f))
#define IBC(i) ((ivec)ALL(i))
#define ONES IBC(0x3f803f80) // 1 and 1

#ifndef FMA
// FMA is a*b + c, rounded once.
#ifdef HALF_FMA
INLINE vec plain_fma(vec a, vec b, vec c) {
	union { vec all; vec8 half[2]; } x = {a}, y = {b}, z = {c};
	HALF_FMA(z.half, x.half[0], y.half[0]);
	HALF_FMA(z.half + 1, x.half[1], y.half[1]);
	return z.all;
}
#else
static __attribute__((noinline)) vec plain_fma(vec a, vec b, vec c) {
	float x[16], y[16], z[16];
	STORE(x, a), STORE(y, b), STORE(z, c);
	for (int k = 0; k < 16; k++) z[k] = __builtin_fmaf(x[k], y[k], z[k]);
	return LOAD(z);
}
#endif
#define FMA plain_fma
#endif

#ifndef RELU
// RELU keeps NaN, so that a training that diverged shows it in its loss.
#define RELU(v) ((vec)((ivec)(v) & ~((v) < 0)))
#endif

#ifndef DOT
// rounded: each lane to the nearest bfloat16, of two the even one, as vcvtneps2bf16
// does: denormal numbers to zero, NaN to a quiet NaN. The lower half of a lane is 0.
INLINE ivec rounded(vec v) {
	const ivec b = (ivec)v, sign = b & (int)0x80000000;
	const ivec size = b & 0x7fffffff;
	const ivec even = (b + 0x7fff + ((b >> 16) & 1)) & (int)0xffff0000;
	const ivec nan = (b & (int)0xffff0000) | 0x00400000;
	const ivec isnan = size > 0x7f800000, tiny = size < 0x00800000;
	return (isnan & nan) | (tiny & sign) | (~isnan & ~tiny & even);
}

// DOT is acc + a*b for both halves of each lane, the upper first, as vdpbf16ps does.
INLINE vec DOT(vec acc, ivec a, ivec b) {
	acc = FMA((vec)(a & (int)0xffff0000), (vec)(b & (int)0xffff0000), acc);
	return FMA((vec)(a << 16), (vec)(b << 16), acc);
}

// PACK rounds 32 lanes to bfloat16: those of lo, then those of hi.
INLINE ivec PACK(vec lo, vec hi) {
	const hvec l = (hvec)rounded(lo), h = (hvec)rounded(hi);
	return (ivec)__builtin_shuffle(l, h, (hvec){1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23, 25, 27, 29, 31,
		33, 35, 37, 39, 41, 43, 45, 47, 49, 51, 53, 55, 57, 59, 61, 63});
}
#endif

#ifndef OPEN
// OPEN is v where a > 0, 0 elsewhere, of 32 bfloat16. NaN counts by its sign, which differs
// between processors: only after a training has diverged.
#define OPEN(a, v) ((ivec)((hvec)(v) & ((hvec)(a) > 0)))
#endif

// A plain vector splits into its even and its odd elements, as float32.
INLINE vec even(ivec v) { return (vec)(v << 16); }
INLINE vec odd(ivec v) { return (vec)(v & (int)0xffff0000); }

// join rounds even and odd elements to a plain vector.
INLINE ivec join(vec e, vec o) {
	return (ivec)__builtin_shuffle((hvec)PACK(e, o), (hvec){0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23,
		8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31});
}

// pair_low and pair_high make the first and the second column of a paired row from two
// columns of two channels.
INLINE ivec pair_low(ivec a, ivec b) {
	return (ivec)__builtin_shuffle((hvec)a, (hvec)b, (hvec){0, 32, 1, 33, 2, 34, 3, 35, 4, 36, 5, 37, 6, 38, 7, 39,
		8, 40, 9, 41, 10, 42, 11, 43, 12, 44, 13, 45, 14, 46, 15, 47});
}
INLINE ivec pair_high(ivec a, ivec b) {
	return (ivec)__builtin_shuffle((hvec)a, (hvec)b, (hvec){16, 48, 17, 49, 18, 50, 19, 51, 20, 52, 21, 53, 22, 54, 23, 55,
		24, 56, 25, 57, 26, 58, 27, 59, 28, 60, 29, 61, 30, 62, 31, 63});
}

// split is a plain vector as float32: its even and its odd elements.
typedef struct { vec e, o; } split;

// pair_split_low and pair_split_high are pair_low and pair_high of what is not rounded yet.
INLINE ivec pair_split_low(split a, split b) {
	return (ivec)__builtin_shuffle((hvec)PACK(a.e, b.e), (hvec)PACK(a.o, b.o),
		(hvec){0, 16, 32, 48, 1, 17, 33, 49, 2, 18, 34, 50, 3, 19, 35, 51, 4, 20, 36, 52, 5, 21, 37, 53, 6, 22, 38, 54,
			7, 23, 39, 55});
}
INLINE ivec pair_split_high(split a, split b) {
	return (ivec)__builtin_shuffle((hvec)PACK(a.e, b.e), (hvec)PACK(a.o, b.o),
		(hvec){8, 24, 40, 56, 9, 25, 41, 57, 10, 26, 42, 58, 11, 27, 43, 59, 12, 28, 44, 60, 13, 29, 45, 61, 14, 30, 46, 62,
			15, 31, 47, 63});
}

// hsum adds the lanes: the upper half to the lower, and so on.
INLINE float hsum(vec v) {
	v += __builtin_shuffle(v, (ivec){8, 9, 10, 11, 12, 13, 14, 15, 0, 1, 2, 3, 4, 5, 6, 7});
	v += __builtin_shuffle(v, (ivec){4, 5, 6, 7, 0, 1, 2, 3, 12, 13, 14, 15, 8, 9, 10, 11});
	v += __builtin_shuffle(v, (ivec){2, 3, 0, 1, 6, 7, 4, 5, 10, 11, 8, 9, 14, 15, 12, 13});
	v += __builtin_shuffle(v, (ivec){1, 0, 3, 2, 5, 4, 7, 6, 9, 8, 11, 10, 13, 12, 15, 14});
	return v[0];
}

// The last column of an odd number is half a vector. get fills the rest with zeros, put
// leaves it as it is.
INLINE ivec get(const void *p, const int half) {
	if (!half) return ILOAD(p);
	const halfvec h = *(const halfmem *)p;
	return (ivec){h[0], h[1], h[2], h[3], h[4], h[5], h[6], h[7]};
}
INLINE void put(void *p, ivec v, const int half) {
	if (!half) ISTORE(p, v);
	else *(halfmem *)p = (halfvec){v[0], v[1], v[2], v[3], v[4], v[5], v[6], v[7]};
}
INLINE ivec lower(ivec v) { return v & (ivec){-1, -1, -1, -1, -1, -1, -1, -1}; }

// EACH runs f(p, half) on the two columns from p on, for all columns.
#define EACH(columns, f)                                  \
	do {                                              \
		long p_ = 0;                              \
		for (; p_ + 2 <= (columns); p_ += 2) { f(p_, 0); } \
		if (p_ < (columns)) { f(p_, 1); }         \
	} while (0)

// Denormal numbers are zero in these kernels, as in vdpbf16ps. flush switches the
// processor to that, and restore back.
#if defined(__x86_64__)
INLINE unsigned long flush(void) {
	const unsigned old = __builtin_ia32_stmxcsr();
	__builtin_ia32_ldmxcsr(old | 0x8040);
	return old;
}
INLINE void restore(unsigned long old) { __builtin_ia32_ldmxcsr(old); }
#elif defined(__aarch64__)
INLINE unsigned long flush(void) {
	unsigned long old;
	__asm__ volatile("mrs %0, fpcr" : "=r"(old));
	__asm__ volatile("msr fpcr, %0" : : "r"(old | 1ul << 24) : "memory");
	return old;
}
INLINE void restore(unsigned long old) { __asm__ volatile("msr fpcr, %0" : : "r"(old) : "memory"); }
#else
#error bfloat16 needs a way to flush denormal numbers on this processor
#endif

// KERNEL defines igc_bf16_op, which runs op with denormal numbers flushed.
#define KERNEL(op, type)                                         \
	static __attribute__((noinline)) void op(type *);        \
	void BF16(igc_bf16_##op)(type *a) {                      \
		const unsigned long old = flush();               \
		op(a);                                           \
		restore(old);                                    \
	}                                                        \
	static void op(type *a)

// ---- weights ----

INLINE unsigned bits(float f) {
	unsigned b;
	memcpy(&b, &f, 4);
	return b;
}

// round1 rounds one number as PACK does. It has no branch, so that loops of it become
// vectors.
INLINE unsigned round1(float f) {
	const unsigned b = bits(f), size = b & 0x7fffffff;
	const unsigned near = (b + 0x7fff + (b >> 16 & 1)) >> 16;
	const unsigned r = size < 0x00800000 ? b >> 31 << 15 : near;
	return size > 0x7f800000 ? b >> 16 | 0x40 : r;
}

// pair_weights: out (n, pairs of I, KH, KW) from w (n, I, KH, KW). If rows is set, the
// last of an odd number of channels has pairs of kernel rows: of the first two, and of
// nothing and the third; they lie where the second and the third row have their place.
static void pair_weights(unsigned *out, const float *w, long n, long I, long KH, long KW, int rows) {
	const long KK = KH * KW;
	if (KK == 1 && I % 2 == 0) { // the pairs of all rows are one sequence
		for (long k = 0; k < n * I / 2; k++) out[k] = round1(w[2 * k]) | round1(w[2 * k + 1]) << 16;
		return;
	}
	for (; n > 0; n--) {
		long i = 0;
		for (; i + 1 < I; i += 2, w += 2 * KK, out += KK)
			for (long k = 0; k < KK; k++) out[k] = round1(w[k]) | round1(w[KK + k]) << 16;
		if (i == I) continue;
		for (long k = 0; k < KK; k++) out[k] = rows ? round1(w[k]) << 16 : round1(w[k]);
		for (long k = 0; k < KW && rows; k++) out[KW + k] |= round1(w[k]);
		w += KK, out += KK;
	}
}

// pair_mixes: the weights of all mixes.
static void pair_mixes(unsigned *out, const float *w, const igc_conv *a, long Cz) {
	for (long n = 0; n < a->mixes; n++) {
		const long K = a->mix[n].K;
		pair_weights(out, w, Cz, K, 1, 1, 0);
		out += Cz * PAIRS(K), w += Cz * K;
	}
}

// ---- products over channels ----

// COL is where vector p of a paired row lies if the columns in use are step apart.
#define COL(p, step) ((p) * (step) * 16)

// taps are those of body.h.
typedef struct {
	long KH, KW;
	long in, out, phase;
} taps;

// put_columns writes two columns, out columns apart.
INLINE void put_columns(bf16 *to, ivec v, const long out) {
	if (out == 1) {
		ISTORE(to, v);
	} else {
		put(to, v, 1);
		*(halfmem *)(to + 32) = (halfvec){v[8], v[9], v[10], v[11], v[12], v[13], v[14], v[15]};
	}
}

// put_tile writes OT channels of PT columns to a plain row, from its column p0 on, out
// columns apart.
INLINE void put_tile(const int OT, const int PT, bf16 *y, long ycs, const vec acc[6][8], const long out) {
	UNROLL for (int o = 0; o < OT; o++)
		UNROLL for (int p = 0; p < PT; p += 2)
			put_columns(y + o * ycs + p * out * 16, PACK(acc[o][p], acc[o][p + 1]), out);
}

// conv_tile: OT output channels by PT columns of one partition, from column p0 on.
// y (OT, columns, 16) plain, row[k] (pairs, columns, 16) paired and padded or NULL,
// w (OT, pairs, KH, KW). If in_rows is set, the last pair is one channel in pairs of rows.
INLINE void conv_tile(const int OT, const int PT, const taps t, bf16 *y, long ycs, const int *const *row, long xcs,
		const unsigned *w, long pairs, int in_rows, long p0) {
	const long KK = t.KH * t.KW, P = t.KW / 2;
	vec acc[6][8];
	UNROLL for (int o = 0; o < OT; o++)
		UNROLL for (int p = 0; p < PT; p++) acc[o][p] = (vec){0};
	for (long i = 0; i < pairs; i++) {
		for (int kh = in_rows && i + 1 == pairs; kh < t.KH; kh++) {
			if (!row[kh]) continue;
			const int *x = row[kh] + i * xcs + COL(p0, t.in);
			const unsigned *wk = w + i * KK + kh * t.KW;
			UNROLL for (int kw = 0; kw < t.KW; kw++) {
				if ((t.phase + kw - P) % t.out) continue;
				const long at = (P + (t.phase + kw - P) / t.out) * 16;
				ivec b[6];
				UNROLL for (int o = 0; o < OT; o++) b[o] = IBC((int)wk[o * pairs * KK + kw]);
				UNROLL for (int p = 0; p < PT; p++) {
					const ivec v = ILOAD(x + COL(p, t.in) + at);
					UNROLL for (int o = 0; o < OT; o++) acc[o][p] = DOT(acc[o][p], v, b[o]);
				}
			}
		}
	}
	put_tile(OT, PT, y + COL(p0, t.out) + t.phase * 16, ycs, acc, t.out);
}

#define CONV(ot, pt) \
	for (; p + pt <= n; p += pt) conv_tile(ot, pt, t, yo, ycs, row, xcs, wo, pairs, in_rows, p);

// conv_taps: y (L*Co, columns, 16) plain with channel stride ycs = the primary
// convolution of padded rows (L*pairs, …) with stride xcs. It computes one column
// more if their number is odd.
INLINE void conv_taps(const taps t, bf16 *y, long ycs, const int *const *rows, long xcs, long columns,
		const unsigned *w, long L, long pairs, int in_rows, long Co, stream *next) {
	const long n = EVEN(columns);
	for (long l = 0; l < L; l++) {
		const int *row[MAX_K];
		for (int k = 0; k < t.KH; k++) row[k] = rows[k] ? rows[k] + l * pairs * xcs : 0;
		for (long o = 0; o < Co;) {
			// Tiles of nearly equal height: 7 = 4 + 3, not 6 + 1.
			long left = Co - o, tiles = (left + TILE - 1) / TILE, ot = (left + tiles - 1) / tiles, p = 0;
			bf16 *yo = y + (l * Co + o) * ycs;
			const unsigned *wo = w + (l * Co + o) * pairs * t.KH * t.KW;
			switch (ot) {
#if TILE == 1
			case 1: CONV(1, 2) break;
#else
			case 1: CONV(1, 8) CONV(1, 2) break;
			case 2: CONV(2, 8) CONV(2, 2) break;
			case 3: CONV(3, 8) CONV(3, 2) break;
			case 4: CONV(4, 4) CONV(4, 2) break;
			case 5: CONV(5, 4) CONV(5, 2) break;
			case 6: CONV(6, 4) CONV(6, 2) break;
#endif
			}
			ahead(next, ot * columns * pairs * 2 * t.KH * t.KW);
			o += ot;
		}
	}
}

// 3x3 kernels are compiled on their own, all others in one.
#define CONV_TAPS(name, kh, kw, in, out, phase) \
	static __attribute__((noinline)) void name(const taps *t, bf16 *y, long ycs, const int *const *rows, \
			long xcs, long columns, const unsigned *w, long L, long pairs, int in_rows, long Co, stream *next) { \
		conv_taps((taps){kh, kw, in, out, phase}, y, ycs, rows, xcs, columns, w, L, pairs, in_rows, Co, next); \
	}
CONV_TAPS(conv_3x3, 3, 3, 1, 1, 0)
CONV_TAPS(conv_3x3_stride, 3, 3, 2, 1, 0)
CONV_TAPS(conv_3x3_even, 3, 3, 1, 2, 0)
CONV_TAPS(conv_3x3_odd, 3, 3, 1, 2, 1)
CONV_TAPS(conv_any, t->KH, t->KW, t->in, t->out, t->phase)

// conv_row: a row of y (L*Co, OW, 16) = the primary convolution of KH padded rows.
static void conv_row(const igc_conv *a, const bf16_plan *p, bf16 *y, const int *const *rows, const unsigned *w,
		stream *next) {
	const taps t = {a->KH, a->KW, a->stride, 1, 0};
	(a->KH != 3 || a->KW != 3 ? conv_any : t.in == 2 ? conv_3x3_stride : conv_3x3)
		(&t, y, p->zs, rows, p->ap, p->OW, w, a->L, p->in.pairs, p->xrows, a->Co, next);
}

// convt_row: a row of dx (L*Ci, W, 16), the gradient by the input, from padded
// rows of dy; w has in and out exchanged, its kernels turned by 180 degrees.
static void convt_row(const igc_conv *a, const bf16_plan *p, bf16 *dx, const int *const *rows, const unsigned *w,
		stream *next) {
	for (long phase = 0; phase < a->stride; phase++) {
		const taps t = {a->KH, a->KW, 1, a->stride, phase};
		(a->KH != 3 || a->KW != 3 ? conv_any : t.out == 1 ? conv_3x3 : phase ? conv_3x3_odd : conv_3x3_even)(
			&t, dx, p->dxs, rows, p->dp, (a->W - phase + a->stride - 1) / a->stride, w, a->L, p->back.pairs, p->zrows, a->Ci, next);
	}
}

// mix_tile: OT outputs by PT columns of one matrix over pairs of channels.
INLINE void mix_tile(const int OT, const int PT, bf16 *z, long zcs, const int *y, long ycs, const unsigned *w,
		long pairs) {
	vec acc[6][8];
	UNROLL for (int o = 0; o < OT; o++)
		UNROLL for (int p = 0; p < PT; p++) acc[o][p] = (vec){0};
	for (long i = 0; i < pairs; i++) {
		ivec v[8];
		UNROLL for (int p = 0; p < PT; p++) v[p] = ILOAD(y + i * ycs + p * 16);
		UNROLL for (int o = 0; o < OT; o++) {
			const ivec b = IBC((int)w[o * pairs + i]);
			UNROLL for (int p = 0; p < PT; p++) acc[o][p] = DOT(acc[o][p], v[p], b);
		}
	}
	put_tile(OT, PT, z, zcs, acc, 1);
}

#define MIX(ot, pt) case ot: mix_tile(ot, pt, zo, M * zcs, yo, ycs, wo, pairs); break;
#if TILE > 1
#define MIXES(pt) switch (ot) { MIX(1, pt) MIX(2, pt) MIX(3, pt) MIX(4, pt) MIX(5, pt) MIX(6, pt) }
#else
#define MIXES(pt) switch (ot) { MIX(1, pt) }
#endif

// mix_row: a 1x1 factor with partitions of K channels that lie M apart, on one row of C
// channels: z plain, y paired in the order of the partitions. It takes a few columns
// of a partition at a time, which stay in the L1 cache for all outputs.
static __attribute__((noinline)) void mix_row(bf16 *z, long zcs, const int *y, long ycs, long W, const unsigned *w,
		igc_mix f, long C, stream *next) {
	const long n = EVEN(W), K = f.K, M = f.step, pairs = PAIRS(K);
	for (long m = 0; m < C / K; m++) {
		const long first = channel(K, M, m * K);
		for (long p = 0; p < n;) {
			const long pt = n - p >= MIX_PT ? MIX_PT : 2;
			const int *yo = y + m * pairs * ycs + p * 16;
			for (long o = 0; o < K;) {
				long left = K - o, tiles = (left + TILE - 1) / TILE, ot = (left + tiles - 1) / tiles;
				bf16 *zo = z + (o * M + first) * zcs + p * 16;
				const unsigned *wo = w + (m * K + o) * pairs;
				if (pt == MIX_PT) MIXES(MIX_PT)
				else MIXES(2)
				ahead(next, pt * ot * K);
				o += ot;
			}
			p += pt;
		}
	}
}

// ---- weights' gradients ----
//
// They add to accumulators of 16 lanes for each weight; reduce() sums the lanes once
// for each picture block. A lane has two pictures of every second column.

// grad_rows are rows of which the gradient of a mix's weights is computed in one go: of
// the gradient of its output, and of its input. There are n, at most GRAD_ROWS. With
// several, accumulators are read and written less often: there are more of them than
// the L1 cache holds. AMX, which has fewer, takes one row.
typedef struct {
	const bf16 *dz[GRAD_ROWS], *y[GRAD_ROWS];
	int n;
} grad_rows;

// mixgrad_tile: acc (AT, K, 16) += sum over columns of dz (AT channels) times y (BT
// channels), which begin d and e elements after the rows do.
INLINE void mixgrad_tile(const int AT, const int BT, float *acc, long K, const grad_rows *rows, long d, long dzs,
		long e, long ys, long n) {
	vec a[4][5];
	UNROLL for (int i = 0; i < AT; i++)
		UNROLL for (int j = 0; j < BT; j++) a[i][j] = LOAD(acc + (i * K + j) * 16);
	for (int r = 0; r < rows->n; r++) {
		const bf16 *dz = rows->dz[r] + d, *y = rows->y[r] + e;
		for (long k = 0; k < n; k += 32) {
			ivec v[5];
			UNROLL for (int j = 0; j < BT; j++) v[j] = ILOAD(y + j * ys + k);
			UNROLL for (int i = 0; i < AT; i++) {
				const ivec u = ILOAD(dz + i * dzs + k);
				UNROLL for (int j = 0; j < BT; j++) a[i][j] = DOT(a[i][j], u, v[j]);
			}
		}
	}
	UNROLL for (int i = 0; i < AT; i++)
		UNROLL for (int j = 0; j < BT; j++) STORE(acc + (i * K + j) * 16, a[i][j]);
}

#define MIXGRAD_TILES(at, bt) \
	for (; j + bt <= K; j += bt) { \
		mixgrad_tile(at, bt, ai + j * 16, K, rows, d, M * dzs, (first + j * M) * ys, M * ys, n); \
		ahead(next, (at) * (bt) * W * rows->n); \
	}
#if TILE == 1
#define MIXGRAD(at) case at: MIXGRAD_TILES(at, 1) break;
#else
#define MIXGRAD(at) case at: MIXGRAD_TILES(at, 5) MIXGRAD_TILES(at, 2) MIXGRAD_TILES(at, 1) break;
#endif

// mixgrad_row: acc (C, K, 16) += the rows' share of the gradient of a mix's weights; dz
// and y are plain rows (C, W, 16) with channel strides dzs and ys, zero in the column
// after an odd last one.
static __attribute__((noinline)) void mixgrad_row(float *acc, const grad_rows *rows, long dzs, long ys, long W,
		igc_mix f, long C, stream *next) {
	const long K = f.K, M = f.step, n = EVEN(W) * 16;
	for (long m = 0; m < C / K; m++) {
		const long first = channel(K, M, m * K);
		for (long i = 0; i < K;) {
			long left = K - i, tiles = (left + GRAD_AT - 1) / GRAD_AT, at = (left + tiles - 1) / tiles, j = 0;
			float *ai = acc + (m * K + i) * K * 16;
			const long d = (i * M + first) * dzs;
			switch (at) {
			MIXGRAD(1)
#if TILE > 1
			MIXGRAD(2) MIXGRAD(3) MIXGRAD(4)
#endif
			}
			i += at;
		}
	}
}

// shifted loads the two columns of a padded row that meet two neighbouring columns of
// the output with stride S.
INLINE ivec shifted(const bf16 *x, const int S) {
	if (S == 1) return ILOAD(x);
	const halfvec l = *(const halfmem *)x, h = *(const halfmem *)(x + S * 16);
	return (ivec){l[0], l[1], l[2], l[3], l[4], l[5], l[6], l[7], h[0], h[1], h[2], h[3], h[4], h[5], h[6], h[7]};
}

// conv_rows are rows of which the gradient of the primary weights is computed in one go:
// plain rows of dy, and for each the padded plain rows of a that it meets. Of a
// single row those outside the picture are NULL.
typedef struct {
	const bf16 *dy[GRAD_ROWS], *x[GRAD_ROWS][MAX_K];
	int n;
} conv_rows;

enum { CHUNK = 64 };

// tap_rows are rows of one partition, and the taps of (Ci, KH*KW) that their first column meets.
typedef struct {
	const bf16 *row[GRAD_ROWS][CHUNK];
	long tap[CHUNK], n;
} tap_rows;

// convgrad_tile: acc (OT, Ci, KH*KW, 16) += sum over columns of dy (OT channels, which
// begin d elements after the rows do) times K shifts of RT padded rows of x from the q-th on,
// the columns S apart.
INLINE void convgrad_tile(const int OT, const int RT, const int K, const int S, float *acc, long taps,
		const conv_rows *rows, long d, long dys, const tap_rows *x, long q, long W) {
	vec a[4][3][3];
	UNROLL for (int o = 0; o < OT; o++)
		UNROLL for (int r = 0; r < RT; r++)
			UNROLL for (int k = 0; k < K; k++) a[o][r][k] = LOAD(acc + (o * taps + x->tap[q + r] + k) * 16);
	for (int i = 0; i < rows->n; i++) {
		const bf16 *dy = rows->dy[i] + d, *row[3];
		UNROLL for (int r = 0; r < RT; r++) row[r] = x->row[i][q + r];
		for (long p = 0; p < W; p += 2) {
			ivec u[4];
			UNROLL for (int o = 0; o < OT; o++) u[o] = ILOAD(dy + o * dys + p * 16);
			UNROLL for (int r = 0; r < RT; r++)
				UNROLL for (int k = 0; k < K; k++) {
					const ivec v = shifted(row[r] + (p * S + k) * 16, S);
					UNROLL for (int o = 0; o < OT; o++) a[o][r][k] = DOT(a[o][r][k], u[o], v);
				}
		}
	}
	UNROLL for (int o = 0; o < OT; o++)
		UNROLL for (int r = 0; r < RT; r++)
			UNROLL for (int k = 0; k < K; k++) STORE(acc + (o * taps + x->tap[q + r] + k) * 16, a[o][r][k]);
}

#define CONVGRAD(ot, rt) \
	for (; q + rt <= x.n; q += rt) convgrad_tile(ot, rt, K, S, ao, taps, rows, d, p->zs, &x, q, p->OW);

INLINE void convgrad_taps(const int K, const int S, const igc_conv *a, const bf16_plan *p, float *acc,
		const conv_rows *rows, stream *next) {
	const long Ci = a->Ci, Co = a->Co, KH = a->KH, KW = a->KW, taps = Ci * KH * KW;
	const long most = MAX(CHUNK / (KH * (KW / K)), 1); // channels at a time
	for (long l = 0; l < a->L; l++)
		for (long first = 0; first < Ci; first += most) {
			tap_rows x;
			x.n = 0;
			for (long i = first; i < MIN(first + most, Ci); i++)
				for (long kh = 0; kh < KH; kh++)
					for (long kw = 0; kw < KW && rows->x[0][kh]; kw += K) {
						for (int r = 0; r < rows->n; r++)
							x.row[r][x.n] = rows->x[r][kh] + (l * Ci + i) * p->as + kw * 16;
						x.tap[x.n++] = (i * KH + kh) * KW + kw;
					}
			for (long o = 0; o < Co;) {
				long left = Co - o, tiles = (left + GRAD_AT - 1) / GRAD_AT, ot = (left + tiles - 1) / tiles, q = 0;
				float *ao = acc + (l * Co + o) * taps * 16;
				const long d = (l * Co + o) * p->zs;
				switch (ot) {
#if TILE == 1
				case 1: CONVGRAD(1, 1) break;
#else
				case 1: CONVGRAD(1, 3) CONVGRAD(1, 1) break;
				case 2: CONVGRAD(2, 3) CONVGRAD(2, 1) break;
				case 3: CONVGRAD(3, 2) CONVGRAD(3, 1) break;
				case 4: CONVGRAD(4, 2) CONVGRAD(4, 1) break;
#endif
				}
				ahead(next, ot * x.n * K * p->OW * rows->n);
				o += ot;
			}
		}
}

// convgrad_row: acc (L*Co, Ci, KH, KW, 16) += the rows' share of the gradient of wp.
static __attribute__((noinline)) void convgrad_row(const igc_conv *a, const bf16_plan *p, float *acc,
		const conv_rows *rows, stream *next) {
	switch (a->KW == 3 ? a->stride : 2 + a->stride) {
	case 1: convgrad_taps(3, 1, a, p, acc, rows, next); break;
	case 2: convgrad_taps(3, 2, a, p, acc, rows, next); break;
	case 3: convgrad_taps(1, 1, a, p, acc, rows, next); break;
	case 4: convgrad_taps(1, 2, a, p, acc, rows, next); break;
	}
}

// reduce: dw[k] = the sum of the lanes of acc[k].
static void reduce(float *dw, const float *acc, long n) {
	for (long k = 0; k < n; k++) dw[k] = hsum(LOAD(acc + k * 16));
}

// ---- passes over one row ----

// lane_mask: all bits of the valid lanes of two columns, none of padding.
INLINE ivec lane_mask(long valid) {
	bf16 m[32];
	for (int n = 0; n < 32; n++) m[n] = n % 16 < valid ? 0xffff : 0;
	return ILOAD(m);
}

// activated is a of two columns of channel c: x normalised, with its ReLU.
INLINE split activated(const igc_conv *a, const bf16 *x, long c, const int half) {
	const ivec v = get(x, half);
	const vec scale = BC(a->scale[c]), shift = BC(a->shift[c]);
	split r = {FMA(scale, even(v), shift), FMA(scale, odd(v), shift)};
	if (!a->linear) r.e = RELU(r.e), r.o = RELU(r.o);
	if (half) r.e = (vec)lower((ivec)r.e), r.o = (vec)lower((ivec)r.o);
	return r;
}

// as_it_is is x of two columns where there is no normalisation.
INLINE ivec as_it_is(const igc_conv *a, long at, const int half) {
	if (!a->pictures) return get((const bf16 *)a->x + at, half);
	return PACK(LOAD(a->x + at), half ? (vec){0} : LOAD(a->x + at + 16));
}

// below makes of a paired vector, whose first channel is that of a row and whose second
// is 0, pairs of rows: of the row above, which above has in its pairs, and of this one.
INLINE ivec below(ivec v, const int *above) {
	return v << 16 | (above ? (ivec)((uvec)ILOAD(above) >> 16) : (ivec){0});
}

// fill: padded rows of a of row h, in the order of the primary partitions: plain
// (Cx, …) and paired, of which the constants say which are wanted. above is
// the paired row above, or NULL; twice is where the paired row's second slot is from
// its first, or 0. The columns of padding are zero and stay so.
INLINE void fill(const int plains, const int pairs, bf16 *plain, int *paired, const int *above, long twice,
		const igc_conv *a, const bf16_plan *p, long h) {
	const long pad = a->KW / 2 * 16, W = a->W;
	for (long g = 0; g < p->in.groups; g++)
		for (long i = 0; i < MIN(p->in.in, p->Cx - g * p->in.in); i += 2) {
			const long q = g * p->in.in + i, two = i + 1 < p->in.in && q + 1 < p->Cx;
			const long c = channel(a->Ci, a->step_in, q), d = two ? channel(a->Ci, a->step_in, q + 1) : c;
			const long atc = (h * p->Cx + c) * W * 16, atd = (h * p->Cx + d) * W * 16;
			bf16 *u = plains ? plain + q * p->as + pad : 0, *v = plains ? u + p->as : 0;
			const long place = g * p->in.group + pair_place(&p->in, i / 2) + pad;
			int *w = pairs ? paired + place : 0;
			const int *up = above ? above + place : 0, rows = !two && p->xrows;
#define FILL(k, half)                                                                                  \
	ivec s, t = (ivec){0}, first, second;                                                          \
	if (a->scale) {                                                                                \
		const split b = activated(a, (const bf16 *)a->x + atc + (k) * 16, c, half);            \
		split e = {{0}};                                                                       \
		if (two) e = activated(a, (const bf16 *)a->x + atd + (k) * 16, d, half);               \
		if (plains) s = join(b.e, b.o), t = join(e.e, e.o);                                    \
		if (pairs) first = pair_split_low(b, e), second = pair_split_high(b, e);               \
	} else {                                                                                       \
		s = as_it_is(a, atc + (k) * 16, half);                                                 \
		if (two) t = as_it_is(a, atd + (k) * 16, half);                                        \
		first = pair_low(s, t), second = pair_high(s, t);                                      \
	}                                                                                              \
	if (plains) put(u + (k) * 16, s, half);                                                        \
	if (plains && two) put(v + (k) * 16, t, half);                                                 \
	if (pairs && rows) {                                                                           \
		first = below(first, up ? up + (k) * 16 : 0);                                          \
		second = below(second, up ? up + ((k) + 1) * 16 : 0);                                  \
	}                                                                                              \
	if (pairs) ISTORE(w + (k) * 16, first);                                                        \
	if (pairs && !half) ISTORE(w + ((k) + 1) * 16, second);                                        \
	if (pairs && twice) ISTORE(w + twice + (k) * 16, first);                                       \
	if (pairs && twice && !half) ISTORE(w + twice + ((k) + 1) * 16, second);
			EACH(W, FILL);
#undef FILL
		}
}

static __attribute__((noinline)) void fill_row(bf16 *plain, int *paired, const int *above, long twice, const igc_conv *a,
		const bf16_plan *p, long h) {
	if (!paired) fill(1, 0, plain, 0, 0, 0, a, p, h);
	else if (!plain) fill(0, 1, 0, paired, above, twice, a, p, h);
	else fill(1, 1, plain, paired, above, twice, a, p, h);
}

// pair_row: out, paired, from a plain row of C channels in partitions of f. Columns after an
// odd last one are written as they are. If rows is set, the last of an odd number of
// channels gets pairs of rows; above is the row above, or NULL; twice as in fill. Pairs without
// channels are zero.
static __attribute__((noinline)) void pair_row(int *out, const pairing *t, const bf16 *in, long is, long columns, igc_mix f,
		long C, int rows, const int *above, long twice) {
	for (long g = 0; g < t->groups; g++)
		for (long k = 0; k < 2 * t->blocks * t->pairs; k += 2) {
			const long place = g * t->group + pair_place(t, k / 2), q = g * t->in + k;
			int *to = out + place;
			if (k >= t->in || q >= C) {
				memset(to, 0, EVEN(columns) * 64);
				continue;
			}
			const int *up = above ? above + place : 0, last = rows && k + 1 == t->in;
			const bf16 *u = in + channel(f.K, f.step, q) * is;
			const bf16 *v = k + 1 < t->in && q + 1 < C ? in + channel(f.K, f.step, q + 1) * is : 0;
			for (long p = 0; p < columns; p += 2) {
				const ivec s = ILOAD(u + p * 16), t = v ? ILOAD(v + p * 16) : (ivec){0};
				ivec first = pair_low(s, t), second = pair_high(s, t);
				if (last) {
					first = below(first, up ? up + p * 16 : 0);
					second = below(second, up ? up + p * 16 + 16 : 0);
				}
				ISTORE(to + p * 16, first);
				ISTORE(to + p * 16 + 16, second);
				if (twice) ISTORE(to + twice + p * 16, first);
				if (twice) ISTORE(to + twice + p * 16 + 16, second);
			}
		}
}

// pad zeroes what lies before and behind the columns of n channels of padded rows, all
// in bytes: a channel has room for so many, and `used` behind the first `before`.
static void pad(char *row, long n, long room, long before, long used) {
	for (; n > 0; n--, row += room) {
		memset(row, 0, before);
		memset(row + before + used, 0, room - before - used);
	}
}

// blank zeroes the column after an odd last one.
static void blank(bf16 *row, long s, long C, long W) {
	if (W % 2)
		for (long c = 0; c < C; c++) memset(row + c * s + W * 16, 0, 32);
}

// copy_row: out (C, W, 16) = row, with channel stride s, past the caches.
static void copy_row(bf16 *out, const bf16 *row, long s, long C, long W) {
	for (long c = 0; c < C; c++, out += W * 16, row += s) {
#define COPY(p, half) put_past(out + (p) * 16, ILOAD(row + (p) * 16), half, W)
		EACH(W, COPY);
#undef COPY
	}
}

// finish_row: z of row h = row (C, W, 16), past the caches: it is read again when the
// whole batch is done. Adds its sums of z and z*z, valid lanes only.
static __attribute__((noinline)) void finish_row(const igc_conv *a, const bf16 *row, long s, ivec mask, long C, long W,
		long h) {
	for (long k = 0; k < C; k++, row += s) {
		const long c = channel(a->Co, a->step_out, k);
		bf16 *z = (bf16 *)a->z + (h * C + c) * W * 16;
		vec t = (vec){0}, q = (vec){0};
#define FINISH(p, half)                                  \
	ivec v = get(row + (p) * 16, half);              \
	put_past(z + (p) * 16, v, half, W);              \
	v &= mask;                                       \
	t = DOT(t, v, ONES);                             \
	q = DOT(q, v, v);
		EACH(W, FINISH);
#undef FINISH
		if (!a->sum) continue;
		a->sum[c] += hsum(t);
		a->sumsq[c] += hsum(q);
	}
}

// dz_row: out (C, W, 16), channel stride s, = the gradient of z in row h, zero
// in padding lanes and in the column after an odd last one.
static __attribute__((noinline)) void dz_row(bf16 *out, long s, const igc_conv *a, ivec mask, long C, long W, long h) {
	for (long k = 0; k < C; k++, out += s) {
		const long c = channel(a->Co, a->step_out, k);
		const bf16 *z = (const bf16 *)a->z + (h * C + c) * W * 16, *g = (const bf16 *)a->g + (h * C + c) * W * 16;
		const vec ca = BC(a->ca[c]), cb = BC(a->cb[c]), cc = BC(a->cc[c]);
		if (a->gscale) {
			const vec scale = BC(a->gscale[c]), shift = BC(a->gshift[c]);
			float e[16], o[16]; // even and odd pictures, of two columns
			for (int n = 0; n < 16; n++) e[n] = a->g[c * 16 + n % 8 * 2], o[n] = a->g[c * 16 + n % 8 * 2 + 1];
			const vec ge = ca * LOAD(e), go = ca * LOAD(o);
#define POOLED(p, half)                                                                                 \
	const ivec v = get(z + (p) * 16, half);                                                         \
	const vec ve = even(v), vo = odd(v);                                                            \
	const vec te = (vec)((ivec)ge & (FMA(scale, ve, shift) > 0)), to = (vec)((ivec)go & (FMA(scale, vo, shift) > 0)); \
	const ivec d = mask & join(FMA(cb, ve, cc) + te, FMA(cb, vo, cc) + to);                         \
	ISTORE(out + (p) * 16, half ? lower(d) : d);
			EACH(W, POOLED);
#undef POOLED
			continue;
		}
#define DZ(p, half)                                                                                     \
	const ivec v = get(z + (p) * 16, half), u = get(g + (p) * 16, half);                            \
	const ivec d = mask & join(FMA(ca, even(u), FMA(cb, even(v), cc)), FMA(ca, odd(u), FMA(cb, odd(v), cc))); \
	ISTORE(out + (p) * 16, half ? lower(d) : d);
		EACH(W, DZ);
#undef DZ
	}
}

// gx_row: gx of row h = dx (C, W, 16) where the ReLU let a pass, and its sums;
// without normalisation all of dx. act is the padded row of a at its first real column.
static __attribute__((noinline)) void gx_row(const igc_conv *a, const bf16_plan *p, const bf16 *dx, const bf16 *act,
		long h) {
	const long W = a->W;
	for (long k = 0; k < p->Cx; k++, dx += p->dxs, act += p->as) {
		const long c = channel(a->Ci, a->step_in, k), at = (h * p->Cx + c) * W * 16;
		const bf16 *x = (const bf16 *)a->x + at;
		bf16 *gx = (bf16 *)a->gx + at;
		if (!a->scale) {
			memcpy(gx, dx, W * 32);
			continue;
		}
		vec s = (vec){0}, q = (vec){0};
#define GX(k, half)                                                              \
	ivec v = get(dx + (k) * 16, half);                                       \
	if (!a->linear) v = OPEN(ILOAD(act + (k) * 16), v);                      \
	put(gx + (k) * 16, v, half);                                             \
	s = DOT(s, v, ONES);                                                     \
	q = DOT(q, v, get(x + (k) * 16, half));
		EACH(W, GX);
#undef GX
		a->gsum[c] += hsum(s);
		a->gxsum[c] += hsum(q);
	}
}

// relu_row: row (C, W, 16), channel stride s, = relu(row).
static void relu_row(bf16 *row, long s, long C, long W) {
	for (long c = 0; c < C; c++, row += s)
		for (long p = 0; p < W; p += 2) {
			const ivec v = ILOAD(row + p * 16);
			ISTORE(row + p * 16, join(RELU(even(v)), RELU(odd(v))));
		}
}

// mask_row: d (C, W, 16) = d where y > 0, 0 elsewhere.
static void mask_row(bf16 *d, long ds, const bf16 *y, long ys, long C, long W) {
	for (long c = 0; c < C; c++, d += ds, y += ys) {
#define MASK(p, half) put(d + (p) * 16, OPEN(get(y + (p) * 16, half), get(d + (p) * 16, half)), half)
		EACH(W, MASK);
#undef MASK
	}
}

#include "bf16_amx.h"

// ---- the block ----

#define AT(type, offset) ((type *)(a->scratch + (offset)))
#define AROW(h) ((h) >= 0 && (h) < H ? AT(bf16, p.a) + (h) % p.ring * p.Cx * p.as : 0)
#define SLOT(base, t, h) (AT(int, base) + ((h) + (t).ring) % (t).ring * (t).slot)
#define PAROW(h) ((h) >= 0 && (h) < H ? SLOT(p.pa, p.in, h) : 0)
#define PDYROW(h) ((h) >= 0 && (h) < p.OH ? SLOT(p.pdy, p.back, h) : 0)

// lines of 64 bytes that n columns of 16 bfloat16 take.
#define LINES(n) (((n) + 1) / 2)

// fill_rows fills the padded rows of a of row h: the plain one, where it is wanted, and the
// paired one. AMX reads rows outside of the picture too, which are zero.
static void fill_rows(const igc_conv *a, const bf16_plan *plan, bf16 *plain, int pairs, long h) {
	const bf16_plan p = *plan;
	const long H = a->H, inside = h >= 0 && h < H;
	if (inside) fill_row(plain, pairs ? PAROW(h) : 0, PAROW(h - 1), second_slot(&p.in, h), a, &p, h);
	else if (pairs) clear_slots(AT(int, p.pa), &p.in, h);
}

// primary_row: row h of y (L*Co, OW, 16) = the primary convolution.
static void primary_row(const igc_conv *a, const bf16_plan *plan, bf16 *y, long h, stream *next) {
	const bf16_plan p = *plan;
	const long H = a->H, top = a->stride * h - a->KH / 2;
	if (a->bf16 == IGC_AMX) {
		amx_row(a, &p, y, SLOT(p.pa, p.in, top), AT(unsigned, p.wp), next);
		return;
	}
	const int *rows[MAX_K];
	for (long k = 0; k < a->KH; k++) rows[k] = PAROW(top + k);
	conv_row(a, &p, y, rows, AT(unsigned, p.wp), next);
}

// product_of_pairs: a row of z (Cz, OW, 16) = the mix f of the row of pairs.
static void product_of_pairs(const igc_conv *a, const bf16_plan *p, bf16 *z, const unsigned *w, igc_mix f, stream *next) {
	const int *paired = AT(int, p->pair);
	if (a->bf16 == IGC_AMX) amx_mix(a, p, z, paired, w, f, next);
	else mix_row(z, p->zs, paired, p->zp, p->OW, w, f, p->Cz, next);
}

// mixed_row: a row of z (Cz, OW, 16) = the mix f of a plain row.
static void mixed_row(const igc_conv *a, const bf16_plan *p, bf16 *z, const bf16 *in, long is, const unsigned *w, igc_mix f,
		stream *next) {
	const pairing t = mix_pairing(a, f, p->zp);
	pair_row(AT(int, p->pair), &t, in, is, p->OW, f, p->Cz, 0, 0, 0);
	product_of_pairs(a, p, z, w, f, next);
}

// primary_grad and mix_grad add the rows' share of the weights' gradients.
static void primary_grad(const igc_conv *a, const bf16_plan *p, const conv_rows *rows, stream *next) {
	(a->bf16 == IGC_AMX ? amx_convgrad : convgrad_row)(a, p, AT(float, p->accp), rows, next);
}
static void mix_grad(const igc_conv *a, const bf16_plan *p, float *acc, const grad_rows *rows, long ys, igc_mix f,
		stream *next) {
	if (a->bf16 == IGC_AMX) amx_mixgrad(a, p, acc, rows, ys, f, next);
	else mixgrad_row(acc, rows, p->zs, ys, p->OW, f, p->Cz, next);
}

KERNEL(conv_forward, const igc_conv) {
	const bf16_plan p = bf16_planned(a);
	const long H = a->H, W = a->W, KH = a->KH, KK = KH * a->KW, S = a->stride, P = KH / 2, Cx = p.Cx, Cz = p.Cz, OW = p.OW;
	const ivec mask = lane_mask(a->valid);
	const int amx = a->bf16 == IGC_AMX;
	if (amx) {
		amx_weights(AT(unsigned, p.wp), a->wp, &p.in, a->L, a->Ci, a->Co, KH, a->KW, 1);
		amx_mixes(AT(unsigned, p.ws), a->ws, a, Cz);
	} else {
		pair_weights(AT(unsigned, p.wp), a->wp, Cz, a->Ci, KH, a->KW, p.xrows);
		pair_mixes(AT(unsigned, p.ws), a->ws, a, Cz);
	}
	clear_pairs(AT(int, p.pa), &p.in, Cx, a->KW / 2, W);
	if (a->sum) {
		memset(a->sum, 0, Cz * sizeof(double));
		memset(a->sumsq, 0, Cz * sizeof(double));
	}
	for (long h = 0, filled = amx ? -P : 0; h < p.OH; h++) {
		for (; filled < (amx ? H + P : H) && filled <= S * h + P; filled++) fill_rows(a, &p, 0, 1, filled);
		stream next = {{0}};
		if (filled < H && !a->pictures)
			stream_add(&next, (const bf16 *)a->x + filled * Cx * W * 16, LINES(MIN(S, H - filled) * Cx * W));
		stream_start(&next, OW * Cz * (EVEN(a->Ci) * KK + mix_depth(a)));
		bf16 *from = AT(bf16, p.y), *to = AT(bf16, p.dz); // they take turns
		primary_row(a, &p, from, h, &next);
		if (a->between) relu_row(from, p.zs, Cz, OW);
		if (a->mixes && a->y) copy_row((bf16 *)a->y + h * Cz * OW * 16, from, p.zs, Cz, OW);
		const unsigned *w = AT(unsigned, p.ws);
		for (long n = 0; n < a->mixes; n++) {
			const igc_mix f = a->mix[n];
			mixed_row(a, &p, to, from, p.zs, w, f, &next);
			w += mix_weights_floats(a, f);
			bf16 *last = from;
			from = to, to = last;
		}
		finish_row(a, from, p.zs, mask, Cz, OW, h);
	}
	if (HARDWARE(a)) TILE_RELEASE;
	PAST_END;
}

KERNEL(conv_backward, const igc_conv) {
	const bf16_plan p = bf16_planned(a);
	const long H = a->H, W = a->W, KH = a->KH, KW = a->KW, KK = KH * KW, S = a->stride, P = KH / 2;
	const long L = a->L, Ci = a->Ci, Co = a->Co, Cx = p.Cx, Cz = p.Cz, OH = p.OH, OW = p.OW, depth = mix_depth(a);
	const ivec mask = lane_mask(a->valid);
	const int amx = a->bf16 == IGC_AMX, again = a->mixes && !a->y; // y is computed again
	// Rows of a single mix are kept for mixgrad_row, one behind the other; of several mixes,
	// each gradient takes the place of what the next would need.
	const int most = a->mixes == 1 ? p.grad_rows : 1;
	grad_rows kept = {{0}};
	conv_rows met = {{0}};
	bf16 *dx = AT(bf16, p.dx), *rest = AT(bf16, p.rest);
	// The accumulators are neighbours.
	memset(AT(float, p.accp), 0, (p.transposed - p.accp) * 4);
	pad(AT(char, p.a), p.ring * Cx, p.as * 2, KW / 2 * 32, W * 32);
	clear_pairs(AT(int, p.pdy), &p.back, Cz, KW / 2, EVEN(OW));
	if (again) clear_pairs(AT(int, p.pa), &p.in, Cx, KW / 2, W);
	if (amx) {
		if (again) amx_weights(AT(unsigned, p.wp), a->wp, &p.in, L, Ci, Co, KH, KW, 1);
		if (a->mixes > 1) amx_mixes(AT(unsigned, p.ws), a->ws, a, Cz);
		amx_mixes(AT(unsigned, p.wst), a->wst, a, Cz);
		if (a->gx) amx_weights(AT(unsigned, p.wpt), a->wpt, &p.back, L, Co, Ci, KH, KW, S);
		for (long h = -P; h < 0; h++) clear_slots(AT(int, p.pdy), &p.back, h);
	} else {
		if (again) pair_weights(AT(unsigned, p.wp), a->wp, Cz, Ci, KH, KW, p.xrows);
		if (a->mixes > 1) pair_mixes(AT(unsigned, p.ws), a->ws, a, Cz);
		pair_mixes(AT(unsigned, p.wst), a->wst, a, Cz);
		if (a->gx) pair_weights(AT(unsigned, p.wpt), a->wpt, Cx, Co, KH, KW, p.zrows);
	}
	if (a->gx && a->scale) {
		memset(a->gsum, 0, Cx * sizeof(double));
		memset(a->gxsum, 0, Cx * sizeof(double));
	}
	const long primary = OW * Cz * Ci * KK, mixes = OW * Cz * depth;
	const long repeated = (again ? primary : 0) + (a->mixes > 1 ? mixes - OW * Cz * a->mix[a->mixes - 1].K : 0);
	// Row h of dy completes the rows of dx up to S*h + S-1 - P.
	for (long h = 0, filled = amx ? -P : 0, done = 0; h < OH || (a->gx && done < H); h++) {
		for (; filled < (amx ? H + P : H) && filled <= S * h + MAX(P, S - 1 - P); filled++)
			fill_rows(a, &p, AROW(filled), again, filled);
		stream next = {{0}};
		if (filled < H && !a->pictures)
			stream_add(&next, (const bf16 *)a->x + filled * Cx * W * 16, LINES(MIN(S, H - filled) * Cx * W));
		if (h + 1 < OH) {
			const long at = (h + 1) * Cz * OW * 16;
			stream_add(&next, (const bf16 *)a->z + at, LINES(Cz * OW));
			if (!a->gscale) stream_add(&next, (const bf16 *)a->g + at, LINES(Cz * OW));
			if (a->y) stream_add(&next, (const bf16 *)a->y + at, LINES(Cz * OW));
		}
		stream_start(&next, primary + 2 * mixes + repeated + (a->gx ? primary : 0));
		if (h < OH) {
			bf16 *dy = AT(bf16, p.dy) + met.n * Cz * p.zs;
			if (a->mixes) {
				bf16 *dz = AT(bf16, p.dz) + kept.n * Cz * p.zs, *yrow = AT(bf16, p.y) + kept.n * Cz * p.zs;
				dz_row(dz, p.zs, a, mask, Cz, OW, h);
				const bf16 *y = yrow;
				long ys = p.zs;
				if (again) {
					primary_row(a, &p, yrow, h, &next);
					if (a->between) relu_row(yrow, p.zs, Cz, OW);
					blank(yrow, p.zs, Cz, OW);
				} else if (OW % 2) {
					for (long c = 0; c < Cz; c++)
						memcpy(yrow + c * p.zs, (const bf16 *)a->y + (h * Cz + c) * OW * 16, OW * 32);
					blank(yrow, p.zs, Cz, OW);
				} else {
					y = (const bf16 *)a->y + h * Cz * OW * 16, ys = OW * 16;
				}
				const unsigned *w = AT(unsigned, p.ws);
				for (long n = 1; n < a->mixes; n++) {
					const igc_mix f = a->mix[n - 1];
					bf16 *to = rest + (n - 1) * Cz * p.zs;
					mixed_row(a, &p, to, n > 1 ? to - Cz * p.zs : y, n > 1 ? p.zs : ys, w, f, &next);
					w += mix_weights_floats(a, f);
				}
				// From the last mix to the first: the gradient of its weights, then that of its input, which takes
				// the place of the input.
				bf16 *d = dz;
				float *acc = AT(float, p.accs);
				const unsigned *wt = AT(unsigned, p.wst);
				for (long n = 0; n < a->mixes; n++) acc += mixgrad_floats(a, a->mix[n]), wt += mix_weights_floats(a, a->mix[n]);
				for (long n = a->mixes - 1; n >= 0; n--) {
					const igc_mix f = a->mix[n];
					acc -= mixgrad_floats(a, f), wt -= mix_weights_floats(a, f);
					bf16 *in = rest + (n - 1) * Cz * p.zs;
					kept.dz[kept.n] = d, kept.y[kept.n++] = n ? in : y;
					if (kept.n == most || h + 1 == OH) {
						mix_grad(a, &p, acc, &kept, n ? p.zs : ys, f, &next);
						kept.n = 0;
					}
					mixed_row(a, &p, n ? in : dy, d, p.zs, wt, f, &next);
					d = in;
				}
				if (a->between) mask_row(dy, p.zs, y, ys, Cz, OW);
			} else {
				dz_row(dy, p.zs, a, mask, Cz, OW, h);
			}
			// Rows at the borders of the picture, which meet fewer rows of a, go alone.
			const int inside = S * h - P >= 0 && S * h - P + KH <= H;
			if (met.n && !inside) primary_grad(a, &p, &met, &next), met.n = 0;
			for (long k = 0; k < KH; k++) met.x[met.n][k] = AROW(S * h - P + k);
			met.dy[met.n++] = dy;
			if (met.n == p.grad_rows || !inside || h + 1 == OH) primary_grad(a, &p, &met, &next), met.n = 0;
			if (a->gx)
				pair_row(PDYROW(h) + KW / 2 * 16, &p.back, dy, p.zs, OW, (igc_mix){Co, 1}, Cz, p.zrows,
					h ? PDYROW(h - 1) + KW / 2 * 16 : 0, second_slot(&p.back, h));
		} else if (amx) {
			clear_slots(AT(int, p.pdy), &p.back, h);
		}
		for (; a->gx && done < H && done <= S * h + S - 1 - P; done++) {
			if (amx) {
				amx_back_row(a, &p, dx, done, AT(int, p.pdy), AT(unsigned, p.wpt), &next);
			} else {
				const int *rows[MAX_K];
				for (long k = 0; k < KH; k++) {
					const long at = done - P + k;
					rows[k] = at >= 0 && at % S == 0 ? PDYROW(at / S) : 0;
				}
				convt_row(a, &p, dx, rows, AT(unsigned, p.wpt), &next);
			}
			gx_row(a, &p, dx, AROW(done) + KW / 2 * 16, done);
		}
	}
	const float *accp = AT(float, p.accp), *accs = AT(float, p.accs);
	if (!amx) {
		reduce(a->dwp, accp, Cz * Ci * KK);
		reduce(a->dws, accs, Cz * depth);
		return;
	}
	if (HARDWARE(a)) TILE_RELEASE;
	const cut c = grad_cut(L, Ci, Co);
	untile(a->dwp, accp, &c, L, Ci, Co, KK);
	float *dws = a->dws;
	for (long n = 0; n < a->mixes; n++) {
		const long K = a->mix[n].K;
		const cut d = grad_cut(Cz / K, K, K);
		untile(dws, accs, &d, Cz / K, K, K, 1);
		accs += mixgrad_floats(a, a->mix[n]), dws += Cz * K;
	}
}

// ---- residual units and max pool ----

KERNEL(add_forward, const igc_add) {
	const long n = a->W * 16;
	for (long k = 0; k < a->H * a->C; k++) {
		const long c = k % a->C;
		const bf16 *z = (const bf16 *)a->z + k * n, *x = (const bf16 *)a->x + (a->x ? k * n : 0);
		bf16 *out = (bf16 *)a->out + k * n;
		const vec scale = BC(a->scale[c]), bscale = BC(a->bscale ? a->bscale[c] : 1.0f);
		vec shift = BC(a->shift[c]);
		if (a->bscale) shift += BC(a->bshift[c]);
#define SUM(part, zs, xs) \
	vec part = FMA(scale, zs, a->x ? FMA(bscale, xs, shift) : shift); \
	if (!a->linear) part = RELU(part)
#define ADD(p, half)                                                             \
	const ivec v = get(z + (p) * 16, half);                                  \
	const ivec b = a->x ? get(x + (p) * 16, half) : (ivec){0};               \
	SUM(e, even(v), even(b));                                                \
	SUM(o, odd(v), odd(b));                                                  \
	put(out + (p) * 16, join(e, o), half)
		EACH(a->W, ADD);
#undef ADD
#undef SUM
	}
}

KERNEL(add_backward, const igc_add) {
	const long n = a->W * 16;
	memset(a->gsum, 0, a->C * sizeof(double));
	memset(a->gzsum, 0, a->C * sizeof(double));
	if (a->bscale) memset(a->gxsum, 0, a->C * sizeof(double));
	for (long k = 0; k < a->H * a->C; k++) {
		const long c = k % a->C;
		const bf16 *z = (const bf16 *)a->z + k * n, *out = (const bf16 *)a->out + k * n;
		const bf16 *x = a->bscale ? (const bf16 *)a->x + k * n : z, *g = (const bf16 *)a->g + (a->pooled ? 0 : k * n);
		bf16 *gx = (bf16 *)a->gx + k * n;
		ivec pooled = (ivec){0};
		if (a->pooled) pooled = PACK(LOAD(a->g + c * 16), LOAD(a->g + c * 16));
		vec s = (vec){0}, q = (vec){0}, r = (vec){0};
#define ADD(p, half)                                                             \
	ivec v = a->pooled ? pooled : get(g + (p) * 16, half);                   \
	if (!a->linear) v = OPEN(get(out + (p) * 16, half), v);                  \
	if (half) v = lower(v);                                                  \
	put(gx + (p) * 16, v, half);                                             \
	s = DOT(s, v, ONES);                                                     \
	q = DOT(q, v, get(z + (p) * 16, half));                                  \
	if (a->bscale) r = DOT(r, v, get(x + (p) * 16, half))
		EACH(a->W, ADD);
#undef ADD
		a->gsum[c] += hsum(s);
		a->gzsum[c] += hsum(q);
		if (a->bscale) a->gxsum[c] += hsum(r);
	}
}

// column is one column of 16 bfloat16 as float32.
INLINE vec column(const bf16 *p) {
	float v[16];
	for (int n = 0; n < 16; n++) {
		const unsigned b = (unsigned)p[n] << 16;
		memcpy(v + n, &b, 4);
	}
	return LOAD(v);
}

// activation is relu(scale*x + shift), rounded, of a column.
INLINE vec activation(const bf16 *x, vec scale, vec shift) {
	bf16 r[16];
	const vec v = RELU(FMA(scale, column(x), shift));
	put(r, PACK(v, v), 1);
	return column(r);
}

// The padding is zero, which is never larger than the output of a ReLU.
KERNEL(max_forward, const igc_max) {
	const long H = a->H, W = a->W, OH = (H + 1) / 2, OW = (W + 1) / 2;
	for (long h = 0; h < OH; h++)
		for (long c = 0; c < a->C; c++) {
			const vec scale = BC(a->scale[c]), shift = BC(a->shift[c]);
			for (long w = 0; w < OW; w++) {
				vec top = (vec){0};
				for (long i = MAX(2 * h - 1, 0); i < MIN(2 * h + 2, H); i++)
					for (long j = MAX(2 * w - 1, 0); j < MIN(2 * w + 2, W); j++) {
						const vec v = activation((const bf16 *)a->x + ((i * a->C + c) * W + j) * 16, scale, shift);
						const ivec larger = (v > top) | (v != v); // NaN wins, and stays
						top = (vec)(((ivec)v & larger) | ((ivec)top & ~larger));
					}
				put((bf16 *)a->out + ((h * a->C + c) * OW + w) * 16, PACK(top, top), 1);
			}
		}
}

// The gradient goes to the first position, row by row, that has the largest
// value: PyTorch's rule. Where that value is 0, the ReLU stops it.
KERNEL(max_backward, const igc_max) {
	const long H = a->H, W = a->W, OH = (H + 1) / 2, OW = (W + 1) / 2;
	const bf16 *x = (const bf16 *)a->x;
	bf16 *gx = (bf16 *)a->gx;
	memset(gx, 0, H * a->C * W * 32);
	for (long h = 0; h < OH; h++)
		for (long c = 0; c < a->C; c++) {
			const vec scale = BC(a->scale[c]), shift = BC(a->shift[c]);
			for (long w = 0; w < OW; w++) {
				const long at = ((h * a->C + c) * OW + w) * 16;
				const vec top = column((const bf16 *)a->out + at);
				ivec g = (ivec)column((const bf16 *)a->g + at) & (top > 0);
				for (long i = MAX(2 * h - 1, 0); i < MIN(2 * h + 2, H); i++)
					for (long j = MAX(2 * w - 1, 0); j < MIN(2 * w + 2, W); j++) {
						const long k = ((i * a->C + c) * W + j) * 16;
						const ivec here = activation(x + k, scale, shift) == top;
						const vec sum = column(gx + k) + (vec)(g & here);
						put(gx + k, PACK(sum, sum), 1);
						g &= ~here;
					}
			}
		}
	memset(a->gsum, 0, a->C * sizeof(double));
	memset(a->gxsum, 0, a->C * sizeof(double));
	for (long k = 0; k < H * a->C; k++) {
		vec s = (vec){0}, q = (vec){0};
#define SUMS(p, half)                                        \
	const ivec v = get(gx + (k * W + (p)) * 16, half);   \
	s = DOT(s, v, ONES);                                 \
	q = DOT(q, v, get(x + (k * W + (p)) * 16, half))
		EACH(W, SUMS);
#undef SUMS
		a->gsum[k % a->C] += hsum(s);
		a->gxsum[k % a->C] += hsum(q);
	}
}

static __attribute__((noinline)) void sum_all(bf16 *to, const bf16 *from, long columns) {
#define SUM(p, half)                                                              \
	const ivec v = get(to + (p) * 16, half), u = get(from + (p) * 16, half);  \
	put(to + (p) * 16, join(even(v) + even(u), odd(v) + odd(u)), half)
	EACH(columns, SUM);
#undef SUM
}

void BF16(igc_bf16_sum)(float *to, const float *from, long n) {
	const unsigned long old = flush();
	sum_all((bf16 *)to, (const bf16 *)from, n / 8);
	restore(old);
}

// ---- the head ----

// add_pictures adds the sums of even and odd pictures over pairs of columns to those of
// the 16 pictures.
INLINE void add_pictures(float *to, vec e, vec o) {
	float u[16], v[16];
	STORE(u, e), STORE(v, o);
	for (int n = 0; n < 8; n++) to[2 * n] += u[n] + u[n + 8], to[2 * n + 1] += v[n] + v[n + 8];
}

KERNEL(pool_forward, const igc_head) {
	const long W = a->W, C = a->C;
	memset(a->pool, 0, C * 64);
	if (a->open) memset(a->open, 0, C * 64);
	if (a->open) memset(a->openx, 0, C * 64);
	// A row at a time, so that a sum over 1,024 positions rounds little.
	for (long h = 0; h < a->H; h++)
		for (long c = 0; c < C; c++) {
			const bf16 *x = (const bf16 *)a->x + (h * C + c) * W * 16;
			const vec scale = BC(a->scale[c]), shift = BC(a->shift[c]), one = BC(1.0f);
			vec r[2] = {{0}}, n[2] = {{0}}, q[2] = {{0}}; // of even and odd pictures
#define POOL(p, half)                                                            \
	const ivec u = get(x + (p) * 16, half);                                  \
	const vec parts[2] = {even(u), odd(u)};                                  \
	UNROLL for (int k = 0; k < 2; k++) {                                     \
		const vec v = parts[k];                                          \
		vec b = FMA(scale, v, shift);                                    \
		if (half) b = (vec)lower((ivec)b);                               \
		if (a->linear) {                                                 \
			r[k] += b, q[k] += v;                                    \
			n[k] += half ? (vec)lower((ivec)one) : one;              \
		} else {                                                         \
			r[k] += RELU(b);                                         \
			n[k] += (vec)((ivec)one & (b > 0));                      \
			q[k] += (vec)((ivec)v & (b > 0));                        \
		}                                                                \
	}
			EACH(W, POOL);
#undef POOL
			add_pictures(a->pool + c * 16, r[0], r[1]);
			if (!a->open) continue;
			add_pictures(a->open + c * 16, n[0], n[1]);
			add_pictures(a->openx + c * 16, q[0], q[1]);
		}
	const vec inv = BC(1.0f / (a->H * W));
	for (long k = 0; k < C * 16; k += 16) STORE(a->pool + k, LOAD(a->pool + k) * inv);
}

// The gradient is the same at all positions of a picture where the ReLU is
// open; the sums over them need only what forward counted.
KERNEL(pool_backward, const igc_head) {
	const vec inv = BC(1.0f / (a->H * a->W));
	for (long c = 0; c < a->C; c++) {
		const vec g = LOAD(a->dpool + c * 16) * inv;
		STORE(a->gx + c * 16, g);
		a->gsum[c] = hsum(g * LOAD(a->open + c * 16));
		a->gxsum[c] = hsum(g * LOAD(a->openx + c * 16));
	}
}

KERNEL(linear_forward, const igc_head) {
	for (long k = 0; k < a->K; k++) {
		vec t = BC(a->bias[k]);
		for (long c = 0; c < a->C; c++) t = FMA(BC(a->w[k * a->C + c]), LOAD(a->pool + c * 16), t);
		STORE(a->logits + k * 16, t);
	}
}

// Padding lanes of dlogits are zero, so they add nothing here.
KERNEL(linear_backward, const igc_head) {
	for (long k = 0; k < a->K; k++) {
		const vec d = LOAD(a->dlogits + k * 16);
		a->db[k] = hsum(d);
		for (long c = 0; c < a->C; c++) a->dw[k * a->C + c] = hsum(d * LOAD(a->pool + c * 16));
	}
	for (long c = 0; c < a->C; c++) {
		vec t = (vec){0};
		for (long k = 0; k < a->K; k++) t = FMA(BC(a->w[k * a->C + c]), LOAD(a->dlogits + k * 16), t);
		STORE(a->dpool + c * 16, t);
	}
}

// ---- measurements ----

static void measured_row(const igc_conv *a, int micro, long n) {
	const bf16_plan p = bf16_planned(a);
	conv_rows met = {{AT(bf16, p.dy)}, .n = 1};
	const long H = a->KH;
	for (long k = 0; k < a->KH; k++) met.x[0][k] = AROW(k);
	const grad_rows kept = {{AT(bf16, p.dz)}, {AT(bf16, p.y)}, 1};
	stream none = {{0}};
	for (long i = 0; i < n; i++) {
		switch (micro) {
		case IGC_PRIMARY: primary_row(a, &p, AT(bf16, p.y), UP(a->KH / 2, a->stride), &none); break;
		case IGC_SECONDARY:
			for (long m = 0; m < a->mixes; m++)
				product_of_pairs(a, &p, AT(bf16, p.dz), AT(unsigned, p.ws), a->mix[m], &none);
			break;
		case IGC_PRIMARY_GRAD: primary_grad(a, &p, &met, &none); break;
		case IGC_SECONDARY_GRAD:
			for (long m = 0; m < a->mixes; m++)
				mix_grad(a, &p, AT(float, p.accs), &kept, p.zs, a->mix[m], &none);
			break;
		}
	}
}

void BF16(igc_bf16_row)(const igc_conv *a, int micro, long n) {
	const unsigned long old = flush();
	measured_row(a, micro, n);
	if (HARDWARE(a)) TILE_RELEASE;
	restore(old);
}

// igc_bf16_probe: rounds times BF16_CHAINS independent multiply-adds of a vector of
// pairs, the peak. The copy of memory is float32's.
KERNEL(probe, igc_probe) {
	if (a->bf16 == IGC_AMX) {
		TILED(a, amx_probe, a);
		return;
	}
	vec acc[BF16_CHAINS];
	ivec x = IBC(0x3f803f80), y = IBC(0x30003000);
	UNROLL for (int k = 0; k < BF16_CHAINS; k++) acc[k] = BC((float)k);
	for (long i = 0; i < a->rounds; i++) {
		UNROLL for (int k = 0; k < BF16_CHAINS; k++) acc[k] = DOT(acc[k], x, y);
		__asm__ volatile("" : "+m"(i));
	}
	UNROLL for (int k = 0; k < BF16_CHAINS; k++) a->result += hsum(acc[k]);
}
