// Functions whose results have the same bits on every processor. A processor with
// fused multiply-adds must not use them here, because they round once where others
// round twice.
#pragma GCC optimize("O3,fp-contract=off")
#include "igc.h"
#include <math.h>
#include <stdint.h>
#include <string.h>

// exp and log are those of FreeBSD's e_exp.c and e_log.c. The C library has others for
// each kind of processor. Errors are below one unit of the last place. They came with
// this notice:
//
// Copyright (C) 2004 by Sun Microsystems, Inc. All rights reserved. Permission to use,
// copy, modify, and distribute this software is freely granted, provided that this
// notice is preserved.

// igc_exp is exp(x) for x <= 0, and 0 for x < -708, where it is hardly a normal number any more.
double igc_exp(double x) {
	const double ln2_hi = 6.93147180369123816490e-01, ln2_lo = 1.90821492927058770002e-10;
	if (!(x >= -708)) return x < 0 ? 0 : x; // the rest is NaN
	const int k = (int)(x * 1.44269504088896338700e+00 - 0.5);
	const double hi = x - k * ln2_hi, lo = k * ln2_lo, r = hi - lo, t = r * r;
	const double c = r - t * (1.66666666666666657415e-01 + t * (-2.77777777770155933842e-03 +
		t * (6.61375632143793436117e-05 + t * (-1.65339022054652515390e-06 + t * 4.13813679705723846039e-08))));
	const double y = 1 - ((lo - (r * c) / (2 - c)) - hi);
	const uint64_t bits = (uint64_t)(1023 + k) << 52; // 2^k
	double power;
	memcpy(&power, &bits, sizeof power);
	return y * power;
}

// igc_log is log(x) for a normal x > 0.
double igc_log(double x) {
	const double ln2_hi = 6.93147180369123816490e-01, ln2_lo = 1.90821492927058770002e-10;
	if (!(x < INFINITY)) return x;
	int k;
	double f = frexp(x, &k);
	if (f <= M_SQRT1_2) {
		f *= 2;
		k--;
	}
	f -= 1;
	const double s = f / (2 + f), s2 = s * s, s4 = s2 * s2;
	const double t1 = s2 * (6.666666666666735130e-01 + s4 * (2.857142874366239149e-01 +
		s4 * (1.818357216161805012e-01 + s4 * 1.479819860511658591e-01)));
	const double t2 = s4 * (3.999999999940941908e-01 + s4 * (2.222219843214978396e-01 + s4 * 1.531383769920937332e-01));
	const double r = t1 + t2, hfsq = 0.5 * f * f;
	return k * ln2_hi - ((hfsq - (s * (hfsq + r) + k * ln2_lo)) - f);
}

void igc_nesterov(float *w, float *v, const float *g, long n, float lr, float mu, float decay) {
	for (long k = 0; k < n; k++) {
		float d = g[k] + decay * w[k];
		v[k] = mu * v[k] + d;
		w[k] -= lr * (d + mu * v[k]);
	}
}
