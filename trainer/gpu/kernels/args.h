// The arguments of the kernels: one structure each. The Go side fills them, so
// they are plain C, and a pointer there is a number: the device's address.
//
// Activations are (B, C, H, W, 32): blocks of 32 pictures, the pictures of a
// block innermost, so that a warp reads one pixel of 32 pictures in one piece
// whatever L and M are, and a weight is the same number for all its threads.
// Picture n of a batch is lane n%32 of block n/32; lanes beyond the batch are
// padding: computed, but never counted. Weights have PyTorch's shapes. Sizes are
// element counts.
#pragma once

#ifdef IGC_DEVICE
#define PTR(T) T *
#else
#define PTR(T) unsigned long long
#endif

#define LANES 32

// What changes from step to step and is not known when a step is recorded.
typedef struct {
	int step;    // of the epoch
	int first;   // of an evaluation: the first picture of the batch
	int correct; // of an evaluation, so far
	int total;   // pictures of the order; what is beyond is no picture
	int odd;     // some normalisation met what is no number: so is the loss
	double loss; // of an evaluation, so far: the sum over its pictures
} igc_state;

// A normalisation, for the kernel that makes its sums: the last of its thread blocks adds up the parts of the sums and
// writes what depends on them (norm.h). Forward, with the sums of z and z², these are scale and shift, which make the
// normalised tensor out of z. Backward, with those of g and g·z, where g is the gradient of the normalised tensor: the
// gradients of weight and bias, and ca, cb, cc, which make the gradient of z: ca·g + cb·z + cc.
typedef struct {
	float epsilon, factor;
	double count, inverse;   // values of a channel; 1/count
	PTR(int) counters;       // one for each blockIdx.y, 0 before and after each launch; 0: the sums are all that is wanted
	PTR(const float) weight; // (c), as all that follow but measured
	PTR(const float) bias;
	PTR(float) running_mean; // forward
	PTR(float) running_var;
	PTR(float) scale;
	PTR(float) shift;
	PTR(double) mean;        // written forward, read backward; of measured not written
	PTR(double) istd;
	PTR(double) measured;    // (c, 3), as in igc_measured: is added to, and the running statistics stay; 0: they move
	PTR(igc_state) state;
	PTR(float) dweight;      // backward
	PTR(float) dbias;
	PTR(float) ca;
	PTR(float) cb;
	PTR(float) cc;
} igc_norm;

// How far apart the channels of a group lie: channel i of group g, of n channels, is number g/by·n·by + i·by + g%by. With 1
// they are neighbours, with as many groups as that each group has every by-th channel.
typedef struct {
	int by;
	unsigned inverse; // ⌈2³¹/by⌉: g/by is 2·g·inverse/2³², rounded down, if g·by is below 2³¹
} igc_step;

// A convolution of groups·ci to groups·co channels, forward or for the gradient
// of its input, with what lies on its way in and out.
//
// What is read is a = max(low, scale·x + shift), or, by the kernels of two
// inputs, the gradient of a normalised tensor, scale·x + scale2·x2 + shift, in
// lanes that hold a picture and 0 in the others.
typedef struct {
	int H, W, OH, OW;   // of what is read and written
	int groups, ci, co; // channels of a group, read and written
	igc_step in, out;   // of the channels read and written
	int transposed;     // w is (groups·ci, co, KH, KW): of the gradient of the input
	int turned;         // and each kernel is turned by 180°
	int tiles;          // of output channels in one thread block
	int chunk;          // input channels whose weights lie in shared memory at once
	int n;              // pictures
	int parts;          // of the sums
	int kh, kw, stride; // read by conv_any only, and so is up: output from input
	int up;             // positions (up = 0), or input from output positions
	int pixels;         // of a warp; read by the kernels of conv_tc.h only

	PTR(const float) x;      // (B, groups·ci, H, W, 32)
	PTR(const float) x2;     // the same
	PTR(const float) scale;  // (groups·ci); 0: 1
	PTR(const float) scale2; // (groups·ci)
	PTR(const float) shift;  // (groups·ci); 0: 0
	PTR(const float) w;      // (groups·co, ci, KH, KW)
	PTR(float) z;            // (B, groups·co, OH, OW, 32)
	PTR(float) dz;           // as x: what was made of two inputs, for the gradient of the weights; 0: not wanted; not by conv_any

	// The output becomes 0 where mscale·mx + mshift is not above mlow.
	PTR(const float) mx;     // as z; 0: no mask
	PTR(const float) mscale; // (groups·co); 0: 1
	PTR(const float) mshift; // (groups·co)
	PTR(float) sums;         // (groups·co, parts, 2): of z and z·mx, of z² without mx, over the pictures; 0: not wanted
	igc_norm norm;           // whose sums they are
	float low, mlow;
} igc_conv;

// The gradient of a convolution's weights by the pictures of some rows.
typedef struct {
	int H, W, OH, OW; // of the input and the output
	int groups, ci, co;
	igc_step in, out; // of the channels of x and of g
	int n;
	int rows;         // of the output in a part
	int parts;        // of all rows of all blocks of pictures
	int tasks;        // tiles of the weights
	int across;       // tasks of a thread block, whose other warps take the same of other parts
	int kh, kw, stride;

	PTR(const float) x;     // (B, groups·ci, H, W, 32): the input is max(low, scale·x + shift)
	PTR(const float) scale; // (groups·ci); 0: 1
	PTR(const float) shift; // (groups·ci)
	PTR(const float) g;     // (B, groups·co, OH, OW, 32): the gradient of the output is ca·g + cb·z + cc
	PTR(const float) z;     // the same
	PTR(const float) ca;    // (groups·co); 0: it is g
	PTR(const float) cb;    // (groups·co)
	PTR(const float) cc;    // (groups·co)
	PTR(float) dw;          // (B·⌈OH/rows⌉, groups·co, ci, KH, KW)
	float low;
} igc_weight_grad;

// Where the weight and the bias of a normalisation's channel lie in the parameters.
typedef struct {
	int weight, bias;
} igc_affine;

// Scale and shift of all normalisations of an evaluation.
typedef struct {
	int c;                        // channels of all of them
	float epsilon;
	PTR(const igc_affine) affine; // (c)
	PTR(const float) value;       // all parameters
	PTR(const float) mean;        // (c)
	PTR(const float) variance;    // (c)
	PTR(float) scale;             // (c)
	PTR(float) shift;             // (c)
	PTR(igc_state) state;
} igc_running;

// The precise statistics of all normalisations, from what was measured.
typedef struct {
	int c;                      // channels of all of them
	PTR(const double) measured; // (c, 3): the sum of z, of z², and how many values
	PTR(float) mean;            // (c)
	PTR(float) variance;        // (c): unbiased
} igc_measured;

// A residual unit's end, out = max(low, scale·z + shift + b) with b = xscale·x +
// xshift, x, or 0 without an x; a 3×3 max pool of stride 2, of max(0, scale·z +
// shift); the global average pool of max(low, scale·z + shift).
typedef struct {
	int c, h, w;             // of what is read
	int n, parts;
	PTR(const float) z;      // (B, c, h, w, 32)
	PTR(const float) scale;  // (c); 0, of the pool: 1
	PTR(const float) shift;  // (c)
	PTR(const float) x;      // as z
	PTR(const float) xscale; // (c)
	PTR(const float) xshift; // (c)
	PTR(float) out;          // as z; of max_pool (B, c, ⌈h/2⌉, ⌈w/2⌉, 32), of pool (B, c, 32)
	PTR(const float) g;      // as out: its gradient
	PTR(float) gx;           // as z: the gradient of what the ReLU let pass
	PTR(float) sums;         // (c, parts, 2): of gx and gx·z
	PTR(float) xsums;        // (c, parts, 2): of gx and gx·x
	igc_norm norm, xnorm;    // whose sums they are
	float low;               // 0: a ReLU; −∞: none, and add_grad needs no out
} igc_unit;

// to = a + b.
typedef struct {
	long long len;
	PTR(float) to;
	PTR(const float) a;
	PTR(const float) b;
} igc_sum;

// One picture of the order in which they are shown.
typedef struct {
	int picture;
	signed char dy, dx, mirror, unused; // as dataset.View
} igc_show;

// The batch: pictures from the bytes of the data set, cropped, mirrored and
// normalised.
typedef struct {
	int c, h, w;
	int batch;                   // pictures of a step
	int evaluating;              // the batch begins at first, else at step·batch
	PTR(const unsigned char) pixels; // (N, c, h, w)
	PTR(const int) labels;       // (N)
	PTR(const igc_show) order;   // (total)
	PTR(const float) table;      // (c, 256): the normalised value of a byte
	PTR(float) x;                // (B, c, h, w, 32)
	PTR(int) y;                  // (B, 32); −1: no picture
	PTR(const igc_state) state;
} igc_batch;

// The batch from the layout of the host, (⌈n/16⌉, h, c, w, 16).
typedef struct {
	int c, h, w;
	int n;
	PTR(const float) from;
	PTR(float) x;                // (B, c, h, w, 32)
} igc_repack;

// The network's end: logits, loss, their gradients.
typedef struct {
	int c, k;                  // channels, classes
	int blocks;
	float gain;                // of a picture's loss in the batch's: 1/n
	PTR(const float) pool;     // (B, c, 32)
	PTR(const float) weight;   // (k, c)
	PTR(const float) bias;     // (k)
	PTR(float) logits;         // (B, k, 32)
	PTR(const int) labels;     // (B, 32); −1: no picture
	PTR(float) dlogits;        // (B, k, 32); 0: not wanted
	PTR(float) loss;           // (B, 32)
	PTR(int) correct;          // (B, 32)
	PTR(float) dpool;          // (B, c, 32)
	PTR(float) dweight;        // (k, c)
	PTR(float) dbias;          // (k)
} igc_head;

// One run of elements of the parameters, at most 256 long.
typedef struct {
	long long from;            // in the parameters
	int len;
	int decays;
	long long part;            // in parts: the first partial sum of the first element; −1: the gradient stands in grad
	int stride, parts;         // partial sums of an element are stride apart
} igc_segment;

// What changes from step to step of the optimiser.
typedef struct {
	float learning;
	float average;             // share of the new weights in their average
} igc_rates;

// The update of all parameters: the sum of the parts of their gradients, then
// d = grad + decay·w, v = momentum·v + d, w = w − learning·(d + momentum·v), and
// average = average + share·(w − average).
typedef struct {
	float momentum, decay;
	PTR(const igc_segment) segments;
	PTR(const float) parts;
	PTR(const igc_rates) rates; // (steps); 0: the gradients only
	PTR(const igc_state) state;
	PTR(float) value;
	PTR(float) velocity;
	PTR(float) average;        // 0: not kept
	PTR(float) grad;
} igc_update;

// The contents of a and b, swapped.
typedef struct {
	long long len;
	PTR(float) a;
	PTR(float) b;
} igc_exchange;

// The kernel of a convolution that is the sum of several.
typedef struct {
	long long len;
	int branches;
	PTR(const float) from;     // (branches, len)
	PTR(float) to;             // (len)
} igc_branches;

// The end of a step, or of a batch without one: the sums of loss and correct
// pictures, and the step counted.
typedef struct {
	int lanes;                 // B·32
	int batch;
	int evaluating;
	PTR(const float) loss;     // (B, 32)
	PTR(const int) correct;    // (B, 32)
	PTR(igc_state) state;
	PTR(double) losses;        // (steps): the mean of each; evaluating: [0] has the sum so far
	PTR(int) corrects;         // (steps); evaluating: [0] has the sum so far
} igc_finish;
