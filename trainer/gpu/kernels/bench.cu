// What a device has to give, for the bench command: multiply–adds that touch no
// memory, and a copy.
#include "lanes.h"

// 16 chains a thread, of which none waits for itself.
KERNEL(peak, igc_sum, 256) {
	float v[16];
#pragma unroll
	for (int i = 0; i < 16; i++) v[i] = threadIdx.x + i;
	for (long long k = 0; k < a.len; k++)
#pragma unroll
		for (int i = 0; i < 16; i++) v[i] = fmaf(v[i], 0.999f, 0.5f);
	float s = 0;
#pragma unroll
	for (int i = 0; i < 16; i++) s += v[i];
	if (s == 12345) a.to[threadIdx.x] = s; // never: but the compiler cannot know
}

KERNEL(copy, igc_sum, 256) {
	const long long step = (long long)gridDim.x * blockDim.x;
	float4 *to = (float4 *)a.to;
	const float4 *from = (const float4 *)a.a;
	for (long long i = (long long)blockIdx.x * blockDim.x + threadIdx.x; i < a.len / 4; i += step) to[i] = from[i];
}
