// AVX2 with FMA: 16 registers of 8 floats.
#if defined(__x86_64__)
#pragma GCC optimize("O3")
#pragma GCC target("avx2,fma")
#include <immintrin.h>
#define ISA(name) name##_avx2
#define VW 8
#define BC(f) ((vec){(f), (f), (f), (f), (f), (f), (f), (f)})
#define STREAM(p, v) _mm256_stream_ps(p, (__m256)(v))
#define STREAM_END _mm_sfence()
#include "tiles16.h"
#include "body.h"
#else
typedef int igc_no_avx2;
#endif
