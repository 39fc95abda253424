// AVX2 with FMA: 16 registers of 8 floats.
#if defined(__x86_64__)
#pragma GCC optimize("O3")
#pragma GCC target("avx2,fma")
#define ISA(name) name##_avx2
#define VW 8
#define BC(f) ((vec){(f), (f), (f), (f), (f), (f), (f), (f)})
#define CONV_OT 4
#define CONV_P1 8
#define CONV_P2 4
#define CONV_P3 4
#define CONV_P4 2
#define MIX_OT 4
#define MIX_PT 2
#define MIXGRAD_AT 4
#define MIXGRAD_BT 2
#define CONVGRAD_OT 2
#define CONVGRAD_R1 3
#define CONVGRAD_R2 2
#define FMA_CHAINS 12
#include "body.h"
#else
typedef int igc_no_avx2;
#endif
