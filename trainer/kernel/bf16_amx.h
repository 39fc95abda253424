// Products of convolutions in the order of AMX's matrix units. bf16.h includes this file.
//
// A tile has 16 rows of 64 bytes: of 16 float32, or of 16 pairs of bfloat16. A step adds
// to a tile of sums, 16 channels by 16 lanes, the product of a tile of weights, 16
// channels by pairs, and one of activations, pairs by 16 lanes. For each of the sums it adds
// the products of the first of all pairs and those of the second to two sums of their
// own, which begin at zero, and then both to the sum. A step takes 16 cycles,
// however little of the tiles is used: bf16_plan.h says how they are filled.
//
// Where HARDWARE is set, AMX does it; else a step is fused multiply-adds of float32.

#ifndef HARDWARE
#define HARDWARE(a) 0
#define TILE_ZERO(n)
#define TILE_LOAD(n, from, apart)
#define TILE_STORE(n, to, apart)
#define TILE_STEP(sums, weights, pairs)
#define TILE_CONFIGURE(shapes) (void)(shapes)
#define TILE_RELEASE
#endif

// tile_shapes is what AMX is told of its eight tiles.
typedef struct {
	unsigned char palette, start, unused[14];
	unsigned short bytes[16]; // of a row
	unsigned char rows[16];
} tile_shapes;

// configure makes the first tiles of AMX sums, the next weights, and the others activations,
// with so many pairs. A tile has one at least, even if a stride leaves nothing to multiply.
INLINE void configure(const int hardware, long sums, long weights, long pairs) {
	if (!hardware) return;
	tile_shapes s = {1};
	for (int n = 0; n < 8; n++) {
		s.rows[n] = n < sums + weights ? 16 : MAX(pairs, 1);
		s.bytes[n] = n >= sums && n < sums + weights ? 4 * MAX(pairs, 1) : 64;
	}
	TILE_CONFIGURE(s);
}

// A part is as many lanes as the processor's vectors have. The compiler would keep longer ones
// in memory.
#ifdef HALF_FMA
typedef vec8 part;
typedef int ipart __attribute__((vector_size(32)));
typedef int ipart_mem __attribute__((vector_size(32), aligned(2), may_alias));
typedef float part_mem __attribute__((vector_size(32), aligned(4), may_alias));
INLINE part part_fma(part a, part b, part c) {
	HALF_FMA(&c, a, b);
	return c;
}
#define PART_ALL(i) ((ipart){(i), (i), (i), (i), (i), (i), (i), (i)})
#else
typedef vec part;
typedef ivec ipart;
typedef imem ipart_mem;
typedef fmem part_mem;
#define part_fma FMA
#define PART_ALL(i) IBC(i)
#endif
enum { PART = sizeof(part) / 4 };

// step_rows is step of ROWS of the sums, and of one part of their lanes.
INLINE void step_rows(const int ROWS, float *sums, const char *weights, long apart, const char *lanes, long lanes_apart,
		long pairs) {
	part e[2], o[2];
	UNROLL for (int m = 0; m < ROWS; m++) e[m] = (part){0}, o[m] = (part){0};
	for (long k = 0; k < pairs; k++) {
		const ipart v = *(const ipart_mem *)(lanes + k * lanes_apart);
		const part ve = (part)(v << 16), vo = (part)(v & (int)0xffff0000);
		UNROLL for (int m = 0; m < ROWS; m++) {
			int w;
			memcpy(&w, weights + m * apart + 4 * k, 4);
			e[m] = part_fma((part)PART_ALL((int)((unsigned)w << 16)), ve, e[m]);
			o[m] = part_fma((part)PART_ALL(w & (int)0xffff0000), vo, o[m]);
		}
	}
	UNROLL for (int m = 0; m < ROWS; m++) {
		part_mem *to = (part_mem *)(sums + m * 16);
		*to += e[m] + o[m];
	}
}

// step is a step without AMX: sums (rows, 16) += weights (rows, pairs) times lanes
// (pairs, 16), of which rows and pairs are so many bytes apart.
INLINE void step(float *sums, const char *weights, long apart, const char *lanes, long lanes_apart, long pairs,
		long rows) {
	for (long m = 0; m < rows; m += 2)
		for (int n = 0; n < 16; n += PART) {
			if (m + 1 < rows) step_rows(2, sums + m * 16 + n, weights + m * apart, apart, lanes + 4 * n, lanes_apart, pairs);
			else step_rows(1, sums + m * 16 + n, weights + m * apart, apart, lanes + 4 * n, lanes_apart, pairs);
		}
}

// fetch loads lines that lie in L2 into the L1 cache. Loads of tiles would wait for them.
INLINE void fetch(const void *from, long apart, long lines) {
	for (long k = 0; k < lines; k++) __builtin_prefetch((const char *)from + k * apart, 0, 3);
}

// ---- products over channels ----

// amx_weights: tiles of the weights w (L*Co, Ci, KH, KW), for each kernel column: of 16
// outputs of a group by a block's pairs in all kernel rows. With a stride rows of the
// gradient meet every second kernel row; each phase, which is the first of them, has tiles
// of its own.
static void amx_weights(unsigned *out, const float *w, const pairing *t, long L, long Ci, long Co, long KH, long KW,
		long stride) {
	memset(out, 0, amx_weights_floats(t, KW, stride) * 4);
	unsigned short *halves = (unsigned short *)out;
	for (long phase = 0; phase < stride; phase++) {
		const long first = (stride - phase) % stride; // kernel row
		for (long c = 0; c < L * Co; c++) {
			const long l = c / Co, o = l % t->parts * Co + c % Co;
			for (long i = 0; i < Ci; i++) {
				const long in = l % t->parts * Ci + i, j = in / 2;
				const float *from = w + (c * Ci + i) * KH * KW;
				const long tile = ((phase * t->groups + l / t->parts) * t->tiles + o / 16) * t->blocks + j / t->pairs;
				for (long kh = first, row = 0; kh < KH; kh += stride, row++)
					for (long kw = 0; kw < KW; kw++)
						halves[2 * ((tile * KW + kw) * TILE_FLOATS + o % 16 * 16 + row * t->pairs + j % t->pairs) + in % 2] =
							round1(from[kh * KW + kw]);
			}
		}
	}
}

// amx_mixes: the weights of all mixes.
static void amx_mixes(unsigned *out, const float *w, const igc_conv *a, long Cz) {
	for (long n = 0; n < a->mixes; n++) {
		const igc_mix f = a->mix[n];
		const pairing t = mix_pairing(a, f, 0);
		amx_weights(out, w, &t, Cz / f.K, f.K, f.K, 1, 1, 1);
		out += mix_weights_floats(a, f), w += Cz * f.K;
	}
}

// met_taps are the taps that outputs meet, of a phase with a stride: n kernel columns, and
// where the input of each lies; how many kernel rows.
typedef struct {
	long n, column[MAX_K], at[MAX_K], rows;
} met_taps;

// amx_columns: sums (n, 16, 16) of 16 outputs in n columns, 2 or 4, whose inputs are `in`
// columns apart. Only the first outs of the outputs are there.
INLINE void amx_columns(const int hardware, const int n, float *sums, const unsigned *w, const pairing *t, const int *x,
		const met_taps *met, long KW, long in, long outs) {
	const long apart = 4 * t->row, pairs = met->rows * t->pairs;
	if (hardware) {
		TILE_ZERO(0);
		TILE_ZERO(1);
		if (n > 2) TILE_ZERO(2);
		if (n > 2) TILE_ZERO(3);
	} else {
		memset(sums, 0, n * TILE_FLOATS * 4);
	}
	for (long b = 0; b < t->blocks; b++)
		for (long k = 0; k < met->n; k++) {
			const unsigned *weights = w + (b * KW + met->column[k]) * TILE_FLOATS;
			const int *from = x + b * t->block + met->at[k];
			if (hardware) {
				TILE_LOAD(4, weights, 64);
				TILE_LOAD(5, from, apart);
				TILE_STEP(0, 4, 5);
				TILE_LOAD(6, from + in * 16, apart);
				TILE_STEP(1, 4, 6);
				if (n > 2) {
					TILE_LOAD(7, from + in * 32, apart);
					TILE_STEP(2, 4, 7);
					TILE_LOAD(5, from + in * 48, apart);
					TILE_STEP(3, 4, 5);
				}
			} else {
				for (int c = 0; c < n; c++)
					step(sums + c * TILE_FLOATS, (const char *)weights, 64, (const char *)(from + c * in * 16), apart, pairs, outs);
			}
		}
	if (hardware) {
		TILE_STORE(0, sums, 64);
		TILE_STORE(1, sums + TILE_FLOATS, 64);
		if (n > 2) TILE_STORE(2, sums + 2 * TILE_FLOATS, 64);
		if (n > 2) TILE_STORE(3, sums + 3 * TILE_FLOATS, 64);
	}
}

// pack_columns writes two columns of sums, of outs channels, which begin at to[…].
INLINE void pack_columns(bf16 *y, const long *to, const float *first, const float *second, long outs, long out) {
	for (long m = 0; m < outs; m++) put_columns(y + to[m], PACK(LOAD(first + m * 16), LOAD(second + m * 16)), out);
}

// amx_slide is amx_conv of 16 outputs of a group whose pairs are one block, with three
// columns of a kernel and no stride. Each tile of activations is loaded once, for the three
// columns of the output that it is part of. Their sums take turns in three tiles: one
// begins, the next has its second product, and the last is complete.
static __attribute__((noinline)) void amx_slide(bf16 *y, const long *to, long outs, const int *x, long apart,
		const unsigned *w, long pairs, long n) {
	float sums[4][TILE_FLOATS] __attribute__((aligned(64)));
	TILE_LOAD(3, w, 64);
	TILE_LOAD(4, w + TILE_FLOATS, 64);
	TILE_LOAD(5, w + 2 * TILE_FLOATS, 64);
#define SLIDE(c, begun, next, last, lanes)                                        \
	if ((c) >= n + 2) break;                                                  \
	fetch(x + ((c) + 4) * 16, apart, pairs);                                  \
	TILE_LOAD(lanes, x + (c) * 16, apart);                                    \
	TILE_ZERO(begun);                                                         \
	TILE_STEP(begun, 3, lanes);                                               \
	TILE_STEP(next, 4, lanes);                                                \
	TILE_STEP(last, 5, lanes);                                                \
	if ((c) >= 2) TILE_STORE(last, sums[((c) - 2) % 4], 64);                  \
	if ((c) >= 5 && (c) % 2) pack_columns(y + ((c) - 5) * 16, to, sums[((c) - 5) % 4], sums[((c) - 4) % 4], outs, 1);
	TILE_ZERO(1);
	TILE_ZERO(2);
	for (long c = 0;; c += 6) {
		SLIDE(c, 0, 2, 1, 6)
		SLIDE(c + 1, 1, 0, 2, 7)
		SLIDE(c + 2, 2, 1, 0, 6)
		SLIDE(c + 3, 0, 2, 1, 7)
		SLIDE(c + 4, 1, 0, 2, 6)
		SLIDE(c + 5, 2, 1, 0, 7)
	}
#undef SLIDE
	pack_columns(y + (n - 2) * 16, to, sums[(n - 2) % 4], sums[(n - 1) % 4], outs, 1);
}

// amx_conv: y, C channels of a plain row in partitions of f, channel stride ycs, = the
// products of paired rows from x on. Columns that are read are `in` apart, and those that
// are written `out`. It computes one column more if their number is odd.
INLINE void amx_conv(const int hardware, bf16 *y, long ycs, igc_mix f, long C, const int *x, const pairing *t,
		const unsigned *w, const met_taps *met, long KW, long in, long out, long columns, stream *next) {
	float sums[4 * TILE_FLOATS] __attribute__((aligned(64)));
	const long n = EVEN(columns), even_apart = t->parts == 1 || f.step == 1;
	const long pairs = met->rows * t->pairs, slides = hardware && t->blocks == 1 && met->n == 3 && in * out == 1;
	if (slides) configure(hardware, 3, 3, pairs);
	else configure(hardware, 4, 1, pairs);
	for (long g = 0; g < t->groups; g++) {
		const long first = channel(f.K, f.step, g * t->out);
		const long outs = MIN(t->out, C - g * t->out);
		long to[16];
		for (long m = 0; m < MIN(16, outs); m++)
			to[m] = (even_apart ? m * f.step : channel(f.K, f.step, g * t->out + m) - first) * ycs;
		for (long o = 0; o < outs && slides; o += 16) {
			const long made = MIN(16, outs - o);
			amx_slide(y + (first + o * f.step) * ycs, to, made, x + g * t->group, 4 * t->row,
				w + (g * t->tiles + o / 16) * 3 * TILE_FLOATS, pairs, n);
			ahead(next, columns * made * (t->in / t->parts) * met->rows * met->n);
		}
		for (long p = 0, some = 4; p < n && !slides; p += some) { // so many columns at a time
			if (n - p < 4) some = 2;
			for (long b = 0; b < t->blocks && hardware; b++)
				for (long c = 0; c < 4 * in; c++)
					fetch(x + g * t->group + b * t->block + ((p + 4) * in + c + met->n - 1) * 16, 4 * t->row, pairs);
			for (long o = 0; o < outs; o += 16) {
				const unsigned *wo = w + (g * t->tiles + o / 16) * t->blocks * KW * TILE_FLOATS;
				const int *from = x + g * t->group + p * in * 16;
				const long made = MIN(16, outs - o);
				if (some == 4) amx_columns(hardware, 4, sums, wo, t, from, met, KW, in, made);
				else amx_columns(hardware, 2, sums, wo, t, from, met, KW, in, made);
				bf16 *base = y + (first + o * f.step) * ycs + p * out * 16;
				for (long c = 0; c < some; c += 2)
					pack_columns(base + c * out * 16, to, sums + c * TILE_FLOATS, sums + (c + 1) * TILE_FLOATS, made, out);
				ahead(next, some * made * (t->in / t->parts) * met->rows * met->n);
			}
		}
	}
}

#define TILED(a, f, ...) \
	do { \
		if (HARDWARE(a)) f(1, __VA_ARGS__); \
		else f(0, __VA_ARGS__); \
	} while (0)

// amx_row: a row of the primary convolution, from the slot x on.
static __attribute__((noinline)) void amx_row(const igc_conv *a, const bf16_plan *p, bf16 *y, const int *x,
		const unsigned *w, stream *next) {
	met_taps met = {.n = a->KW, .rows = a->KH};
	for (long k = 0; k < a->KW; k++) met.column[k] = k, met.at[k] = k * 16;
	TILED(a, amx_conv, y, p->zs, ((igc_mix){a->Co, 1}), p->Cz, x, &p->in, w, &met, a->KW, a->stride, 1, p->OW, next);
}

// amx_back_row: row `done` of dx, the gradient by the input, from padded rows of dy.
static __attribute__((noinline)) void amx_back_row(const igc_conv *a, const bf16_plan *p, bf16 *dx, long done,
		const int *pdy, const unsigned *w, stream *next) {
	const long S = a->stride, P = a->KW / 2, up = a->KH / 2;
	const long phase = (done + up * (S - 1)) % S; // of done - up, which may be negative
	const long kh = (S - phase) % S, first = (done - up + kh) / S;
	for (long column = 0; column < S; column++) {
		met_taps met = {.rows = UP(a->KH - kh, S)};
		for (long k = 0; k < a->KW; k++)
			if (met.rows && (column + k - P) % S == 0)
				met.column[met.n] = k, met.at[met.n++] = (P + (column + k - P) / S) * 16;
		TILED(a, amx_conv, dx + column * 16, p->dxs, ((igc_mix){a->Ci, 1}), p->Cx,
			pdy + (first + p->back.ring) % p->back.ring * p->back.slot, &p->back,
			w + phase * amx_weights_floats(&p->back, a->KW, 1), &met, a->KW, 1, S, (a->W - column + S - 1) / S, next);
	}
}

// amx_mix: a row of a mix.
static __attribute__((noinline)) void amx_mix(const igc_conv *a, const bf16_plan *p, bf16 *z, const int *paired,
		const unsigned *w, igc_mix f, stream *next) {
	const pairing t = mix_pairing(a, f, p->zp);
	const met_taps met = {.n = 1, .rows = 1};
	TILED(a, amx_conv, z, p->zs, f, p->Cz, paired, &t, w, &met, 1, 1, 1, p->OW, next);
}

// ---- the ring of paired rows ----

// clear_pairs zeroes what no row is written to: the padding of all rows, before and behind the
// columns in use, and the pairs that have no channels.
static void clear_pairs(int *rows, const pairing *t, long C, long before, long used) {
	pad((char *)rows, t->lanes / t->row, t->row * 4, before * 64, used * 64);
	for (long g = 0; g < t->groups; g++)
		for (long j = PAIRS(MIN(t->in, C - g * t->in)); j < t->blocks * t->pairs; j++)
			for (long s = 0; s < t->slots; s++)
				memset(rows + g * t->group + pair_place(t, j) + s * t->slot, 0, t->row * 4);
}

// second_slot is where row h's second slot is from its first, or 0.
INLINE long second_slot(const pairing *t, long h) {
	return (h + t->ring) % t->ring + t->ring < t->slots ? t->ring * t->slot : 0;
}

// clear_slots zeroes row h, which is outside of the picture.
static void clear_slots(int *rows, const pairing *t, long h) {
	const long twice = second_slot(t, h);
	for (long g = 0; g < t->groups * t->blocks; g++) {
		int *row = rows + g * t->block + (h + t->ring) % t->ring * t->slot;
		memset(row, 0, t->slot * 4);
		if (twice) memset(row + twice, 0, t->slot * 4);
	}
}

// ---- weights' gradients ----

// exchange exchanges blocks of d lanes between vectors that are d apart.
INLINE void exchange(ivec *v, const int d, const ivec low, const ivec high) {
	UNROLL for (int c = 0; c < 16; c++)
		if (!(c & d)) {
			const ivec a = v[c], b = v[c + d];
			v[c] = __builtin_shuffle(a, b, low);
			v[c + d] = __builtin_shuffle(a, b, high);
		}
}

// transposed_row: out (columns/2, 16, 16) = 16 channels of a plain row. Two columns have 16
// pairs of pictures, which come first, then the channels: AMX takes pairs by 16 lanes.
static __attribute__((noinline)) void transposed_row(int *out, const bf16 *const *channels, long columns) {
	for (long p = 0; p < columns; p += 2, out += TILE_FLOATS) {
		ivec v[16];
		UNROLL for (int c = 0; c < 16; c++) v[c] = ILOAD(channels[c] + p * 16);
		exchange(v, 1, (ivec){0, 16, 2, 18, 4, 20, 6, 22, 8, 24, 10, 26, 12, 28, 14, 30},
			(ivec){1, 17, 3, 19, 5, 21, 7, 23, 9, 25, 11, 27, 13, 29, 15, 31});
		exchange(v, 2, (ivec){0, 1, 16, 17, 4, 5, 20, 21, 8, 9, 24, 25, 12, 13, 28, 29},
			(ivec){2, 3, 18, 19, 6, 7, 22, 23, 10, 11, 26, 27, 14, 15, 30, 31});
		exchange(v, 4, (ivec){0, 1, 2, 3, 16, 17, 18, 19, 8, 9, 10, 11, 24, 25, 26, 27},
			(ivec){4, 5, 6, 7, 20, 21, 22, 23, 12, 13, 14, 15, 28, 29, 30, 31});
		exchange(v, 8, (ivec){0, 1, 2, 3, 4, 5, 6, 7, 16, 17, 18, 19, 20, 21, 22, 23},
			(ivec){8, 9, 10, 11, 12, 13, 14, 15, 24, 25, 26, 27, 28, 29, 30, 31});
		UNROLL for (int c = 0; c < 16; c++) ISTORE(out + c * 16, v[c]);
	}
}

// grad_tile is a tile of gradients, 16 inputs by 16 outputs, and its inputs. The first tile
// that reads some inputs fetches them for the others.
typedef struct {
	float *sums;
	const char *x;
	int first;
} grad_tile;

// So many tiles of gradients are computed at a time, of GRAD_COLUMNS columns: inputs stay in
// the L1 cache for all outputs. AMX has three tiles more, for inputs and the transposed row.
enum { GRAD_TILES = 5 };

// grad_steps: n tiles of gradients += their inputs, channels `apart` bytes apart, times the
// transposed row.
INLINE void grad_steps(const int hardware, const int n, const grad_tile *tiles, long apart, const int *transposed,
		long steps, long pairs) {
#define TILES(f) f(0) if (n > 1) { f(1) } if (n > 2) { f(2) } if (n > 3) { f(3) } if (n > 4) { f(4) }
#define GET(k) TILE_LOAD(k, tiles[k].sums, 64);
#define PUT(k) TILE_STORE(k, tiles[k].sums, 64);
	if (hardware) { TILES(GET) }
	for (long s = 0; s < steps; s++, transposed += pairs * 16) {
		if (hardware) {
			for (int k = 0; k < n; k++)
				if (tiles[k].first) fetch(tiles[k].x + (s + 3) * 64, apart, 16);
			TILE_LOAD(7, transposed, 64);
#define ADD(k, weights) TILE_LOAD(weights, tiles[k].x + s * 64, apart); TILE_STEP(k, weights, 7);
			ADD(0, 5)
			if (n > 1) { ADD(1, 6) }
			if (n > 2) { ADD(2, 5) }
			if (n > 3) { ADD(3, 6) }
			if (n > 4) { ADD(4, 5) }
#undef ADD
		} else {
			for (int k = 0; k < n; k++) step(tiles[k].sums, tiles[k].x + s * 64, apart, (const char *)transposed, 64, pairs, 16);
		}
	}
	if (hardware) { TILES(PUT) }
#undef GET
#undef PUT
#undef TILES
}

// grad_source is what weights' gradients are made of: a row of the gradient of the output,
// and the rows of the input that it meets; those outside of the picture are NULL. Channels
// lie in partitions of f. If gather is set, the inputs of a tile are first copied to one
// place: they are not equally far apart, or are fewer than 16 and nothing may be read behind
// them.
typedef struct {
	const bf16 *dz, *const *x;
	long dzs, xs, Cz, KH, KW, stride, OW;
	int gather;
	igc_mix f;
} grad_source;

// amx_grad: sums += the row's share of the gradients. transposed has room for GRAD_COLUMNS
// columns of 16 channels, few for a row of 16.
INLINE void amx_grad(const int hardware, float *sums, const cut *c, const grad_source *g, int *transposed, bf16 *few,
		long few_apart, stream *next) {
	const long pairs = g->stride == 1 ? 16 : 8;
	const long apart = g->gather ? few_apart : g->f.step * g->xs;
	configure(hardware, GRAD_TILES, 2, pairs);
#define STEPS(some) \
	grad_steps(hardware, some, tiles, 2 * apart, transposed, g->stride == 1 ? EVEN(columns) / 2 : columns, pairs)
	for (long q = 0; q < c->groups; q++) {
		const long in = channel(g->f.K, g->f.step, q * c->in);
		for (long i = 0; i < 16 && g->gather; i++)
			memcpy(few + i * few_apart,
				g->x[0] + channel(g->f.K, g->f.step, MIN(q * c->in + MIN(i, c->in - 1), g->Cz - 1)) * g->xs,
				EVEN(g->OW) * 32);
		for (long p = 0; p < g->OW; p += GRAD_COLUMNS) {
			const long columns = MIN(GRAD_COLUMNS, g->OW - p);
			for (long o = 0; o < c->outs; o++) {
				const bf16 *channels[16];
				for (long m = 0; m < 16; m++)
					channels[m] = g->dz + channel(g->f.K, g->f.step, MIN(q * c->out + o * 16 + m, g->Cz - 1)) * g->dzs + p * 16;
				transposed_row(transposed, channels, EVEN(columns));
				grad_tile tiles[GRAD_TILES];
				long n = 0, met = 0;
				for (long i = 0; i < c->ins; i++)
					for (long kh = 0; kh < g->KH; kh++)
						for (long kw = 0; kw < g->KW && g->x[kh]; kw++) {
							const long at = (((q * c->outs + o) * c->ins + i) * g->KH + kh) * g->KW + kw;
							const bf16 *x =
								g->gather ? few : g->x[kh] + (in + first_input(c, i) * g->f.step) * g->xs + kw * 16;
							tiles[n++] = (grad_tile){
								sums + at * TILE_FLOATS, (const char *)(x + p * g->stride * 16), kw == 0 && o == 0};
							if (n == GRAD_TILES) STEPS(GRAD_TILES), n = 0;
							met += i == 0;
						}
				switch (n) {
				case 1: STEPS(1); break;
				case 2: STEPS(2); break;
				case 3: STEPS(3); break;
				case 4: STEPS(4); break;
				}
				ahead(next, MIN(16, c->out - o * 16) * (c->in / c->parts) * met * columns);
			}
		}
	}
#undef STEPS
}

static __attribute__((noinline)) void amx_grad_row(const igc_conv *a, const bf16_plan *p, float *sums, const cut *c,
		const grad_source *g, stream *next) {
	TILED(a, amx_grad, sums, c, g, (int *)(a->scratch + p->transposed), (bf16 *)(a->scratch + p->few), p->zs, next);
}

// amx_convgrad: the share of a row of the gradient of the primary weights.
static void amx_convgrad(const igc_conv *a, const bf16_plan *p, float *sums, const conv_rows *rows, stream *next) {
	const grad_source g = {.dz = rows->dy[0], .x = rows->x[0], .dzs = p->zs, .xs = p->as, .Cz = p->Cz, .KH = a->KH, .KW = a->KW,
		.stride = a->stride, .OW = p->OW, .f = {a->Co, 1}};
	const cut c = grad_cut(a->L, a->Ci, a->Co);
	amx_grad_row(a, p, sums, &c, &g, next);
}

// amx_mixgrad: the share of a row of the gradient of a mix's weights.
static void amx_mixgrad(const igc_conv *a, const bf16_plan *p, float *sums, const grad_rows *rows, long ys, igc_mix f,
		stream *next) {
	const cut c = grad_cut(p->Cz / f.K, f.K, f.K);
	const grad_source g = {.dz = rows->dz[0], .x = rows->y, .dzs = p->zs, .xs = ys, .Cz = p->Cz, .KH = 1, .KW = 1, .stride = 1,
		.OW = p->OW, .f = f, .gather = c.parts > 1 || c.in < 16};
	amx_grad_row(a, p, sums, &c, &g, next);
}

// untile: dw (L*Co, Ci, taps) from the tiles of gradients.
static void untile(float *dw, const float *sums, const cut *c, long L, long Ci, long Co, long taps) {
	for (long l = 0; l < L; l++)
		for (long o = 0; o < Co; o++)
			for (long i = 0; i < Ci; i++) {
				const long out = l % c->parts * Co + o, in = l % c->parts * Ci + i, tile = in / 16;
				const float *from = sums + ((l / c->parts * c->outs + out / 16) * c->ins + tile) * taps * TILE_FLOATS +
					(in - first_input(c, tile)) * 16 + out % 16;
				for (long k = 0; k < taps; k++) *dw++ = from[k * TILE_FLOATS];
			}
}

// ---- measurements ----

// amx_probe: rounds of TILE_STEPS independent steps.
INLINE void amx_probe(const int hardware, igc_probe *a) {
	float sums[TILE_STEPS * TILE_FLOATS] __attribute__((aligned(64))) = {0};
	unsigned pairs[TILE_FLOATS] __attribute__((aligned(64)));
	for (int k = 0; k < TILE_FLOATS; k++) pairs[k] = 0x30003000;
	configure(hardware, 4, 1, 16);
	if (hardware) {
		TILE_ZERO(0);
		TILE_ZERO(1);
		TILE_ZERO(2);
		TILE_ZERO(3);
		TILE_LOAD(4, pairs, 64);
		TILE_LOAD(5, pairs, 64);
	}
	for (long i = 0; i < a->rounds; i++) {
		if (hardware) {
			TILE_STEP(0, 4, 5);
			TILE_STEP(1, 4, 5);
			TILE_STEP(2, 4, 5);
			TILE_STEP(3, 4, 5);
		} else {
			for (int k = 0; k < TILE_STEPS; k++)
				step(sums + k * TILE_FLOATS, (const char *)pairs, 64, (const char *)pairs, 64, 16, 16);
		}
	}
	if (hardware) {
		TILE_STORE(0, sums, 64);
		TILE_STORE(1, sums + TILE_FLOATS, 64);
		TILE_STORE(2, sums + 2 * TILE_FLOATS, 64);
		TILE_STORE(3, sums + 3 * TILE_FLOATS, 64);
		TILE_RELEASE;
	}
	for (int k = 0; k < TILE_STEPS; k++) a->result += hsum(LOAD(sums + k * TILE_FLOATS));
}
