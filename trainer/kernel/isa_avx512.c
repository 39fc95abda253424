// AVX-512: 32 registers of 16 floats.
#if defined(__x86_64__)
#pragma GCC optimize("O3")
#pragma GCC target("avx512f,avx512dq,avx512bw,avx512vl,avx2,fma")
#include <immintrin.h>
#define ISA(name) name##_avx512
#define VW 16
#define BC(f) ((vec){(f), (f), (f), (f), (f), (f), (f), (f), (f), (f), (f), (f), (f), (f), (f), (f)})
#define STREAM(p, v) _mm512_stream_ps(p, (__m512)(v))
#define STREAM_END _mm_sfence()
#define KEEP 32
#define CONV_OT 4
#define CONV_P1 8
#define CONV_P2 8
#define CONV_P3 8
#define CONV_P4 4
#define MIX_OT 6
#define MIX_PT(ot) 4
#define MIXGRAD_AT 4
#define MIXGRAD_BT 5
#define CONVGRAD_OT 4
#define CONVGRAD_Q 2
#define CONVGRAD_R1 3
#define CONVGRAD_R2 3
#define CONVGRAD_R3 2
#define CONVGRAD_R4 2
#define FMA_CHAINS 16
#include "body.h"
#else
typedef int igc_no_avx512;
#endif
