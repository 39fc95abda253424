// bfloat16 by vdpbf16ps: AVX512-BF16, 32 registers.
#if defined(__x86_64__)
#pragma GCC optimize("O3,fp-contract=off")
#pragma GCC target("avx512f,avx512dq,avx512bw,avx512vl,avx512bf16,avx2,fma")
#include <immintrin.h>
#define BF16(name) name##_native
#define DOT(acc, a, b) ((vec)_mm512_dpbf16_ps((__m512)(acc), (__m512bh)(a), (__m512bh)(b)))
#define PACK(lo, hi) ((ivec)_mm512_cvtne2ps_pbh((__m512)(hi), (__m512)(lo)))
#define FMA(a, b, c) ((vec)_mm512_fmadd_ps((__m512)(a), (__m512)(b), (__m512)(c)))
#define RELU(v) ((vec)_mm512_max_ps(_mm512_setzero_ps(), (__m512)(v)))
#define OPEN(a, v) ((ivec)_mm512_maskz_mov_epi16( \
	_mm512_cmpgt_epi16_mask((__m512i)(a), _mm512_setzero_si512()), (__m512i)(v)))
// put_past stores past the caches where whole vectors are aligned.
#define put_past(p, v, half, columns) \
	((half) || (columns) % 2 ? put(p, v, half) : _mm512_stream_si512((void *)(p), (__m512i)(v)))
#define PAST_END _mm_sfence()
#define LARGE_TILES
// The registers of AMX have numbers, which the compiler does not know.
#define HARDWARE(a) ((a)->amx)
#define TILE_ZERO(n) __asm__ volatile("tilezero %%tmm" #n ::)
#define TILE_LOAD(n, from, apart) \
	__asm__ volatile("tileloadd (%0,%1,1), %%tmm" #n : : "r"(from), "r"((long)(apart)) : "memory")
#define TILE_STORE(n, to, apart) \
	__asm__ volatile("tilestored %%tmm" #n ", (%0,%1,1)" : : "r"(to), "r"((long)(apart)) : "memory")
#define TILE_STEP(sums, weights, pairs) __asm__ volatile("tdpbf16ps %%tmm" #pairs ", %%tmm" #weights ", %%tmm" #sums ::)
#define TILE_CONFIGURE(shapes) __asm__ volatile("ldtilecfg %0" : : "m"(shapes))
#define TILE_RELEASE __asm__ volatile("tilerelease" ::)
#include "bf16.h"
#else
typedef int igc_no_native;
#endif
