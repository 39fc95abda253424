// Functions without vectors written by hand: the cross-entropy, and the choice of the
// instruction set.
#pragma GCC optimize("O3")
#include "bf16_plan.h"
#include <math.h>
#if defined(__x86_64__)
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

long igc_scratch(const igc_conv *a) {
	if (a->bf16) return bf16_planned(a).end;
	const long W = a->W, OW = (W + a->stride - 1) / a->stride, KW = a->KW, Cx = a->L * a->Ci, Cz = a->L * a->Co;
	const long ring = (a->KH > a->stride ? a->KH : a->stride) * Cx * (W + KW - 1), dring = a->KH * Cz * (OW + KW - 1);
	const long dz = Cz * (OW + 1), dx = Cx * W;
	const long between = a->mixes > 1 ? (a->mixes - 1) * dz : 0; // rows between the mixes
	// Forward's sums, 32 floats a channel, take the place of dring and of the accumulators, which only backward needs.
	long weights = a->Ci * a->KH * KW;
	for (long n = 0; n < a->mixes; n++) weights += a->mix[n].K;
	return (ring + dring + dz + (dz > dx ? dz : dx) + between + Cz * weights) * 16;
}

// The largest logit is subtracted first, so that exp cannot overflow. The sums are in
// double: in float, 100 classes and a mean over a batch would lose digits.
void igc_xent_block(const igc_head *a) {
	double (*const expo)(double) = a->bf16 ? igc_exp : exp;
	double (*const loga)(double) = a->bf16 ? igc_log : log;
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
		for (long k = 0; k < a->K; k++) sum += expo(a->logits[k * 16 + n] - top);
		a->loss[n] = loga(sum) + top - a->logits[y * 16 + n];
		if (a->dlogits)
			for (long k = 0; k < a->K; k++) {
				double p = expo(a->logits[k * 16 + n] - top) / sum;
				a->dlogits[k * 16 + n] = (float)(a->gain * (p - (k == y)));
			}
	}
}

int igc_best(void) {
#if defined(__x86_64__)
	__builtin_cpu_init();
	if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") &&
		__builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl")) return 2;
	if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) return 1;
#endif
	return 0;
}

int igc_has_native(void) {
#if defined(__x86_64__)
	return igc_best() == 2 && __builtin_cpu_supports("avx512bf16");
#else
	return 0;
#endif
}

#if defined(__x86_64__)
// amx_allowed returns whether the processor has AMX for bfloat16, and Linux lets this process
// use it: it saves the tiles of threads only in a process that asked for them.
static int amx_allowed(void) {
	enum { ARCH_REQ_XCOMP_PERM = 0x1023, XFEATURE_XTILEDATA = 18 };
	unsigned a, b, c, d;
	if (!__get_cpuid_count(7, 0, &a, &b, &c, &d)) return 0;
	const unsigned tile = 1u << 24, bf16 = 1u << 22; // AMX-TILE and AMX-BF16
	if ((d & tile) == 0 || (d & bf16) == 0) return 0;
	return syscall(SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA) == 0;
}
#endif

int igc_has_amx(void) {
#if defined(__x86_64__)
	return igc_has_native() && amx_allowed();
#else
	return 0;
#endif
}
