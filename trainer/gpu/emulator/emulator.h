/* Kernel sources as C++: this header is included before each of them and gives what CUDA's compiler has built in, as far
 * as our kernels need it. Which names there are is a list of what kernels may use; the rest does not compile.
 *
 * A thread of a kernel is a fiber (threads.cpp). Only barriers and the exchanges between the lanes of a warp switch from
 * one to the next, and all of the launch happens in one thread of the host, so blocks and their threads see one another's
 * writes at any time: that a barrier is missing shows when the order changes (IGC_EMULATED_ORDER) and in the checked
 * library (checks.cpp). */
#pragma once
#include <math.h>
#include <stdint.h>
#include <string.h>

#define __device__
#define __host__
#define __forceinline__ inline __attribute__((always_inline))
#define __align__(n) __attribute__((aligned(n)))

typedef unsigned int uint;
struct uint3 { uint x, y, z; };
struct dim3 { uint x, y, z; };
struct alignas(8) float2 { float x, y; };
struct alignas(16) float4 { float x, y, z, w; };
struct alignas(8) int2 { int x, y; };
struct alignas(16) int4 { int x, y, z, w; };
struct alignas(8) uint2 { uint x, y; };
struct alignas(16) uint4 { uint x, y, z, w; };
static inline float2 make_float2(float x, float y) { return {x, y}; }
static inline float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }
static inline int2 make_int2(int x, int y) { return {x, y}; }
static inline int4 make_int4(int x, int y, int z, int w) { return {x, y, z, w}; }
static inline uint2 make_uint2(uint x, uint y) { return {x, y}; }
static inline uint4 make_uint4(uint x, uint y, uint z, uint w) { return {x, y, z, w}; }

/* Of the thread that runs now. */
extern uint3 threadIdx, blockIdx;
extern dim3 blockDim, gridDim;
enum { warpSize = 32 };

namespace igc {

struct Kernel {
	const char *name;
	void (*run)(const void *args);
	size_t bytes;     /* of args */
	unsigned threads; /* a block, at most */
	unsigned registers; /* a thread, on the device where it takes most; 0: not known */
	Kernel *next;
	Kernel(const char *name, void (*run)(const void *), size_t bytes, unsigned threads);
};

extern unsigned char *shared;

enum Exchange { FROM, XOR, DOWN, UP, BALLOT, SYNC, MATRIX };

/* wait_block returns when all threads of the block that have not ended wait in it, exchange when all lanes in mask do. */
void wait_block(const char *file, int line);
uint64_t exchange(Exchange what, uint mask, uint64_t value, int operand, int width, const char *file, int line);
void fail(const char *what, const char *file, int line);

template <class T> T shuffle(Exchange what, const char *file, int line, uint mask, T value, int operand, int width = 32) {
	static_assert(sizeof(T) == 4 || sizeof(T) == 8, "a shuffle moves 4 or 8 bytes");
	uint64_t bits = 0;
	memcpy(&bits, &value, sizeof value);
	bits = exchange(what, mask, bits, operand, width, file, line);
	memcpy(&value, &bits, sizeof value);
	return value;
}

#ifdef IGC_CHECKED /* as checks.cpp tells of them */
void fence();
void counter(const void *p, size_t size);
void strong_read(const void *p, size_t size);
void constant_read(const void *p, size_t size);
#define IGC_UNCHECKED __attribute__((no_sanitize("thread"), noinline)) /* the access was told of */
#else
static inline void fence() {}
static inline void counter(const void *, size_t) {}
static inline void strong_read(const void *, size_t) {}
static inline void constant_read(const void *, size_t) {}
#define IGC_UNCHECKED __forceinline__
#endif
template <class T> static IGC_UNCHECKED T load(const T *p) { return *p; }
template <class T> static IGC_UNCHECKED void store(T *p, T value) { *p = value; }

/* A lane's share of a product of matrices, as the instruction mma.m16n8k8 has it: sums (16×8) += a (16×8) · b (8×8). */
struct Fragments {
	float *sums;      /* 4: (lane/4 + 8·(i/2), 2·(lane%4) + i%2) */
	const uint *a;    /* 4: (lane/4 + 8·(i%2), lane%4 + 4·(i/2)) */
	const uint *b;    /* 2: (lane%4 + 4·i, lane/4) */
};

static inline uint mask_or_all(uint mask = ~0u) { return mask; }

} // namespace igc

#define KERNEL(name, Args, threads) \
	static void name(const Args a); \
	static void name##_run(const void *args) { name(*static_cast<const Args *>(args)); } \
	static const igc::Kernel name##_entry(#name, name##_run, sizeof(Args), threads); \
	static inline void name([[maybe_unused]] const Args a)

#define KERNEL_FOR(name, Args, threads, resident) KERNEL(name, Args, threads)
#define SHARED(type, name) type *const name = reinterpret_cast<type *>(igc::shared)
#define OPAQUE(v) static_cast<void>(v)

#define __syncthreads() igc::wait_block(__FILE__, __LINE__)
#define __syncwarp(...) igc::exchange(igc::SYNC, igc::mask_or_all(__VA_ARGS__), 0, 0, 32, __FILE__, __LINE__)
#define __shfl_sync(...) igc::shuffle(igc::FROM, __FILE__, __LINE__, __VA_ARGS__)
#define __shfl_xor_sync(...) igc::shuffle(igc::XOR, __FILE__, __LINE__, __VA_ARGS__)
#define __shfl_down_sync(...) igc::shuffle(igc::DOWN, __FILE__, __LINE__, __VA_ARGS__)
#define __shfl_up_sync(...) igc::shuffle(igc::UP, __FILE__, __LINE__, __VA_ARGS__)
#define __ballot_sync(mask, p) uint(igc::exchange(igc::BALLOT, mask, (p) ? 1 : 0, 0, 32, __FILE__, __LINE__))
#define __any_sync(mask, p) int(__ballot_sync(mask, p) != 0)
#define __trap() igc::fail("__trap", __FILE__, __LINE__)
static inline void __threadfence() { igc::fence(); }
static inline void __threadfence_block() {}

template <class T> static __forceinline__ T __ldg(const T *p) { igc::constant_read(p, sizeof *p); return igc::load(p); }
template <class T> static __forceinline__ T __ldcg(const T *p) { igc::strong_read(p, sizeof *p); return igc::load(p); }
template <class T> static __forceinline__ void __stwb(T *p, T value) { *p = value; }
#define IGC_ATOMIC(name, T, value) \
	static __forceinline__ T name(T *p, T v) { \
		igc::counter(p, sizeof *p); \
		T old = igc::load(p); \
		igc::store(p, value); \
		return old; \
	}
IGC_ATOMIC(atomicAdd, int, old + v)
IGC_ATOMIC(atomicAdd, uint, old + v)
IGC_ATOMIC(atomicOr, int, old | v)
#undef IGC_ATOMIC

/* By macros, for a C library may have these names too, C23 does. */
static __forceinline__ float igc_rsqrt(float x) { return 1 / sqrtf(x); }
static __forceinline__ double igc_rsqrt(double x) { return 1 / sqrt(x); }
#define rsqrtf(x) igc_rsqrt(float(x))
#define rsqrt(x) igc_rsqrt(x)
static __forceinline__ float __fmaf_rn(float x, float y, float z) { return fmaf(x, y, z); }
static __forceinline__ float __fadd_rn(float x, float y) { return x + y; }
static __forceinline__ float __fmul_rn(float x, float y) { return x * y; }
static __forceinline__ float __fdividef(float x, float y) { return x / y; }
#define __expf(x) expf(x) /* glibc uses these two names */
#define __logf(x) logf(x)
static __forceinline__ int __popc(uint x) { return __builtin_popcount(x); }
static __forceinline__ int __clz(int x) { return x ? __builtin_clz(x) : 32; }
static __forceinline__ int __ffs(int x) { return __builtin_ffs(x); }
static __forceinline__ uint __umulhi(uint x, uint y) { return uint(uint64_t(x) * y >> 32); }
static __forceinline__ float __int_as_float(int x) { float y; memcpy(&y, &x, 4); return y; }
static __forceinline__ float __uint_as_float(uint x) { float y; memcpy(&y, &x, 4); return y; }
static __forceinline__ int __float_as_int(float x) { int y; memcpy(&y, &x, 4); return y; }
static __forceinline__ uint __float_as_uint(float x) { uint y; memcpy(&y, &x, 4); return y; }

/* The instruction cvt.rna.tf32.f32: to the nearest number with ten bits behind the point, of two the one that is farther
 * from 0. */
static __forceinline__ uint igc_tf32(float x) {
	const uint bits = __float_as_uint(x);
	return x != x ? 0x7fffe000 : (bits + 0x1000) & 0xffffe000;
}
/* The instruction mma.sync.aligned.m16n8k8 of TF32 numbers. A GPU does not say how it adds the eight products; here they
 * are added to the sum one after another, in float32. */
#define igc_mma_tf32(sums, a, b) igc::multiply(sums, a, b, __FILE__, __LINE__)
namespace igc {
static inline void multiply(float (&sums)[4], const uint (&a)[4], const uint (&b)[2], const char *file, int line) {
	if ((a[0] | a[1] | a[2] | a[3] | b[0] | b[1]) & 0x1fff)
		fail("an operand of igc_mma_tf32 does not come from igc_tf32", file, line);
	Fragments f = {sums, a, b};
	exchange(MATRIX, ~0u, uint64_t(&f), 0, 32, file, line);
}
} // namespace igc

#define IGC_MIN_MAX(T) \
	static __forceinline__ T min(T x, T y) { return y < x ? y : x; } \
	static __forceinline__ T max(T x, T y) { return x < y ? y : x; }
IGC_MIN_MAX(int)
IGC_MIN_MAX(uint)
IGC_MIN_MAX(long)
IGC_MIN_MAX(unsigned long)
IGC_MIN_MAX(long long)
IGC_MIN_MAX(unsigned long long)
#undef IGC_MIN_MAX
static __forceinline__ float min(float x, float y) { return fminf(x, y); }
static __forceinline__ float max(float x, float y) { return fmaxf(x, y); }
static __forceinline__ double min(double x, double y) { return fmin(x, y); }
static __forceinline__ double max(double x, double y) { return fmax(x, y); }
