// The pictures of a step: from the bytes of the data set, which lie on the device,
// as dataset.Fill makes them on the host.
#include "lanes.h"

// A warp writes rows of 32 pictures: grid (⌈h/warps⌉, c, B).
KERNEL(batch, igc_batch, 256) {
	const int lane = threadIdx.x, y = blockIdx.x * blockDim.y + threadIdx.y, c = blockIdx.y, b = blockIdx.z;
	if (y >= a.h) return;
	const int place = b * LANES + lane, at = (a.evaluating ? a.state->first : a.state->step * a.batch) + place;
	const bool there = place < a.batch && at < a.state->total;
	igc_show show = {};
	if (there) show = a.order[at];
	if (c == 0 && y == 0) a.y[place] = there ? a.labels[show.picture] : -1;
	const int row = y + show.dy;
	const bool inside = there && row >= 0 && row < a.h;
	const unsigned char *from = a.pixels + (((long long)show.picture * a.c + c) * a.h + row) * a.w;
	float *to = a.x + (((long long)b * a.c + c) * a.h + y) * a.w * LANES + lane;
	for (int x = 0; x < a.w; x++) {
		const int col = (show.mirror ? a.w - 1 - x : x) + show.dx;
		to[x * LANES] = inside && col >= 0 && col < a.w ? a.table[c * 256 + from[col]] : 0;
	}
}

// The same from a batch that the host made, (⌈n/16⌉, h, c, w, 16).
KERNEL(repack, igc_repack, 256) {
	const int lane = threadIdx.x, y = blockIdx.x * blockDim.y + threadIdx.y, c = blockIdx.y, b = blockIdx.z;
	if (y >= a.h) return;
	const int place = b * LANES + lane;
	float *to = a.x + (((long long)b * a.c + c) * a.h + y) * a.w * LANES + lane;
	const float *from = a.from + ((((long long)(place / 16) * a.h + y) * a.c + c) * a.w) * 16 + place % 16;
	for (int x = 0; x < a.w; x++) to[x * LANES] = place < a.n ? from[x * 16] : 0;
}
