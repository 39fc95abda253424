// bfloat16 by plain C: where a processor has no fused multiply-add, a slow function does it.
#pragma GCC optimize("O3,fp-contract=off")
#define BF16(name) name##_portable
#define put_past(p, v, half, columns) put(p, v, half)
#define PAST_END
#include "bf16.h"
