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

enum { GRAD_ROWS = 2 };         // see grad_rows in bf16.h
enum { TILE_FLOATS = 16 * 16 }; // a tile of AMX is 16 rows of 64 bytes
enum { GRAD_COLUMNS = 16 };     // see bf16_amx.h

#define EVEN(n) (((n) + 1) / 2 * 2)
#define PAIRS(n) (((n) + 1) / 2)
#define UP(n, by) (((n) + (by) - 1) / (by)) // n over by, rounded up

// A pairing says how the channels that a product reads are paired, and where the pairs of
// a row lie. Channels are numbered partition by partition.
//
// A slot is the place of one row in the ring. For vdpbf16ps a group is one partition and has
// one block, and a slot holds the row of all groups.
//
// AMX multiplies all pairs of a block in as many neighbouring rows as a kernel has, at most
// 16 pairs together. So the slots of a block follow each other, and the rows in the first
// KH-1 slots are written a second time behind the last one: any KH rows lie together. Small
// partitions share a group: weights between two of them are zero, which costs nothing in a
// tile that would be empty there.
typedef struct {
	long parts, groups;           // partitions of a group; groups
	long in, out;                 // channels that a group reads, and makes
	long pairs, blocks;           // pairs of a block; blocks of a group
	long tiles;                   // of 16 channels that a group makes
	long ring, slots;             // rows that are kept, and slots for them
	long row, slot, block, group; // how far apart pairs, slots, blocks and groups are, in 32-bit lanes
	long lanes;                   // of all
} pairing;

INLINE pairing paired_by(const igc_conv *a, long L, long Ci, long Co, long KH, long ring, long row) {
	pairing t = {1, L, Ci, Co, PAIRS(Ci), 1, UP(Co, 16), ring, ring, row};
	if (a->bf16 != IGC_AMX) {
		t.group = t.pairs * row, t.slot = L * t.group, t.lanes = ring * t.slot;
		return t;
	}
	const long most = 16 / KH; // pairs of a block
	t.parts = MAX(1, MIN(2 * most / Ci, 16 / Co)), t.groups = UP(L, t.parts);
	t.in = t.parts * Ci, t.out = t.parts * Co, t.tiles = UP(t.out, 16);
	t.blocks = UP(PAIRS(t.in), most), t.pairs = UP(PAIRS(t.in), t.blocks);
	t.slots = ring + KH - 1;
	t.slot = t.pairs * row, t.block = t.slots * t.slot, t.group = t.blocks * t.block, t.lanes = t.groups * t.group;
	return t;
}

// mix_pairing is that of one row of a mix.
INLINE pairing mix_pairing(const igc_conv *a, igc_mix f, long row) {
	return paired_by(a, a->L * a->Co / f.K, f.K, f.K, 1, 1, row);
}

// pair_place is where pair j of a group lies.
INLINE long pair_place(const pairing *t, long j) {
	return j / t->pairs * t->block + j % t->pairs * t->row;
}

// amx_weights_floats: AMX's weights are tiles of 16 outputs and the pairs of a block, for
// each column of a kernel, and for each of stride phases.
INLINE long amx_weights_floats(const pairing *t, long KW, long stride) {
	return stride * t->groups * t->tiles * t->blocks * KW * TILE_FLOATS;
}

// A cut says how AMX's weights' gradients are cut into tiles of 16 inputs by 16 outputs.
// Small partitions share a tile, of which only the gradients between channels of one
// partition are used.
typedef struct {
	long parts, groups;
	long in, out;   // channels of a group
	long ins, outs; // tiles
} cut;

INLINE cut grad_cut(long L, long Ci, long Co) {
	const long parts = MAX(1, MIN(16 / Ci, 16 / Co));
	return (cut){parts, UP(L, parts), parts * Ci, parts * Co, UP(parts * Ci, 16), UP(parts * Co, 16)};
}

INLINE long cut_floats(const cut *c, long taps) { return c->groups * c->ins * c->outs * taps * TILE_FLOATS; }

// first_input is the number in its group of a tile's first input. The last of several tiles
// begins before its own inputs if these are fewer than 16, and computes some of the tile
// before again: nothing behind the last channel is read.
INLINE long first_input(const cut *c, long tile) { return c->ins == 1 ? 0 : MIN(tile * 16, c->in - 16); }

// mix_weights_floats are those of the pairs of a mix's weights, and mixgrad_floats of their
// gradients' accumulators.
INLINE long mix_weights_floats(const igc_conv *a, igc_mix f) {
	if (a->bf16 != IGC_AMX) return a->L * a->Co * PAIRS(f.K);
	const pairing t = mix_pairing(a, f, 0);
	return amx_weights_floats(&t, 1, 1);
}
INLINE long mixgrad_floats(const igc_conv *a, igc_mix f) {
	if (a->bf16 != IGC_AMX) return a->L * a->Co * f.K * 16;
	const cut c = grad_cut(a->L * a->Co / f.K, f.K, f.K);
	return cut_floats(&c, 1);
}

typedef struct {
	long Cx, Cz, OH, OW;
	pairing in, back;    // of a, and of the gradient by y
	// The last of an odd number of channels has no other to be paired with. Where
	// kernels have three rows, without a stride, it is paired with itself one row below
	// instead: two products with every column, not three.
	int xrows, zrows;
	long grad_rows;      // rows of which weights' gradients are computed in one go
	long ring, pring;    // rows that the rings of plain and of paired rows of a have
	// How far apart channels of plain rows are, in bfloat16, and pairs of paired
	// rows, in 32-bit lanes: of a (padded), of dy (padded), of z and dx.
	long as, ap, dp, zs, zp, dxs;

	// Offsets in the scratch memory, in floats.
	long a, pa;          // ring x (Cx, …) plain, and paired: padded rows of a
	long pdy;            // padded rows of dy, paired
	long dz, y, dy;      // grad_rows x (Cz, …) plain rows
	long rest;           // (mixes - 1) x (Cz, …): what lies between two mixes
	long pair;           // what a mix multiplies
	long dx;             // (Cx, …)
	long wp, wpt, ws, wst; // the weights in pairs
	long accp, accs;     // accumulators of the weights' gradients: 16 lanes for each, or AMX's tiles
	long transposed, few; // AMX: columns of 16 channels, pairs of pictures first; a row of 16 channels
	long end;
} bf16_plan;

INLINE bf16_plan bf16_planned(const igc_conv *a) {
	bf16_plan p = {a->L * a->Ci, a->L * a->Co, (a->H + a->stride - 1) / a->stride, (a->W + a->stride - 1) / a->stride};
	const long KK = a->KH * a->KW, line = 16, columns = MAX(a->W, a->stride * EVEN(p.OW)) + a->KW - 1;
	const long amx = a->bf16 == IGC_AMX, rows = !amx && a->KH == 3 && a->stride == 1;
	p.xrows = rows && a->Ci % 2, p.zrows = rows && a->Co % 2;
	p.grad_rows = amx ? 1 : GRAD_ROWS;
	p.pring = MAX(a->KH, a->stride), p.ring = p.pring + a->stride * (p.grad_rows - 1);
	p.as = EVEN(columns) * 16 + 2 * line, p.ap = EVEN(columns) * 16 + line;
	p.dp = (EVEN(p.OW) + EVEN(a->KW) + 2) * 16 + line;
	p.zs = EVEN(p.OW) * 16 + 2 * line, p.zp = EVEN(p.OW) * 16 + line;
	// With a stride of 2, convt_row writes up to two columns more.
	p.dxs = (EVEN(a->W) + 2) * 16 + 2 * line;
	p.in = paired_by(a, a->L, a->Ci, a->Co, a->KH, p.pring, p.ap);
	p.back = paired_by(a, a->L, a->Co, a->Ci, a->KH, a->KH, p.dp);
	long pairs = 0, wpairs = 0, mixgrads = 0;
	for (long n = 0; n < a->mixes; n++) {
		const pairing t = mix_pairing(a, a->mix[n], p.zp);
		pairs = MAX(pairs, t.lanes);
		wpairs += mix_weights_floats(a, a->mix[n]);
		mixgrads += mixgrad_floats(a, a->mix[n]);
	}
	const cut primary = grad_cut(a->L, a->Ci, a->Co);
	long at = 0;
#define ROOM(name, floats) p.name = at, at += ((floats) + line - 1) / line * line
	ROOM(a, (p.ring * p.Cx + 16) * p.as / 2); // a tile of gradients may read 16 channels from any on
	ROOM(pa, p.in.lanes);
	ROOM(pdy, p.back.lanes);
	ROOM(dz, p.grad_rows * p.Cz * p.zs / 2);
	ROOM(y, MAX(p.grad_rows * p.Cz * p.zs, amx * p.Cx * p.dxs) / 2);
	ROOM(dy, amx ? 0 : p.grad_rows * p.Cz * p.zs / 2);
	ROOM(rest, MAX(a->mixes - 1, 0) * p.Cz * p.zs / 2);
	ROOM(pair, pairs);
	ROOM(dx, amx ? 0 : p.Cx * p.dxs / 2);
	ROOM(wp, amx ? amx_weights_floats(&p.in, a->KW, 1) : p.Cz * p.in.pairs * KK);
	ROOM(wpt, amx ? amx_weights_floats(&p.back, a->KW, a->stride) : p.Cx * p.back.pairs * KK);
	ROOM(ws, wpairs);
	ROOM(wst, wpairs);
	ROOM(accp, amx ? cut_floats(&primary, KK) : p.Cz * a->Ci * KK * 16);
	ROOM(accs, mixgrads);
	ROOM(transposed, amx ? GRAD_COLUMNS / 2 * TILE_FLOATS : 0);
	ROOM(few, amx ? 8 * p.zs : 0);
#undef ROOM
	// With AMX the rows in use just fit into L2 at small M, and dz and y are done with when dy and dx are made.
	if (amx) p.dy = p.dz, p.dx = p.y;
	p.end = at;
	return p;
}

#endif
