// Portable: vectors of 4 floats, which GCC maps to what the target has (SSE2
// on x86-64, NEON on arm64).
#pragma GCC optimize("O3")
#define ISA(name) name##_portable
#define VW 4
#define BC(f) ((vec){(f), (f), (f), (f)})
#define STREAM(p, v) STORE(p, v)
#define STREAM_END
#include "tiles16.h"
#include "body.h"
