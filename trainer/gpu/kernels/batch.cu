// The pictures of a step: from the bytes of the data set, which lie on the device,
// as dataset.Fill makes them on the host.
#include "lanes.h"

// A warp writes one pixel of 32 pictures: grid (⌈h·w/warps⌉, c, B).
#define PIXEL \
	const int lane = threadIdx.x, at = blockIdx.x * blockDim.y + threadIdx.y, c = blockIdx.y, b = blockIdx.z; \
	if (at >= a.h * a.w) return; \
	const int y = at / a.w, x = at % a.w, place = b * LANES + lane; \
	float *to = a.x + (((long long)b * a.c + c) * a.h * a.w + at) * LANES + lane

KERNEL(batch, igc_batch, 256) {
	PIXEL;
	const int turn = (a.evaluating ? a.state->first : a.state->step * a.batch) + place;
	const bool there = place < a.batch && turn < a.state->total;
	igc_show show = {};
	if (there) show = a.order[turn];
	if (c == 0 && at == 0) a.y[place] = there ? a.labels[show.picture] : -1;
	const int row = y + show.dy, col = (show.mirror ? a.w - 1 - x : x) + show.dx;
	const bool inside = there && row >= 0 && row < a.h && col >= 0 && col < a.w;
	*to = inside ? a.table[c * 256 + a.pixels[(((long long)show.picture * a.c + c) * a.h + row) * a.w + col]] : 0;
}

// The same from a batch that the host made, (⌈n/16⌉, h, c, w, 16).
KERNEL(repack, igc_repack, 256) {
	PIXEL;
	*to = place < a.n ? a.from[((((long long)(place / 16) * a.h + y) * a.c + c) * a.w + x) * 16 + place % 16] : 0;
}
