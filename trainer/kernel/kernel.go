// Package kernel has all CPU arithmetic of a training step: the C kernels, the
// checks before them, and the plain Go oracle that tests them.
//
// Layout. Activations are (B, H, C, W, 16): B blocks of 16 pictures, the 16
// pictures of a block innermost, and a row of all channels in one piece, since
// the kernels go row by row. Picture n of a batch is lane n%16 of block n/16.
// Lanes beyond the batch are padding: they are computed, but never counted. So a
// vector is one pixel of 16 pictures and every weight is a scalar, and any L and M
// is the same dense arithmetic. Weights have PyTorch's shapes. All sizes are
// element counts.
//
// Precision. With BF16 and AMX activations and their gradients are bfloat16, and so is all
// that a convolution multiplies. They lie in the same slices of float32, two in
// each: a slice has Precision.Floats floats. Weights, their gradients, statistics
// and what follows the pool are float32 and float64 as ever. docs/bfloat16.md has
// the rules.
//
// Deferred normalisation. Between two convolutions the network normalises and
// applies ReLU. Both are affine in each channel once the batch's statistics are
// known. So a convolution stores its raw output z with the sums of z and z·z. The
// kernel that reads z computes a = max(0, scale·z + shift) forward, and
// dz = ca·g + cb·z + cc from the masked gradient g backward. The activations are
// written once and never copied.
//
// All memory of the kernels lies outside the Go heap, in an Arena.
package kernel

/*
#cgo CFLAGS: -O3 -Wall -Wno-psabi
#cgo LDFLAGS: -lm -lpthread
#include "igc.h"
*/
import "C"

import (
	"fmt"
	"os"
	"sync"
	"unsafe"
)

// Lanes is the number of pictures in a block.
const Lanes = 16

// Blocks returns how many blocks hold n pictures.
func Blocks(n int) int { return (n + Lanes - 1) / Lanes }

// ISA is an instruction set that the kernels are compiled for. In float32 each has
// bits of its own, since the order of sums depends on the width of a vector.
type ISA int

// The instruction sets; the widest is last.
const (
	Portable ISA = iota
	AVX2
	AVX512
)

func (i ISA) String() string { return [...]string{"portable", "avx2", "avx512"}[i] }

// Available lists the instruction sets of this machine; the best is first.
func Available() []ISA {
	var list []ISA
	for i := ISA(C.igc_best()); i >= Portable; i-- {
		list = append(list, i)
	}
	return list
}

// Detect returns the instruction set to use: the one that the environment
// variable IGC_ISA names, else the best of this machine. It is an error if this
// machine has no instruction set of that name.
var Detect = sync.OnceValues(func() (ISA, error) { return choose(os.Getenv("IGC_ISA")) })

func choose(name string) (ISA, error) {
	all := Available()
	if name == "" {
		return all[0], nil
	}
	for _, i := range all {
		if i.String() == name {
			return i, nil
		}
	}
	return 0, fmt.Errorf("IGC_ISA=%s: this machine has %v", name, all)
}

// Precision says what activations are stored as and what convolutions multiply.
type Precision int

// The precisions.
const (
	F32 Precision = 0
	// BF16 has the same bits with every instruction set. Its products are added in the
	// order of vdpbf16ps.
	BF16 Precision = C.IGC_BF16
	// AMX is BF16 with the products of convolutions added in the order of AMX's matrix
	// units, and has the same bits with every instruction set too.
	AMX Precision = C.IGC_AMX
)

func (p Precision) String() string { return [...]string{"f32", "bf16", "bf16-amx"}[p] }

// Floats is how many floats of memory n values take. n is even.
func (p Precision) Floats(n int) int {
	if p != F32 {
		return n / 2
	}
	return n
}

func (p Precision) c() C.long { return C.long(p) }

// Geometry gives the sizes of a convolution block: L primary KH×KW convolutions
// of Ci to Co channels with zero padding of half a kernel, and then the 1×1
// factors Mixes, one after the other. An IGC block has Ci = Co = M and the mix
// {L, M}; a regular convolution is L = 1 without mixes.
type Geometry struct {
	Precision Precision
	Pictures  bool // the input is float32 in any precision

	H, W      int // of the input
	KH, KW    int // odd, at most 7
	Stride    int // 1 or 2
	L, Ci, Co int
	// StepIn and StepOut are how far apart the channels of a primary partition
	// lie in the input and in the output: 1 if they are neighbours. Channel i of
	// n of partition l is number l/step·n·step + i·step + l%step. Both are 1
	// with mixes.
	StepIn, StepOut int
	Mixes           []Mix // at most 19
	// Between is set for a ReLU between the primary convolution and the mixes.
	Between bool
}

// Mix is a 1×1 factor of a block. It mixes the channels in partitions of K
// channels that lie Step apart; K·Step divides their number.
type Mix struct{ K, Step int }

// Size returns the height and width of the output: H and W over the stride,
// rounded up.
func (g Geometry) Size() (h, w int) {
	return (g.H + g.Stride - 1) / g.Stride, (g.W + g.Stride - 1) / g.Stride
}

// In is the number of channels read.
func (g Geometry) In() int { return g.L * g.Ci }

// Out is the number of channels written.
func (g Geometry) Out() int { return g.L * g.Co }

// InLen is the length of the slice of a block's input, (H, In, W, 16).
func (g Geometry) InLen() int {
	n := g.H * g.In() * g.W * Lanes
	if g.Pictures {
		return n
	}
	return g.Precision.Floats(n)
}

// OutLen is the length of the slice of a block's output, (OH, Out, OW, 16).
func (g Geometry) OutLen() int {
	h, w := g.Size()
	return g.Precision.Floats(h * g.Out() * w * Lanes)
}

// PrimaryLen is the length of the primary weights, (L·Co, Ci, KH, KW).
func (g Geometry) PrimaryLen() int { return g.L * g.Co * g.Ci * g.KH * g.KW }

// MixesLen is the length of the weights of all mixes: (L·Co, K) of each, one
// after the other.
func (g Geometry) MixesLen() int {
	n := 0
	for _, m := range g.Mixes {
		n += g.MixLen(m)
	}
	return n
}

// MixLen is the length of the weights of one mix, (L·Co, K).
func (g Geometry) MixLen(m Mix) int { return g.Out() * m.K }

// ScratchLen is how many floats of scratch a thread needs.
func (g Geometry) ScratchLen() int {
	a := g.c()
	return int(C.igc_scratch(&a))
}

func (g Geometry) c() C.igc_conv {
	if g.KH%2 == 0 || g.KW%2 == 0 || max(g.KH, g.KW) > C.MAX_K || g.Stride != 1 && g.Stride != 2 {
		panic(fmt.Sprintf("kernel: %d×%d kernels with stride %d", g.KH, g.KW, g.Stride))
	}
	a := C.igc_conv{H: C.long(g.H), W: C.long(g.W), L: C.long(g.L), Ci: C.long(g.Ci), Co: C.long(g.Co)}
	a.bf16, a.pictures = g.Precision.c(), flag(g.Pictures)
	a.KH, a.KW, a.stride = C.long(g.KH), C.long(g.KW), C.long(g.Stride)
	if g.StepIn < 1 || g.StepOut < 1 || g.L%g.StepIn != 0 || g.L%g.StepOut != 0 {
		panic(fmt.Sprintf("kernel: channels %d and %d apart of %d partitions", g.StepIn, g.StepOut, g.L))
	}
	if len(g.Mixes) > 0 && g.StepIn*g.StepOut > 1 || g.Between && len(g.Mixes) == 0 || len(g.Mixes) > C.MAX_MIXES {
		panic(fmt.Sprintf("kernel: %d mixes, at most %d, behind steps of 1; a ReLU between needs one", len(g.Mixes), C.MAX_MIXES))
	}
	a.step_in, a.step_out, a.between = C.long(g.StepIn), C.long(g.StepOut), flag(g.Between)
	a.mixes = C.long(len(g.Mixes))
	for i, m := range g.Mixes {
		if m.K < 1 || m.Step < 1 || g.Out()%(m.K*m.Step) != 0 {
			panic(fmt.Sprintf("kernel: %d channels in partitions of %d that are %d apart", g.Out(), m.K, m.Step))
		}
		a.mix[i] = C.igc_mix{K: C.long(m.K), step: C.long(m.Step)}
	}
	return a
}

func flag(b bool) C.long {
	if b {
		return 1
	}
	return 0
}

// Conv is one call on one block of 16 pictures.
type Conv struct {
	Geometry
	Valid int // pictures in the block, 1 … 16

	X            []float32 // (H, In, W, 16): pictures, or the z of the convolution before
	Scale, Shift []float32 // (In): a = max(0, Scale·X + Shift); nil: a = X
	Linear       bool      // a = Scale·X + Shift: no ReLU follows
	WP           []float32 // (L·Co, Ci, KH, KW): primary.weight
	WS           []float32 // (MixesLen): of each mix (L·Co, K), row p·K + k makes channel k of partition p
	Z            []float32 // (OH, Out, OW, 16): Forward writes it, Backward reads it
	// Y is (OH, Out, OW, 16): Forward writes the output of the primary
	// convolutions to it. If it is nil, Backward computes them again.
	Y          []float32
	Sum, SumSq []float64 // (Out): sums of z and z² over positions and valid lanes; may be nil

	// For Backward only.
	WPT, WST []float32 // from Transpose
	// G is (OH, Out, OW, 16), the gradient of the normalised z, masked by its
	// ReLU. If GScale and GShift are not nil, G is (Out, 16), the same at every
	// position, and not masked: the mask is GScale·Z + GShift > 0.
	G              []float32
	GScale, GShift []float32 // (Out)
	CA, CB, CC     []float32 // (Out): gradient of z = CA·G + CB·Z + CC
	// GX is (H, In, W, 16), the gradient of a, masked by its ReLU if there is
	// one. It may be nil. It may be G if neither size nor channels change.
	GX          []float32
	GSum, GXSum []float64 // (In): sums of GX and of GX·X, if there is a Scale
	DWP, DWS    []float32 // this block's share of the gradients of WP and WS
}

// Transpose fills wpt (L·Ci, Co, KH, KW) from wp, each kernel turned by 180°, and
// wst from ws, each K×K matrix transposed.
func (g Geometry) Transpose(wpt, wst, wp, ws []float32) {
	kk := g.KH * g.KW
	for l := range g.L {
		for o := range g.Co {
			for i := range g.Ci {
				from, to := wp[((l*g.Co+o)*g.Ci+i)*kk:][:kk], wpt[((l*g.Ci+i)*g.Co+o)*kk:][:kk]
				for k, w := range from {
					to[kk-1-k] = w
				}
			}
		}
	}
	for _, m := range g.Mixes {
		for first := 0; first < g.MixLen(m); first += m.K * m.K {
			for o := range m.K {
				for i := range m.K {
					wst[first+i*m.K+o] = ws[first+o*m.K+i]
				}
			}
		}
		wst, ws = wst[g.MixLen(m):], ws[g.MixLen(m):]
	}
}

func (c *Conv) forward() C.igc_conv {
	a := c.c()
	if c.Pictures && c.Precision != F32 && (c.Scale != nil || c.GX != nil) {
		panic("kernel: pictures have no normalisation and no gradient in bfloat16")
	}
	a.valid = valid(c.Valid)
	a.x = floats(c.X, c.InLen())
	if c.Scale != nil {
		a.scale, a.shift, a.linear = floats(c.Scale, c.In()), floats(c.Shift, c.In()), flag(c.Linear)
	}
	a.wp, a.ws = floats(c.WP, c.PrimaryLen()), floats(c.WS, c.MixesLen())
	a.z = streamed(c.Z, c.OutLen())
	if c.Y != nil {
		a.y = streamed(c.Y, c.OutLen())
	}
	if c.Sum != nil {
		a.sum, a.sumsq = doubles(c.Sum, c.Out()), doubles(c.SumSq, c.Out())
	}
	return a
}

func (c *Conv) backward() C.igc_conv {
	a := c.forward()
	a.wpt, a.wst = floats(c.WPT, c.PrimaryLen()), floats(c.WST, c.MixesLen())
	if c.GScale != nil {
		a.g, a.gscale, a.gshift = floats(c.G, c.Out()*Lanes), floats(c.GScale, c.Out()), floats(c.GShift, c.Out())
	} else {
		a.g = floats(c.G, c.OutLen())
	}
	a.ca, a.cb, a.cc = floats(c.CA, c.Out()), floats(c.CB, c.Out()), floats(c.CC, c.Out())
	if c.GX != nil {
		a.gx = floats(c.GX, c.InLen())
		if c.Scale != nil {
			a.gsum, a.gxsum = doubles(c.GSum, c.In()), doubles(c.GXSum, c.In())
		}
	}
	a.dwp, a.dws = floats(c.DWP, c.PrimaryLen()), floats(c.DWS, c.MixesLen())
	return a
}

// Head is the end of the network on one block: normalisation, ReLU, global
// average pool, linear layer, softmax and cross-entropy. Each op reads the
// fields above its results.
type Head struct {
	Precision  Precision // of X
	H, W, C, K int       // picture size, channels, classes
	Linear     bool      // there is no ReLU
	Valid      int       // pictures in the block, 1 … 16

	X            []float32 // (H, C, W, 16): the z of the last convolution
	Scale, Shift []float32 // (C)
	Pool         []float32 // (C, 16): by PoolForward
	// Open and OpenX are (C, 16): how many positions the ReLU lets pass, and the
	// sum of X there, by PoolForward; they may be nil.
	Open, OpenX []float32
	WL, Bias    []float32 // (K, C), (K)
	Logits      []float32 // (K, 16): by LinearForward
	Labels      []float32 // (16): class numbers, 0 … K−1
	Gain        float32   // gradient of the total loss by the loss of a picture: 1/N for a mean
	Loss        []float64 // (16): by CrossEntropy, in nats
	DLogits     []float32 // (K, 16): by CrossEntropy; may be nil
	DWL, DBias  []float32 // this block's share: by LinearBackward
	DPool       []float32 // (C, 16): by LinearBackward
	GX          []float32 // (C, 16): by PoolBackward: the gradient at every position, not masked by the ReLU
	GSum, GXSum []float64 // (C): by PoolBackward: sums of masked GX and of masked GX·X
}

func (h *Head) c() C.igc_head {
	return C.igc_head{H: C.long(h.H), W: C.long(h.W), C: C.long(h.C), K: C.long(h.K), valid: valid(h.Valid),
		linear: flag(h.Linear), bf16: h.Precision.c(), gain: C.float(h.Gain)}
}

func (h *Head) poolForward() C.igc_head {
	a := h.c()
	a.x, a.scale, a.shift = floats(h.X, h.Precision.Floats(h.C*h.H*h.W*Lanes)), floats(h.Scale, h.C), floats(h.Shift, h.C)
	a.pool = floats(h.Pool, h.C*Lanes)
	if h.Open != nil {
		a.open, a.openx = floats(h.Open, h.C*Lanes), floats(h.OpenX, h.C*Lanes)
	}
	return a
}

func (h *Head) poolBackward() C.igc_head {
	a := h.c()
	a.open, a.openx = floats(h.Open, h.C*Lanes), floats(h.OpenX, h.C*Lanes)
	a.dpool, a.gx = floats(h.DPool, h.C*Lanes), floats(h.GX, h.C*Lanes)
	a.gsum, a.gxsum = doubles(h.GSum, h.C), doubles(h.GXSum, h.C)
	return a
}

func (h *Head) linearForward() C.igc_head {
	a := h.c()
	a.pool, a.w, a.bias = floats(h.Pool, h.C*Lanes), floats(h.WL, h.K*h.C), floats(h.Bias, h.K)
	a.logits = floats(h.Logits, h.K*Lanes)
	return a
}

func (h *Head) linearBackward() C.igc_head {
	a := h.c()
	a.pool, a.w, a.dlogits = floats(h.Pool, h.C*Lanes), floats(h.WL, h.K*h.C), floats(h.DLogits, h.K*Lanes)
	a.dw, a.db, a.dpool = floats(h.DWL, h.K*h.C), floats(h.DBias, h.K), floats(h.DPool, h.C*Lanes)
	return a
}

func (h *Head) crossEntropy() C.igc_head {
	for _, y := range h.Labels[:h.Valid] {
		if y < 0 || int(y) >= h.K {
			panic(fmt.Sprintf("kernel: label %g of %d classes", y, h.K))
		}
	}
	a := h.c()
	a.logits, a.labels, a.loss = floats(h.Logits, h.K*Lanes), floats(h.Labels, Lanes), doubles(h.Loss, Lanes)
	if h.DLogits != nil {
		a.dlogits = floats(h.DLogits, h.K*Lanes)
	}
	return a
}

// Nesterov updates weights w and velocities v by the gradient g in place:
// d = g + decay·w; v = mu·v + d; w = w − lr·(d + mu·v) (protocol of the paper,
// as PyTorch's SGD with nesterov=True).
func Nesterov(w, v, g []float32, lr, mu, decay float32) {
	n := len(w)
	C.igc_nesterov(floats(w, n), floats(v, n), floats(g, n), C.long(n), C.float(lr), C.float(mu), C.float(decay))
}

// SumBlocks adds up the shares of all blocks, parts (B, len(dst)), in the order of
// the blocks: the sum does not depend on the threads that computed the shares.
func SumBlocks(dst, parts []float32) {
	n := len(dst)
	copy(dst, parts[:n])
	for p := parts[n:]; len(p) >= n && n > 0; p = p[n:] {
		for k := range dst {
			dst[k] += p[k]
		}
	}
}

// The functions below check a slice before C gets it. A wrong length is a bug of the
// caller and would corrupt memory, so they panic.

func floats(s []float32, n int) *C.float {
	if len(s) != n {
		panic(fmt.Sprintf("kernel: %d floats, want %d", len(s), n))
	}
	return (*C.float)(unsafe.SliceData(s))
}

// streamed is floats for memory that is written past the caches, a whole cache line at
// a time. It must begin at a line, as blocks of pictures in an arena do. Blocks of
// bfloat16 that are no whole lines have an odd width, and are written through the caches.
func streamed(s []float32, n int) *C.float {
	f := floats(s, n)
	if n%Lanes == 0 && uintptr(unsafe.Pointer(f))%alignBytes != 0 {
		panic("kernel: memory that does not begin at a cache line")
	}
	return f
}

func doubles(s []float64, n int) *C.double {
	if len(s) != n {
		panic(fmt.Sprintf("kernel: %d doubles, want %d", len(s), n))
	}
	return (*C.double)(unsafe.SliceData(s))
}

func valid(n int) C.long {
	if n < 1 || n > Lanes {
		panic(fmt.Sprintf("kernel: %d pictures in a block of %d", n, Lanes))
	}
	return C.long(n)
}
