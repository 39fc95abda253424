// What the kernels of both precisions share: the numbers of channels, and reading
// ahead.
#ifndef IGC_ROWS_H
#define IGC_ROWS_H
#include "igc.h"

#define INLINE static inline __attribute__((always_inline))
#define UNROLL _Pragma("GCC unroll 16")
#define MIN(a, b) ((a) < (b) ? (a) : (b))
#define MAX(a, b) ((a) > (b) ? (a) : (b))

// channel is the number of channel q of partitions of per channels each that lie
// step apart, if the channels are counted partition by partition.
INLINE long channel(long per, long step, long q) {
	if (step == 1) return q; // without the divisions, which take as long as a pass over a row's channel
	return q / per / step * per * step + q % per * step + q / per % step;
}

// mix_depth is the number of weights of all mixes for each channel.
INLINE long mix_depth(const igc_conv *a) {
	long depth = 0;
	for (long n = 0; n < a->mixes; n++) depth += a->mix[n].K;
	return depth;
}

// ---- reading ahead ----

// A stream loads the next rows into the cache while the present row is computed. If
// they were loaded on demand, the arithmetic would wait for memory. The rows of all
// channels are one sequence of lines.
typedef struct {
	const char *row[4]; // next row of each tensor
	long lines[4];
	int n, t;            // tensors; the one in turn
	long k;              // its next line
	long total;          // lines of all
	long rate, credit;   // lines for each multiply-add of a column, in 2^-20
} stream;

INLINE void stream_add(stream *s, const void *row, long lines) {
	s->row[s->n] = row;
	s->lines[s->n++] = lines;
	s->total += lines;
}

// stream_start spreads the lines over the next multiply-adds (of columns, 16 lanes).
INLINE void stream_start(stream *s, long madds) {
	s->rate = (s->total << 20) / MAX(madds, 1) + 1;
}

// ahead is called after the work of madds multiply-adds: after each tile, since many
// lines at once keep the next tile's own lines waiting.
INLINE void ahead(stream *s, long madds) {
	for (s->credit += madds * s->rate; s->credit >= 1 << 20 && s->t < s->n; s->credit -= 1 << 20) {
		__builtin_prefetch(s->row[s->t] + s->k * 64, 0, 2);
		if (++s->k == s->lines[s->t]) s->k = 0, s->t++;
	}
}

#endif
