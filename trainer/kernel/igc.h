// The C side of package kernel. A kernel works on one block of 16 pictures and is
// compiled once for each instruction set. A team runs it on all blocks of a batch.
// The Go side checks all sizes before it calls.
#ifndef IGC_H
#define IGC_H

// The longest side of a kernel, and the most 1x1 factors of a block: as many as a name of IGCV2 may have.
enum { MAX_K = 7, MAX_MIXES = 19 };

// A round of the probe of bfloat16 has so many independent multiply-adds of pairs, of 16 pairs each.
enum { BF16_CHAINS = 16 };
// One of AMX has so many steps, of tiles of 16 by 16 sums of 16 pairs each.
enum { TILE_STEPS = 4 };

// What the fields bf16 say of the precision: 0 is float32.
enum { IGC_BF16 = 1, IGC_AMX = 2 };

// igc_mix is a 1x1 factor of a block: it mixes the channels in partitions of K
// channels that lie step apart. K*step divides the number of channels.
typedef struct {
	long K, step;
} igc_mix;

// igc_conv describes one convolution block: an optional normalisation and
// ReLU of the input, L primary KH x KW convolutions of Ci to Co channels, zero
// padding of half a kernel, and then the 1x1 factors mix, one after the other.
// The output is (OH, OW) = (H, W) / stride, rounded up.
//
// Channel i of n of a partition p whose channels lie step apart is number
// p/step*n*step + i*step + p%step.
//
// Sizes are element counts. Pictures are (H, C, W, 16): row h, channel c,
// column w, lane n lie at ((h*C + c)*W + w)*16 + n, and begin at a multiple of
// 64 bytes; of bfloat16 with an odd W of 32. They are float32, and with bf16 bfloat16 behind the same pointers;
// all else is float32 or float64 in both.
typedef struct {
	long H, W;      // picture size
	long KH, KW;    // kernel size, both odd, at most MAX_K
	long stride;    // 1 or 2
	long L, Ci, Co; // primary partitions, channels in and out of each
	long step_in, step_out; // how far apart the channels of a primary partition lie; 1 with mixes
	long mixes;     // how many; 0: the primary convolution only
	igc_mix mix[MAX_MIXES];
	long between;   // a ReLU between the primary convolution and the mixes
	long linear;    // no ReLU follows the normalisation of the input
	// x, z, y, g and gx are bfloat16, and so is what products multiply; with IGC_AMX they are added in AMX's order.
	long bf16;
	long pictures;  // x is float32 in any case
	long valid;     // pictures in this block, 1..16; the other lanes are padding

	const float *x;     // (H, L*Ci, W, 16) input: pictures, or the previous block's z
	const float *scale; // (L*Ci) a = max(0, scale*x + shift), linear a = scale*x + shift; NULL: a = x
	const float *shift; // (L*Ci)
	const float *wp;    // (L*Co, Ci, KH, KW) primary.weight
	const float *ws;    // (L*Co, K) of each mix, one after the other: row p*K + k makes channel k of partition p
	float *z;           // (OH, L*Co, OW, 16) output, before its normalisation
	float *y;           // (OH, L*Co, OW, 16) output of the primary convolutions; NULL: backward computes it again
	double *sum;        // (L*Co) sum of z over positions and valid lanes; may be NULL
	double *sumsq;      // (L*Co) sum of z*z

	// Backward only.
	const float *wpt;   // (L*Ci, Co, KH, KW) primary.weight, in and out exchanged, turned by 180 degrees
	const float *wst;   // ws, each K x K matrix transposed
	const float *g;     // (OH, L*Co, OW, 16) gradient of relu(bn(z)) times the ReLU's
	// (L*Co) if not NULL, g is (L*Co, 16) float32, the same at every position, and the ReLU's gradient is still missing: it is
	// 1 where gscale*z + gshift > 0.
	const float *gscale, *gshift;
	const float *ca, *cb, *cc; // (L*Co) gradient of z = ca*g + cb*z + cc
	float *gx;          // (H, L*Ci, W, 16) gradient of a, times the ReLU's if there is one; may be NULL
	double *gsum;       // (L*Ci) sum of gx; only with a scale
	double *gxsum;      // (L*Ci) sum of gx*x
	float *dwp;         // (L*Co, Ci, KH, KW) this block's share of the gradient
	float *dws;         // as ws

	float *scratch;     // igc_scratch() floats; a team sets its thread's
	long amx;           // AMX multiplies; a team sets it where bf16 is IGC_AMX and the machine has it
} igc_conv;

// igc_head describes the end of the network on one block: normalisation,
// ReLU, global average pool, linear layer, softmax and cross-entropy.
typedef struct {
	long H, W, C, K;    // picture size, channels, classes
	long valid;
	long linear;        // there is no ReLU
	long bf16;          // x is bfloat16
	const float *x;     // (H, C, W, 16)
	const float *scale, *shift; // (C)
	float *pool;        // (C, 16)
	float *open, *openx; // (C, 16) number of positions that the ReLU lets pass, and the sum of x there; may be NULL
	const float *w, *bias; // (K, C), (K)
	float *logits;      // (K, 16)
	const float *labels; // (16) class numbers
	float gain;         // gradient of the total loss by the loss of a picture: 1/N for a mean
	float *dlogits;     // (K, 16)
	double *loss;       // (16) cross-entropy of each valid lane, in nats
	float *dw, *db;     // (K, C), (K) this block's share
	float *dpool;       // (C, 16)
	float *gx;          // (C, 16) gradient of relu(bn(x)) at each position
	double *gsum, *gxsum; // (C) sums of gx times the ReLU's, and of that times x
} igc_head;

// igc_add describes out = relu(scale*z + shift + b) on one block. b is x; with a
// bscale it is bscale*x + bshift; without x it is 0. Sizes are (H, C, W, 16) where
// not given.
typedef struct {
	long H, W, C;
	long linear;        // there is no ReLU
	long bf16;          // z, x, out, gx and, if it is not pooled, g are bfloat16
	const float *z, *scale, *shift; // scale, shift (C)
	const float *x, *bscale, *bshift;
	float *out;
	long pooled;        // g is (C, 16) float32, the same at every position
	const float *g;     // gradient of out
	float *gx;          // g times the ReLU's: gradient of both terms; may be g
	double *gsum;       // (C) sum of gx
	double *gzsum, *gxsum; // (C) sums of gx*z and, with a bscale, of gx*x
} igc_add;

// igc_max describes the largest of 3x3 positions of a = relu(scale*x + shift),
// stride 2, padding 1, on one block.
typedef struct {
	long H, W, C;       // of the input; the output is (OH, OW), half, rounded up
	long bf16;          // x, out, g and gx are bfloat16
	const float *x, *scale, *shift; // (H, C, W, 16), (C), (C)
	float *out;         // (OH, C, OW, 16)
	const float *g;     // (OH, C, OW, 16) gradient of out
	float *gx;          // (H, C, W, 16) gradient of a times the ReLU's
	double *gsum, *gxsum; // (C) sums of gx and gx*x
} igc_max;

// igc_probe measures a thread: rounds of multiply-adds that use no memory, or, with
// src, a copy of n floats.
typedef struct {
	long rounds;
	long bf16;     // multiply-adds of pairs of bfloat16
	long amx;      // as in igc_conv
	const float *src;
	float *dst;
	long n;
	double result; // without it, the compiler would omit the work
} igc_probe;

// igc_rows lets a thread run one micro-kernel n times on one row, for measurements.
// The numbers in its scratch memory may be any.
typedef struct {
	igc_conv conv;
	int micro;
	long n;
} igc_rows;

// The micro-kernels of a row, by number.
enum { IGC_PRIMARY, IGC_SECONDARY, IGC_PRIMARY_GRAD, IGC_SECONDARY_GRAD };

#define IGC_DECLARE_BF16(isa)                             \
	void igc_bf16_conv_forward_##isa(const igc_conv *);   \
	void igc_bf16_conv_backward_##isa(const igc_conv *);  \
	void igc_bf16_pool_forward_##isa(const igc_head *);   \
	void igc_bf16_pool_backward_##isa(const igc_head *);  \
	void igc_bf16_linear_forward_##isa(const igc_head *); \
	void igc_bf16_linear_backward_##isa(const igc_head *); \
	void igc_bf16_add_forward_##isa(const igc_add *);     \
	void igc_bf16_add_backward_##isa(const igc_add *);    \
	void igc_bf16_max_forward_##isa(const igc_max *);     \
	void igc_bf16_max_backward_##isa(const igc_max *);    \
	void igc_bf16_sum_##isa(float *, const float *, long n); \
	void igc_bf16_row_##isa(const igc_conv *, int micro, long n); \
	void igc_bf16_probe_##isa(igc_probe *);

// Kernels of bfloat16 have the same bits with every instruction set. native has
// vdpbf16ps, the others do the same by multiply-adds of float32, and are slow.
IGC_DECLARE_BF16(native)
IGC_DECLARE_BF16(avx2)
IGC_DECLARE_BF16(portable)

#define IGC_DECLARE(isa)                                  \
	void igc_conv_forward_##isa(const igc_conv *);        \
	void igc_conv_backward_##isa(const igc_conv *);       \
	void igc_pool_forward_##isa(const igc_head *);        \
	void igc_pool_backward_##isa(const igc_head *);       \
	void igc_linear_forward_##isa(const igc_head *);      \
	void igc_linear_backward_##isa(const igc_head *);     \
	void igc_add_forward_##isa(const igc_add *);          \
	void igc_add_backward_##isa(const igc_add *);         \
	void igc_max_forward_##isa(const igc_max *);          \
	void igc_max_backward_##isa(const igc_max *);         \
	void igc_sum_##isa(float *, const float *, long n);   \
	void igc_row_##isa(const igc_conv *, int micro, long n); \
	void igc_probe_##isa(igc_probe *);

IGC_DECLARE(avx512)
IGC_DECLARE(avx2)
IGC_DECLARE(portable)

// igc_team is a number of threads with an instruction set: 2 avx512, 1 avx2,
// 0 portable. scratch has `each` floats for each thread: the largest igc_scratch() of
// its calls. igc_team_new returns NULL if there is no memory or no thread.
typedef struct igc_team igc_team;
igc_team *igc_team_new(int isa, int threads, float *scratch, long each);
// igc_team_emulate makes the team multiply bfloat16 without AMX, and with a bf16 of IGC_BF16
// without vdpbf16ps too.
void igc_team_emulate(igc_team *, long bf16);
// igc_team_native returns whether the team has the instruction of a precision: vdpbf16ps of
// IGC_BF16, AMX of IGC_AMX.
int igc_team_native(const igc_team *, long bf16);
void igc_team_free(igc_team *);

// Each op runs n calls, one for each block, and returns when all are done.
void igc_conv_forward(igc_team *, const igc_conv *, long n);
void igc_conv_backward(igc_team *, const igc_conv *, long n);
void igc_pool_forward(igc_team *, const igc_head *, long n);
void igc_pool_backward(igc_team *, const igc_head *, long n);
void igc_linear_forward(igc_team *, const igc_head *, long n);
void igc_linear_backward(igc_team *, const igc_head *, long n);
void igc_xent(igc_team *, const igc_head *, long n); // loss and dlogits from logits and labels
void igc_add_forward(igc_team *, const igc_add *, long n);
void igc_add_backward(igc_team *, const igc_add *, long n);
void igc_max_forward(igc_team *, const igc_max *, long n);
void igc_max_backward(igc_team *, const igc_max *, long n);
// igc_sums: to += from, n floats, or with bf16 bfloat16.
typedef struct {
	float *to;
	const float *from;
	long n;
	long bf16;
} igc_sum;
void igc_sums(igc_team *, const igc_sum *, long n);
void igc_probe_all(igc_team *, igc_probe *, long n);
void igc_row(igc_team *, const igc_rows *, long n);

// igc_scratch returns how many floats of scratch a block needs.
long igc_scratch(const igc_conv *);
// igc_xent_block is igc_xent of one block.
void igc_xent_block(const igc_head *);
// igc_exp and igc_log are exp(x) for x <= 0 and log(x) for x >= 1, with the same bits on every processor.
double igc_exp(double x);
double igc_log(double x);
// igc_nesterov: v = mu*v + d; w -= lr*(d + mu*v), with d = g + decay*w.
void igc_nesterov(float *w, float *v, const float *g, long n, float lr, float mu, float decay);
// igc_best returns the number of the best instruction set of this machine.
int igc_best(void);
// igc_has_native returns whether this machine has vdpbf16ps.
int igc_has_native(void);
// igc_has_amx returns whether it has AMX for bfloat16, and the system lets this process use it.
int igc_has_amx(void);

#endif
