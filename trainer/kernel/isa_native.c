// AVX-512 with vdpbf16ps: the kernels of bfloat16 only.
#if defined(__x86_64__)
#pragma GCC optimize("O3")
#pragma GCC target("avx512f,avx512dq,avx512bw,avx512vl,avx512bf16,avx2,fma")
#include <immintrin.h>
#define BF16(name) name##_native
#include "bf16.h"
#else
typedef int igc_no_native;
#endif
