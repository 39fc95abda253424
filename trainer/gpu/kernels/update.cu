// The end of a step.
#include "lanes.h"

// One block a segment, one thread an element.
KERNEL(update, igc_update, 256) {
	const igc_segment s = a.segments[blockIdx.x];
	if ((int)threadIdx.x >= s.len) return;
	const long long i = s.from + threadIdx.x;
	// What the step needs comes while the parts are added up.
	float value = 0, velocity = 0, average = 0;
	igc_rates r = {};
	if (a.rates) {
		value = a.value[i], velocity = a.velocity[i], r = a.rates[a.state->step];
		if (a.average) average = a.average[i];
	}
	float g;
	if (s.part >= 0) {
		const float *part = a.parts + s.part + threadIdx.x;
		double sum = 0;
		constexpr int U = 16;
		trips<U>(s.parts, [&](int p, auto whole) {
			float v[U];
#pragma unroll
			for (int u = 0; u < U; u++) v[u] = part[(long long)(whole.value ? p + u : min(p + u, s.parts - 1)) * s.stride];
#pragma unroll
			for (int u = 0; u < U; u++)
				if (whole.value || p + u < s.parts) sum += v[u];
		});
		g = (float)sum;
		a.grad[i] = g;
	} else {
		g = a.grad[i];
	}
	if (!a.rates) return;
	const float d = s.decays ? fmaf(a.decay, value, g) : g;
	const float v = fmaf(a.momentum, velocity, d);
	a.velocity[i] = v;
	const float w = value - r.learning * fmaf(a.momentum, v, d);
	a.value[i] = w;
	if (a.average) a.average[i] = fmaf(r.average, w - average, average);
}

KERNEL(exchange, igc_exchange, 256) {
	const long long i = (long long)blockIdx.x * blockDim.x + threadIdx.x;
	if (i >= a.len) return;
	const float v = a.a[i];
	a.a[i] = a.b[i];
	a.b[i] = v;
}

// One block. losses and corrects lie in the memory of the host, which reads them after it
// waited for an event behind this kernel: until then all writes of a kernel have arrived.
KERNEL(finish, igc_finish, 256) {
	SHARED(double, room);
	double loss = 0, correct = 0;
	for (int i = threadIdx.x; i < a.lanes; i += blockDim.x) {
		loss += a.loss[i];
		correct += a.correct[i];
	}
	loss = block_sum(loss, room);
	correct = block_sum(correct, room);
	if (threadIdx.x != 0) return;
	if (a.evaluating) {
		a.state->first += a.batch;
		a.state->correct += a.state->odd ? 0 : (int)correct;
		a.state->loss += a.state->odd ? NAN : loss;
		a.losses[0] = a.state->loss;
		a.corrects[0] = a.state->correct;
		return;
	}
	const int step = a.state->step;
	a.losses[step] = a.state->odd ? NAN : loss / a.batch;
	a.corrects[step] = (int)correct;
	a.state->step = step + 1;
}

KERNEL(sum_branches, igc_branches, 256) {
	const long long i = (long long)blockIdx.x * blockDim.x + threadIdx.x;
	if (i >= a.len) return;
	float s = a.from[i];
	for (int p = 1; p < a.branches; p++) s += a.from[i + p * a.len];
	a.to[i] = s;
}
