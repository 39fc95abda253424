// Where the kernels of bfloat16 keep the rows of a block in its scratch memory.
//
// Rows come in two forms. A plain row is (channels, columns, 16): what lies in memory.
// A paired row is (pairs of channels, columns, 16) of 32 bits, the first channel of a
// pair in the lower half: what a product over channels reads. Columns are even, since
// a plain vector has two. Channels lie a cache line further apart than they need:
// distances of 2 KB would all fall into the same lines of the L1 cache.
#ifndef IGC_BF16_PLAN_H
#define IGC_BF16_PLAN_H
#include "rows.h"

enum { GRAD_ROWS = 2 }; // see grad_rows in bf16.h

#define EVEN(n) (((n) + 1) / 2 * 2)
#define PAIRS(n) (((n) + 1) / 2)

typedef struct {
	long Cx, Cz, OH, OW;
	long xpairs, zpairs; // pairs of channels that a primary partition reads, and makes
	// The last of an odd number of channels has no other to be paired with. Where
	// kernels have three rows, without a stride, it is paired with itself one row below
	// instead: two products with every column, not three.
	int xrows, zrows;
	long ring, pring;    // rows that the rings of plain and of paired rows of a have
	// How far apart channels of plain rows are, in bfloat16, and pairs of paired
	// rows, in 32-bit lanes: of a (padded), of dy (padded), of z and dx.
	long as, ap, dp, zs, zp, dxs;
	long mpairs; // the most pairs that a mix has, in all partitions

	// Offsets in the scratch memory, in floats.
	long a, pa;          // ring x (Cx, …) plain and pring x (L*xpairs, …) paired: padded rows of a
	long pdy;            // KH x (L*zpairs, …): padded rows of dy, paired
	long dz, y, dy;      // GRAD_ROWS x (Cz, …) plain rows
	long rest;           // (mixes - 1) x (Cz, …): what lies between two mixes
	long pair;           // (mpairs, …): what a mix multiplies
	long dx;             // (Cx, …)
	long wp, wpt, ws, wst; // the weights in pairs
	long accp, accs;     // accumulators of 16 lanes for each weight's gradient
	long end;
} bf16_plan;

INLINE bf16_plan bf16_planned(const igc_conv *a) {
	bf16_plan p = {a->L * a->Ci, a->L * a->Co, (a->H + a->stride - 1) / a->stride, (a->W + a->stride - 1) / a->stride};
	const long KK = a->KH * a->KW, line = 16, columns = MAX(a->W, a->stride * EVEN(p.OW)) + a->KW - 1;
	p.xpairs = PAIRS(a->Ci), p.zpairs = PAIRS(a->Co);
	p.xrows = a->KH == 3 && a->stride == 1 && a->Ci % 2, p.zrows = a->KH == 3 && a->stride == 1 && a->Co % 2;
	p.pring = MAX(a->KH, a->stride), p.ring = p.pring + a->stride * (GRAD_ROWS - 1);
	p.as = EVEN(columns) * 16 + 2 * line, p.ap = EVEN(columns) * 16 + line;
	p.dp = (EVEN(p.OW) + EVEN(a->KW) + 2) * 16 + line;
	p.zs = EVEN(p.OW) * 16 + 2 * line, p.zp = EVEN(p.OW) * 16 + line;
	// With a stride of 2, convt_row writes up to two columns more.
	p.dxs = (EVEN(a->W) + 2) * 16 + 2 * line;
	long wpairs = 0;
	for (long n = 0; n < a->mixes; n++) {
		p.mpairs = MAX(p.mpairs, p.Cz / a->mix[n].K * PAIRS(a->mix[n].K));
		wpairs += p.Cz * PAIRS(a->mix[n].K);
	}
	long at = 0;
#define ROOM(name, floats) p.name = at, at += ((floats) + line - 1) / line * line
	ROOM(a, p.ring * p.Cx * p.as / 2);
	ROOM(pa, p.pring * a->L * p.xpairs * p.ap);
	ROOM(pdy, a->KH * a->L * p.zpairs * p.dp);
	ROOM(dz, GRAD_ROWS * p.Cz * p.zs / 2);
	ROOM(y, GRAD_ROWS * p.Cz * p.zs / 2);
	ROOM(dy, GRAD_ROWS * p.Cz * p.zs / 2);
	ROOM(rest, MAX(a->mixes - 1, 0) * p.Cz * p.zs / 2);
	ROOM(pair, p.mpairs * p.zp);
	ROOM(dx, p.Cx * p.dxs / 2);
	ROOM(wp, p.Cz * p.xpairs * KK);
	ROOM(wpt, p.Cx * p.zpairs * KK);
	ROOM(ws, wpairs);
	ROOM(wst, wpairs);
	ROOM(accp, p.Cz * a->Ci * KK * 16);
	ROOM(accs, p.Cz * mix_depth(a) * 16);
#undef ROOM
	p.end = at;
	return p;
}

#endif
