// What needs no vectors by hand: the choice of instruction set, weights turned
// for the backward pass, cross-entropy, the update.
#pragma GCC optimize("O3")
#include "igc.h"
#include <math.h>


long igc_scratch(const igc_conv *a) {
	const long W = a->W, PW = W + 2, Cx = a->L * a->Ci, Cz = a->L * a->Co;
	return (3 * (Cx + Cz) * PW + (Cz + (Cz > Cx ? Cz : Cx)) * W + Cz * a->Ci * 9 + (a->secondary ? Cz * a->L : 0)) * 16;
}

void igc_transpose(const igc_conv *a, float *wpt, float *wst) {
	const long L = a->L, Ci = a->Ci, Co = a->Co;
	for (long l = 0; l < L; l++)
		for (long o = 0; o < Co; o++)
			for (long i = 0; i < Ci; i++)
				for (int k = 0; k < 9; k++) wpt[((l * Ci + i) * Co + o) * 9 + 8 - k] = a->wp[((l * Co + o) * Ci + i) * 9 + k];
	if (a->secondary)
		for (long m = 0; m < Co; m++)
			for (long o = 0; o < L; o++)
				for (long i = 0; i < L; i++) wst[(m * L + i) * L + o] = a->ws[(m * L + o) * L + i];
}

// The largest logit is taken off first, so that exp cannot overflow; in double,
// since 100 classes and a mean over a batch would lose digits in float.
void igc_xent(const igc_head *a) {
	for (int n = 0; n < 16; n++) {
		if (n >= a->valid) {
			a->loss[n] = 0;
			if (a->dlogits)
				for (long k = 0; k < a->K; k++) a->dlogits[k * 16 + n] = 0;
			continue;
		}
		const long y = (long)a->labels[n];
		double top = a->logits[n], sum = 0;
		for (long k = 1; k < a->K; k++)
			if (a->logits[k * 16 + n] > top) top = a->logits[k * 16 + n];
		for (long k = 0; k < a->K; k++) sum += exp(a->logits[k * 16 + n] - top);
		a->loss[n] = log(sum) + top - a->logits[y * 16 + n];
		if (a->dlogits)
			for (long k = 0; k < a->K; k++) {
				double p = exp(a->logits[k * 16 + n] - top) / sum;
				a->dlogits[k * 16 + n] = (float)(a->gain * (p - (k == y)));
			}
	}
}

void igc_nesterov(float *w, float *v, const float *g, long n, float lr, float mu, float decay) {
	for (long k = 0; k < n; k++) {
		float d = g[k] + decay * w[k];
		v[k] = mu * v[k] + d;
		w[k] -= lr * (d + mu * v[k]);
	}
}

int igc_best(void) {
#if defined(__x86_64__)
	__builtin_cpu_init();
	if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl")) return 2;
	if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) return 1;
#endif
	return 0;
}

#if defined(__x86_64__)
#define CHOOSE(isa, name, arg) (isa == 2 ? name##_avx512(arg) : isa == 1 ? name##_avx2(arg) : name##_portable(arg))
#else
#define CHOOSE(isa, name, arg) (name##_portable(arg))
#endif

void igc_conv_forward(int isa, const igc_conv *a) { CHOOSE(isa, igc_conv_forward, a); }
void igc_conv_backward(int isa, const igc_conv *a) { CHOOSE(isa, igc_conv_backward, a); }
void igc_pool_forward(int isa, const igc_head *a) { CHOOSE(isa, igc_pool_forward, a); }
void igc_pool_backward(int isa, const igc_head *a) { CHOOSE(isa, igc_pool_backward, a); }
void igc_linear_forward(int isa, const igc_head *a) { CHOOSE(isa, igc_linear_forward, a); }
void igc_linear_backward(int isa, const igc_head *a) { CHOOSE(isa, igc_linear_backward, a); }
double igc_fma(int isa, long n) { return CHOOSE(isa, igc_fma, n); }
