// bfloat16 by AVX2 with FMA, for processors without vdpbf16ps.
#if defined(__x86_64__)
#pragma GCC optimize("O3,fp-contract=off")
#pragma GCC target("avx2,fma")
#include <immintrin.h>
#define BF16(name) name##_avx2
// AVX2's vectors are half as long.
typedef float vec8 __attribute__((vector_size(32)));
static inline __attribute__((always_inline)) void fma8(vec8 *c, vec8 a, vec8 b) {
	*c = (vec8)_mm256_fmadd_ps((__m256)a, (__m256)b, (__m256)*c);
}
#define HALF_FMA fma8
#define put_past(p, v, half, columns) put(p, v, half)
#define PAST_END
#include "bf16.h"
#else
typedef int igc_no_bf16_avx2;
#endif
