package kernel_test

import (
	"bytes"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"
	"unsafe"

	"igcsearch/trainer/kernel"
)

// convCase is one shape of the conformance test: odd sizes on purpose.
type convCase struct {
	l, ci, co, h, w, n int
	secondary          bool // the mix {l, co}
	kh, kw, stride     int  // 0: 3×3, stride 1

	stepIn, stepOut int // 0: 1
	mixes           []kernel.Mix
	between, linear bool

	precision kernel.Precision
	input     inputKind
}

// inputKind is what a convolution reads.
type inputKind int

const (
	normalised inputKind = iota // the output of another convolution
	plain                       // activations
	pictures
)

func (k inputKind) String() string { return [...]string{"normalised", "plain", "pictures"}[k] }

func (c convCase) geometry() kernel.Geometry {
	if c.kh == 0 {
		c.kh, c.kw, c.stride = 3, 3, max(c.stride, 1)
	}
	if c.secondary {
		c.mixes = []kernel.Mix{{K: c.l, Step: c.co}}
	}
	return kernel.Geometry{Precision: c.precision, Pictures: c.input == pictures, H: c.h, W: c.w, KH: c.kh, KW: c.kw,
		Stride: c.stride, L: c.l, Ci: c.ci, Co: c.co, StepIn: max(c.stepIn, 1), StepOut: max(c.stepOut, 1), Mixes: c.mixes, Between: c.between}
}

func (c convCase) String() string {
	g := c.geometry()
	return fmt.Sprintf("%v/L=%d Ci=%d Co=%d %dx%d batch=%d mixes=%v kernel %dx%d stride %d steps %d %d between=%v linear=%v %v",
		c.precision, c.l, c.ci, c.co, c.h, c.w, c.n, g.Mixes, g.KH, g.KW, g.Stride, g.StepIn, g.StepOut, c.between,
		c.linear, c.input)
}

var convCases = []convCase{
	{l: 1, ci: 7, co: 7, h: 5, w: 7, n: 3, secondary: true},     // L = 1
	{l: 5, ci: 1, co: 1, h: 4, w: 9, n: 3, secondary: true},     // M = 1
	{l: 41, ci: 5, co: 5, h: 3, w: 4, n: 2, secondary: true},    // Table 1 (ii)
	{l: 3, ci: 7, co: 7, h: 6, w: 5, n: 17, secondary: true},    // two blocks, the second with one picture
	{l: 1, ci: 23, co: 23, h: 4, w: 4, n: 16, secondary: true},  // Table 1 (i)
	{l: 64, ci: 1, co: 1, h: 4, w: 8, n: 1, secondary: true},    // Table 1 (i)
	{l: 40, ci: 2, co: 2, h: 3, w: 8, n: 4, secondary: true},    // Table 1 (i)
	{l: 6, ci: 9, co: 9, h: 2, w: 2, n: 5, secondary: true},     // Table 1 (i)
	{l: 2, ci: 3, co: 6, h: 4, w: 4, n: 3, secondary: true},     // channels double: M → 2M
	{l: 4, ci: 4, co: 3, h: 3, w: 3, n: 3, secondary: true},     // fewer out than in
	{l: 1, ci: 3, co: 80, h: 8, w: 8, n: 3},                     // the first convolution
	{l: 1, ci: 3, co: 13, h: 1, w: 1, n: 19},                    // a single pixel
	{l: 3, ci: 2, co: 2, h: 1, w: 6, n: 2, secondary: true},     // a single row
	{l: 1, ci: 30, co: 5, h: 3, w: 32, n: 2},                    // more (channel, row) pairs than one chunk
	{l: 12, ci: 6, co: 6, h: 16, w: 16, n: 33, secondary: true}, // three blocks

	{l: 3, ci: 4, co: 8, h: 8, w: 8, n: 3, secondary: true, stride: 2},   // M → 2M
	{l: 24, ci: 2, co: 4, h: 4, w: 32, n: 2, secondary: true, stride: 2}, // Table 2
	{l: 5, ci: 1, co: 2, h: 7, w: 9, n: 17, secondary: true, stride: 2},  // odd sizes
	{l: 2, ci: 6, co: 5, h: 1, w: 1, n: 1, secondary: true, stride: 2},
	{l: 1, ci: 3, co: 18, h: 2, w: 3, n: 3, stride: 2},
	{l: 3, ci: 4, co: 8, h: 6, w: 5, n: 3, kh: 1, kw: 1, stride: 2}, // a projection shortcut
	{l: 2, ci: 5, co: 5, h: 1, w: 7, n: 3, kh: 1, kw: 1, stride: 2},
	{l: 4, ci: 7, co: 7, h: 4, w: 5, n: 3, secondary: true, kh: 1, kw: 1, stride: 1},
	{l: 1, ci: 13, co: 9, h: 3, w: 3, n: 18, kh: 1, kw: 1, stride: 1}, // a linear projection
	{l: 5, ci: 3, co: 3, h: 5, w: 6, n: 3, kh: 1, kw: 3, stride: 1},
	{l: 5, ci: 3, co: 3, h: 5, w: 6, n: 3, secondary: true, kh: 3, kw: 1, stride: 1},
	{l: 3, ci: 2, co: 4, h: 5, w: 6, n: 3, secondary: true, kh: 3, kw: 1, stride: 2},
	{l: 3, ci: 4, co: 2, h: 6, w: 7, n: 3, secondary: true, kh: 1, kw: 3, stride: 2},
	{l: 3, ci: 4, co: 4, h: 9, w: 8, n: 3, secondary: true, kh: 5, kw: 5, stride: 1},
	{l: 3, ci: 4, co: 4, h: 7, w: 9, n: 3, secondary: true, kh: 5, kw: 5, stride: 2},
	{l: 1, ci: 3, co: 64, h: 14, w: 15, n: 2, kh: 7, kw: 7, stride: 2}, // ImageNet's first
	{l: 2, ci: 3, co: 3, h: 2, w: 2, n: 2, kh: 7, kw: 7, stride: 1},    // a kernel larger than the picture
	{l: 2, ci: 5, co: 5, h: 4, w: 5, n: 17, stepIn: 2, stepOut: 2},
	{l: 4, ci: 3, co: 6, h: 4, w: 5, n: 3, kh: 1, kw: 1, stride: 1, stepIn: 4, stepOut: 4}, // secondary of a bottleneck
	{l: 3, ci: 4, co: 2, h: 5, w: 4, n: 3, stride: 2, stepIn: 3, stepOut: 3},
	{l: 4, ci: 3, co: 6, h: 4, w: 5, n: 3, kh: 1, kw: 1, stride: 1, stepIn: 4}, // ShuffleNet's second
	{l: 6, ci: 3, co: 2, h: 4, w: 5, n: 17, stepIn: 2, stepOut: 3},
	{l: 5, ci: 1, co: 1, h: 4, w: 5, n: 17, linear: true},
	{l: 2, ci: 3, co: 4, h: 5, w: 4, n: 3, secondary: true, stride: 2, linear: true},
	{l: 4, ci: 3, co: 3, h: 4, w: 5, n: 3, secondary: true, between: true}, // y computed again
	{l: 3, ci: 5, co: 5, h: 5, w: 4, n: 17, secondary: true, between: true, stride: 2},

	// Products of more factors: IGCV2.
	{l: 30, ci: 1, co: 1, h: 4, w: 5, n: 17, mixes: []kernel.Mix{{K: 5, Step: 1}, {K: 6, Step: 5}}},
	{l: 6, ci: 4, co: 4, h: 5, w: 4, n: 3, mixes: []kernel.Mix{{K: 2, Step: 4}, {K: 3, Step: 8}}}, // y kept
	{l: 12, ci: 1, co: 2, h: 6, w: 7, n: 3, stride: 2, mixes: []kernel.Mix{{K: 3, Step: 2}, {K: 2, Step: 6}, {K: 2, Step: 12}}},
	{l: 180, ci: 1, co: 1, h: 3, w: 4, n: 2, mixes: []kernel.Mix{{K: 5, Step: 1}, {K: 6, Step: 5}, {K: 6, Step: 30}}},
	{l: 4, ci: 3, co: 3, h: 3, w: 4, n: 3, kh: 1, kw: 1, stride: 1, between: true,
		mixes: []kernel.Mix{{K: 2, Step: 3}, {K: 2, Step: 6}}},
	{l: 512, ci: 1, co: 1, h: 2, w: 3, n: 2, mixes: twos(9)},
}

// twos are the mixes of n factors of two channels, behind a primary convolution of single channels.
func twos(n int) (mixes []kernel.Mix) {
	for i := range n {
		mixes = append(mixes, kernel.Mix{K: 2, Step: 1 << i})
	}
	return mixes
}

// data is a case in PyTorch's layout, float64, with values that float32 holds, and
// activations that the precision holds.
type data struct {
	x, scale, shift, wp, ws, g, ca, cb, cc []float64
	// A gradient that is the same at every position, (N, Out), and the ReLU that masks it.
	pooled, gscale, gshift []float64
}

func uniform(r *rand.Rand, n int, bound float64) []float64 {
	s := make([]float64, n)
	for i := range s {
		s[i] = float64(float32((2*r.Float64() - 1) * bound))
	}
	return s
}

// rounded rounds s in place to what the precision holds.
func rounded(p kernel.Precision, s []float64) []float64 {
	for i, v := range s {
		s[i] = kernel.Oracle{Precision: p}.Round(v)
	}
	return s
}

func f32(a *kernel.Arena, s []float64) []float32 {
	out := a.Floats(len(s))
	for i, v := range s {
		out[i] = float32(v)
	}
	return out
}

func packed(a *kernel.Arena, p kernel.Precision, s []float64, n, c, h, w int) []float32 {
	out := a.Floats(kernel.Blocks(n) * p.Floats(c*h*w*kernel.Lanes))
	p.Pack(out, f32(a, s), n, c, h, w)
	return out
}

func unpacked(p kernel.Precision, x []float32, n, c, h, w int) []float64 {
	s := make([]float32, n*c*h*w)
	p.Unpack(s, x, n, c, h, w)
	return wide(s)
}

// near checks |got − want| ≤ tol·(rms of want + |want|): sums of up to some
// thousand float32 products.
func near(t *testing.T, name string, got, want []float64, tol float64) {
	t.Helper()
	if len(got) != len(want) {
		t.Fatalf("%s: %d values, want %d", name, len(got), len(want))
	}
	var sq float64
	for _, v := range want {
		sq += v * v
	}
	rms := math.Sqrt(sq / float64(max(1, len(want))))
	for i := range got {
		if !(math.Abs(got[i]-want[i]) <= tol*(rms+math.Abs(want[i])+1e-30)) {
			t.Fatalf("%s[%d] = %g, want %g (rms %g)", name, i, got[i], want[i], rms)
		}
	}
}

// equal checks that the values are the same. NaN is the same as NaN, and −0 as 0.
func equal(t *testing.T, name string, got, want []float64) {
	t.Helper()
	wrong, first := 0, 0
	for i := range got {
		if got[i] != want[i] && !(math.IsNaN(got[i]) && math.IsNaN(want[i])) {
			if wrong++; wrong == 1 {
				first = i
			}
		}
	}
	if wrong > 0 {
		t.Fatalf("%s: %d of %d differ, the first is %s[%d] = %g, want %g", name, wrong, len(got), name, first, got[first], want[first])
	}
}

// agree is near for what is float32, and equal for what is rounded to bfloat16.
func agree(t *testing.T, p kernel.Precision, name string, got, want []float64, tol float64) {
	t.Helper()
	if p != kernel.F32 {
		equal(t, name, got, want)
		return
	}
	near(t, name, got, want, tol)
}

// raw are the bytes of s.
func raw[T float32 | float64](s []T) []byte {
	return unsafe.Slice((*byte)(unsafe.Pointer(unsafe.SliceData(s))), uintptr(len(s))*unsafe.Sizeof(*new(T)))
}

func sameBits[T float32 | float64](a, b []T) bool { return bytes.Equal(raw(a), raw(b)) }

// way is one of the ways to compute the same on this machine.
type way struct {
	isa     kernel.ISA
	emulate kernel.Precision // see Team.Emulate; F32: nothing is emulated
	threads int
}

func (w way) String() string {
	if w.emulate == kernel.F32 {
		return fmt.Sprintf("%v, %d threads", w.isa, w.threads)
	}
	return fmt.Sprintf("%v, %v emulated, %d threads", w.isa, w.emulate, w.threads)
}

// ways are those of a precision: every instruction set, by which bfloat16 is emulated, and
// of bfloat16 also the best with the processor's own instructions for it. AMX is also
// emulated beside vdpbf16ps, which some processors without AMX have.
func ways(p kernel.Precision) (all []way) {
	if p != kernel.F32 {
		all = append(all, way{isa: kernel.Available()[0], threads: 3})
	}
	if p == kernel.AMX {
		all = append(all, way{kernel.Available()[0], kernel.AMX, 2})
	}
	for i, isa := range kernel.Available() {
		all = append(all, way{isa, min(p, kernel.BF16), 1 + (i+1)%3})
	}
	return all
}

func (w way) team(t testing.TB, a *kernel.Arena, scratch int) *kernel.Team {
	team := newTeam(t, a, w.isa, w.threads, scratch)
	if w.emulate != kernel.F32 {
		team.Emulate(w.emulate)
	}
	return team
}

var (
	precisions     = []kernel.Precision{kernel.F32, kernel.BF16, kernel.AMX}
	bf16Precisions = precisions[1:]
)

// newTeam returns a team that ends with the test.
func newTeam(t testing.TB, a *kernel.Arena, isa kernel.ISA, threads, scratch int) *kernel.Team {
	team, err := kernel.NewTeam(a, isa, threads, scratch)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(team.Close)
	return team
}

func wide[T float32 | float64](s []T) []float64 {
	out := make([]float64, len(s))
	for i, v := range s {
		out[i] = float64(v)
	}
	return out
}

// TestConvAgreesWithTheOracle is the conformance test of the convolution
// kernels: every instruction set of this machine, forward and gradients. In float32,
// each element is within 2e-6·(rms + |value|) of plain float64 loops, 2e-5 for the
// sums of the weights' gradients. In bfloat16, activations and their gradients have the
// oracle's bits, with AMX the weights' gradients too, and everything has the same bits with
// every instruction set.
func TestConvAgreesWithTheOracle(t *testing.T) {
	for _, p := range precisions {
		for _, c := range convCases {
			for _, c.input = range []inputKind{normalised, plain, pictures} {
				if c.precision = p; c.input == pictures && (p == kernel.F32 || len(c.geometry().Mixes) > 0) {
					continue // the same as plain, or no beginning of a network
				}
				t.Run(c.String(), func(t *testing.T) { testConv(t, c, newData(c)) })
			}
		}
	}
}

// gradients are what a backward pass computes.
type gradients struct{ gx, gsum, gxsum, dwp, dws []float64 }

// convOracle is a convolution with its inputs and what the oracle makes of them.
type convOracle struct {
	convCase
	kernel.Geometry
	kernel.Oracle
	in            data
	height, width int // of the output
	hw, ohw       int
	inCh, outCh   int

	a    []float64 // the input as the primary convolution reads it
	mix  []mixOracle
	want struct {
		y, z, sum, sumsq []float64
		spread, pooled   gradients
	}
}

// mixOracle is a mix with its weights and the input that it read.
type mixOracle struct {
	kernel.Mix
	w, in []float64
}

func newData(c convCase) data {
	g, r := c.geometry(), rand.New(rand.NewPCG(1, 2))
	oh, ow := g.Size()
	hw, ohw, in, out := c.h*c.w, oh*ow, g.In(), g.Out()
	d := data{
		x: uniform(r, c.n*in*hw, 2), scale: uniform(r, in, 1), shift: uniform(r, in, 1),
		wp: uniform(r, g.PrimaryLen(), 1), ws: uniform(r, g.MixesLen(), 1),
		g: rounded(c.precision, uniform(r, c.n*out*ohw, 1)), ca: uniform(r, out, 1), cb: uniform(r, out, .1), cc: uniform(r, out, .1),
		pooled: uniform(r, c.n*out, 1), gscale: uniform(r, out, 1), gshift: uniform(r, out, 1),
	}
	if c.input != pictures {
		rounded(c.precision, d.x)
	}
	return d
}

func newConvOracle(c convCase, d data) *convOracle {
	g := c.geometry()
	oh, ow := g.Size()
	p := &convOracle{convCase: c, Geometry: g, Oracle: kernel.Oracle{Precision: c.precision}, in: d, height: oh, width: ow,
		hw: c.h * c.w, ohw: oh * ow, inCh: g.In(), outCh: g.Out()}
	p.forward()
	p.want.spread = p.backward(func(i, ch int, z float64) float64 {
		return p.Round(p.FMA(d.ca[ch], d.g[i], p.FMA(d.cb[ch], z, d.cc[ch])))
	})
	p.want.pooled = p.backward(func(i, ch int, z float64) float64 {
		var g float64
		if p.FMA(d.gscale[ch], z, d.gshift[ch]) > 0 {
			g = p.FMA(d.ca[ch], d.pooled[i/p.ohw], 0)
		}
		return p.Round(p.FMA(1, g, p.FMA(d.cb[ch], z, d.cc[ch])))
	})
	return p
}

// partitioned returns x (N, c, HW) with the channels of each partition one after the
// other, for partitions of so many channels that lie step apart: the channels are
// numbered in three digits, of which the last two change places. back is the inverse.
func (p *convOracle) partitioned(x []float64, c, channels, step, hw int, back bool) []float64 {
	l, m := channels, step
	if back {
		l, m = step, channels
	}
	return p.Permute(x, p.n*c/(channels*step), l, m, hw)
}

func (p *convOracle) primary() kernel.GroupConv {
	return kernel.GroupConv{Oracle: p.Oracle, N: p.n, Groups: p.l, Ci: p.ci, Co: p.co, H: p.h, W: p.w, KH: p.KH, KW: p.KW,
		Stride: p.Stride}
}

func (p *convOracle) factor(m kernel.Mix) kernel.GroupConv {
	return kernel.GroupConv{Oracle: p.Oracle, N: p.n, Groups: p.outCh / m.K, Ci: m.K, Co: m.K, H: p.height, W: p.width,
		KH: 1, KW: 1, Stride: 1}
}

func (p *convOracle) primaryWeights() []float64 {
	return rounded(p.convCase.precision, slices.Clone(p.in.wp))
}

// forward computes a = relu(scale·x + shift) and z = P Ws Pᵀ Wp a.
func (p *convOracle) forward() {
	c, d, w := p.convCase, p.in, &p.want
	if c.input == normalised {
		p.a = p.Affine(d.x, d.scale, d.shift, c.linear, p.inCh, p.hw)
	} else {
		p.a = rounded(c.precision, slices.Clone(d.x))
	}
	w.y = p.partitioned(p.primary().Forward(p.partitioned(p.a, p.inCh, c.ci, p.StepIn, p.hw, false), p.primaryWeights()),
		p.outCh, c.co, p.StepOut, p.ohw, true)
	if c.between {
		for i := range w.y {
			w.y[i] = max(0, w.y[i])
		}
	}
	w.z = slices.Clone(w.y)
	ws := rounded(c.precision, slices.Clone(d.ws))
	for _, m := range p.Mixes {
		f := mixOracle{m, ws[:p.MixLen(m)], p.partitioned(w.z, p.outCh, m.K, m.Step, p.ohw, false)}
		w.z = p.partitioned(p.factor(m).Forward(f.in, f.w), p.outCh, m.K, m.Step, p.ohw, true)
		p.mix, ws = append(p.mix, f), ws[p.MixLen(m):]
	}
	w.sum, w.sumsq = make([]float64, p.outCh), make([]float64, p.outCh)
	for i := range w.z {
		z := float64(float32(w.z[i]))
		w.z[i] = z
		w.sum[i/p.ohw%p.outCh] += z
		w.sumsq[i/p.ohw%p.outCh] += z * z
	}
}

// backward computes all gradients from the one of each z, given its channel.
func (p *convOracle) backward(dz func(i, ch int, z float64) float64) (w gradients) {
	c := p.convCase
	dy := make([]float64, len(p.want.z))
	for i, z := range p.want.z {
		dy[i] = dz(i, i/p.ohw%p.outCh, z)
	}
	for _, m := range slices.Backward(p.mix) {
		din, dw := p.factor(m.Mix).Backward(m.in, m.w, p.partitioned(dy, p.outCh, m.K, m.Step, p.ohw, false))
		dy, w.dws = p.partitioned(din, p.outCh, m.K, m.Step, p.ohw, true), append(dw, w.dws...)
	}
	if c.between {
		for i := range dy {
			if !(p.want.y[i] > 0) {
				dy[i] = 0
			}
		}
	}
	w.gx, w.dwp = p.primary().Backward(p.partitioned(p.a, p.inCh, c.ci, p.StepIn, p.hw, false), p.primaryWeights(),
		p.partitioned(dy, p.outCh, c.co, p.StepOut, p.ohw, false))
	w.gx = p.partitioned(w.gx, p.inCh, c.ci, p.StepIn, p.hw, true)
	w.gsum, w.gxsum = make([]float64, p.inCh), make([]float64, p.inCh)
	for i := range w.gx {
		if c.input == normalised && !c.linear && !(p.a[i] > 0) {
			w.gx[i] = 0
		}
		w.gsum[i/p.hw%p.inCh] += w.gx[i]
		w.gxsum[i/p.hw%p.inCh] += w.gx[i] * p.in.x[i]
	}
	return w
}

// convTest is one way to compute a convolution.
type convTest struct {
	*convOracle
	arena  kernel.Arena
	team   *kernel.Team
	conv   kernel.Conv // what all calls share
	calls  []kernel.Conv
	blocks int
	x, g   []float32 // packed inputs
	y, z   []float32
	sums   [2][]float64 // sum, sumsq: (B, Out)

	spread, pooled backwardResults
}

// backwardResults are gradients in memory of the kernels, one after the other for all
// blocks. gx is nil for pictures.
type backwardResults struct {
	gx          []float32
	gsum, gxsum []float64
	dwp, dws    []float32
}

func testConv(t *testing.T, c convCase, d data) {
	o := newConvOracle(c, d)
	var first *convTest
	for _, w := range ways(c.precision) {
		t.Run(w.String(), func(t *testing.T) {
			p := &convTest{convOracle: o, blocks: kernel.Blocks(c.n)}
			t.Cleanup(func() {
				if p != first {
					p.arena.Free()
				}
			})
			p.pack()
			p.team = w.team(t, &p.arena, o.ScratchLen())
			x, grad, wp := slices.Clone(p.x), slices.Clone(p.g), slices.Clone(p.conv.WP)
			p.run()
			p.runInPlace(t)
			p.runWithKeptOutput(t)
			p.runPooled()
			p.compare(t)
			if !sameBits(x, p.x) || !sameBits(grad, p.g) || !sameBits(wp, p.conv.WP) {
				t.Error("a kernel changed its input")
			}
			if first == nil {
				first = p
			} else if c.precision != kernel.F32 {
				p.compareBits(t, first)
			}
		})
	}
	if first != nil {
		first.arena.Free()
	}
}

// pack makes the calls of the kernels, one for each block, with NaN in the memory of
// results.
func (p *convTest) pack() {
	a, c, d := &p.arena, p.convCase, p.in
	conv := kernel.Conv{Geometry: p.Geometry, WP: f32(a, d.wp), WS: f32(a, d.ws)}
	conv.WPT, conv.WST = a.Floats(p.PrimaryLen()), a.Floats(p.MixesLen())
	p.Transpose(conv.WPT, conv.WST, conv.WP, conv.WS)
	if c.input == normalised {
		conv.Scale, conv.Shift, conv.Linear = f32(a, d.scale), f32(a, d.shift), c.linear
	}
	conv.CA, conv.CB, conv.CC = f32(a, d.ca), f32(a, d.cb), f32(a, d.cc)
	p.conv = conv
	of := c.precision
	if c.input == pictures {
		of = kernel.F32
	}
	p.x, p.g = packed(a, of, d.x, c.n, p.inCh, c.h, c.w), packed(a, c.precision, d.g, c.n, p.outCh, p.height, p.width)
	p.y, p.z = nan(a.Floats(p.blocks*p.OutLen())), nan(a.Floats(p.blocks*p.OutLen()))
	for i := range p.sums {
		p.sums[i] = a.Doubles(p.blocks * p.outCh)
	}
	p.spread, p.pooled = p.results(), p.results()
	for b := range p.blocks {
		k := conv
		k.Valid = min(16, c.n-16*b)
		k.X, k.Z = at(p.x, b, p.InLen()), at(p.z, b, p.OutLen())
		k.Sum, k.SumSq = at(p.sums[0], b, p.outCh), at(p.sums[1], b, p.outCh)
		k.G = at(p.g, b, p.OutLen())
		p.calls = append(p.calls, p.to(k, p.spread, b))
	}
}

func (p *convTest) results() backwardResults {
	a := &p.arena
	r := backwardResults{gsum: a.Doubles(p.blocks * p.inCh), gxsum: a.Doubles(p.blocks * p.inCh),
		dwp: nan(a.Floats(p.blocks * p.PrimaryLen())), dws: nan(a.Floats(p.blocks * p.MixesLen()))}
	if p.input != pictures {
		r.gx = nan(a.Floats(p.blocks * p.InLen()))
	}
	return r
}

// to is the call k with the memory of block b for its gradients.
func (p *convTest) to(k kernel.Conv, r backwardResults, b int) kernel.Conv {
	if r.gx != nil {
		k.GX = at(r.gx, b, p.InLen())
	}
	k.GSum, k.GXSum = at(r.gsum, b, p.inCh), at(r.gxsum, b, p.inCh)
	k.DWP, k.DWS = at(r.dwp, b, p.PrimaryLen()), at(r.dws, b, p.MixesLen())
	return k
}

// nan fills s with NaN of either precision.
func nan(s []float32) []float32 {
	for i := range s {
		s[i] = math.Float32frombits(1<<32 - 1)
	}
	return s
}

// at is block b of s, which has n values for each block.
func at[T any](s []T, b, n int) []T { return s[b*n : (b+1)*n] }

// run runs the calls, after others that leave NaN in the scratch memory: no kernel may
// rely on zeros that it did not write.
func (p *convTest) run() {
	first := slices.Clone(p.calls)
	for b := range first {
		first[b].X = nan(p.arena.Floats(p.InLen()))
	}
	p.team.Forward(first)
	p.team.Backward(first)
	p.team.Forward(p.calls)
	p.team.Backward(p.calls)
}

// runInPlace writes gx over g where both have the same size: the bits are the same.
func (p *convTest) runInPlace(t *testing.T) {
	if p.InLen() != p.OutLen() || p.spread.gx == nil {
		return
	}
	inPlace := slices.Clone(p.calls)
	g := slices.Clone(p.g)
	defer copy(p.g, g)
	for b := range inPlace {
		inPlace[b].GX = inPlace[b].G
	}
	p.team.Backward(inPlace)
	if !sameBits(p.g, p.spread.gx) {
		t.Error("gx differs in place of g")
	}
}

// runWithKeptOutput keeps the output of the primary convolutions: the bits are the
// same.
func (p *convTest) runWithKeptOutput(t *testing.T) {
	if len(p.Mixes) == 0 {
		return
	}
	r := p.results()
	kept := slices.Clone(p.calls)
	for b := range kept {
		kept[b] = p.to(kept[b], r, b)
		kept[b].Y = at(p.y, b, p.OutLen())
	}
	p.team.Forward(kept)
	p.team.Backward(kept)
	if !sameBits(r.dwp, p.spread.dwp) || !sameBits(r.dws, p.spread.dws) || !sameBits(r.gx, p.spread.gx) {
		t.Error("gradients differ with the primary convolutions' output kept")
	}
}

// runPooled takes a gradient that is the same at every position, masked by a ReLU of z.
func (p *convTest) runPooled() {
	scale, shift := f32(&p.arena, p.in.gscale), f32(&p.arena, p.in.gshift)
	g := packed(&p.arena, kernel.F32, p.in.pooled, p.n, p.outCh, 1, 1)
	calls := slices.Clone(p.calls)
	for b := range calls {
		k := p.to(calls[b], p.pooled, b)
		k.G, k.GScale, k.GShift = at(g, b, p.outCh*kernel.Lanes), scale, shift
		calls[b] = k
	}
	p.team.Backward(calls)
}

// compare compares the results with the oracle's.
func (p *convTest) compare(t *testing.T) {
	w, of := &p.want, p.convCase.precision
	agree(t, of, "z", unpacked(of, p.z, p.n, p.outCh, p.height, p.width), w.z, 2e-6)
	if len(p.Mixes) > 0 {
		agree(t, of, "y", unpacked(of, p.y, p.n, p.outCh, p.height, p.width), w.y, 2e-6)
	}
	near(t, "sum", total(p.sums[0], p.outCh), w.sum, 2e-5)
	near(t, "sumsq", total(p.sums[1], p.outCh), w.sumsq, 2e-5)
	p.compareGradients(t, "", p.spread, w.spread)
	p.compareGradients(t, " of a pooled gradient", p.pooled, w.pooled)
}

func (p *convTest) compareGradients(t *testing.T, of string, got backwardResults, want gradients) {
	t.Helper()
	if got.gx != nil {
		agree(t, p.convCase.precision, "gx"+of, unpacked(p.convCase.precision, got.gx, p.n, p.inCh, p.h, p.w), want.gx, 4e-6)
	}
	if got.gx != nil && p.input == normalised {
		near(t, "gsum"+of, total(got.gsum, p.inCh), want.gsum, 2e-5)
		near(t, "gxsum"+of, total(got.gxsum, p.inCh), want.gxsum, 2e-5)
	}
	weights := p.convCase.precision
	if weights == kernel.BF16 {
		weights = kernel.F32 // the oracle does not add them up in the kernels' order
	}
	dw := p.arena.Floats(p.PrimaryLen())
	kernel.SumBlocks(dw, got.dwp)
	agree(t, weights, "dwp"+of, wide(dw), want.dwp, 2e-5)
	if len(p.Mixes) > 0 {
		dw = p.arena.Floats(p.MixesLen())
		kernel.SumBlocks(dw, got.dws)
		agree(t, weights, "dws"+of, wide(dw), want.dws, 2e-5)
	}
}

// total adds up the sums of all blocks, (B, n).
func total(s []float64, n int) []float64 {
	out := make([]float64, n)
	for i, v := range s {
		out[i%n] += v
	}
	return out
}

// compareBits compares all results with those of another way.
func (p *convTest) compareBits(t *testing.T, with *convTest) {
	t.Helper()
	for name, s := range map[string][2][]float32{
		"z": {p.z, with.z}, "y": {p.y, with.y}, "gx": {p.spread.gx, with.spread.gx},
		"dwp": {p.spread.dwp, with.spread.dwp}, "dws": {p.spread.dws, with.spread.dws},
		"gx of a pooled gradient":  {p.pooled.gx, with.pooled.gx},
		"dwp of a pooled gradient": {p.pooled.dwp, with.pooled.dwp}, "dws of a pooled gradient": {p.pooled.dws, with.pooled.dws},
	} {
		if !sameBits(s[0], s[1]) {
			t.Errorf("%s has other bits than with %v", name, with.team.ISA())
		}
	}
	for name, s := range map[string][2][]float64{
		"sum": {p.sums[0], with.sums[0]}, "sumsq": {p.sums[1], with.sums[1]},
		"gsum": {p.spread.gsum, with.spread.gsum}, "gxsum": {p.spread.gxsum, with.spread.gxsum},
		"gsum of a pooled gradient":  {p.pooled.gsum, with.pooled.gsum},
		"gxsum of a pooled gradient": {p.pooled.gxsum, with.pooled.gxsum},
	} {
		if !sameBits(s[0], s[1]) {
			t.Errorf("%s has other bits than with %v", name, with.team.ISA())
		}
	}
}

// inAllWays runs a case in all ways of a precision. In bfloat16 all must return the same
// bits.
func inAllWays(t *testing.T, p kernel.Precision, name any, run func(*testing.T, way) []byte) {
	var first []byte
	for _, w := range ways(p) {
		t.Run(fmt.Sprintf("%v/%v", name, w), func(t *testing.T) {
			bits := run(t, w)
			if first == nil {
				first = bits
			}
			if p != kernel.F32 && !bytes.Equal(bits, first) {
				t.Errorf("other bits than %v", ways(p)[0])
			}
		})
	}
}

// TestHeadAgreesWithTheOracle checks pooling, linear layer and cross-entropy,
// forward and backward, on a batch with padding lanes.
func TestHeadAgreesWithTheOracle(t *testing.T) {
	for _, p := range precisions {
		for _, size := range []headSize{{5, 3, 7, 11, 3, false}, {4, 4, 80, 100, 16, false}, {1, 1, 1, 2, 1, false},
			{5, 3, 7, 11, 3, true}} {
			inAllWays(t, p, fmt.Sprintf("%v/%+v", p, size), func(t *testing.T, w way) []byte { return testHead(t, p, size, w) })
		}
	}
}

// headSize is pictures of h×w positions and c channels, k classes, n pictures, and
// whether there is no ReLU.
type headSize struct {
	h, w, c, k, n int
	linear        bool
}

// headTest has the inputs of a head and what the oracle makes of them.
type headTest struct {
	headSize
	x, scale, shift, w, bias []float64
	labels                   []float32
	want                     struct{ pool, logits, loss, dpool, dlogits, dw, db, gx, gsum, gxsum []float64 }
}

// testHead returns the bits of all results.
func testHead(t *testing.T, precision kernel.Precision, size headSize, w way) []byte {
	var arena kernel.Arena
	t.Cleanup(arena.Free)
	r := rand.New(rand.NewPCG(3, 4))
	n, c, k := size.n, size.c, size.k
	p := headTest{headSize: size, x: rounded(precision, uniform(r, n*c*size.h*size.w, 2)), scale: uniform(r, c, 1), shift: uniform(r, c, 1)}
	p.w, p.bias, p.labels = uniform(r, k*c, 1), uniform(r, k, 1), arena.Floats(16)
	for i := range n {
		p.labels[i] = float32(r.IntN(k))
	}
	p.labels[15] = float32(k - 1)
	p.oracle()
	head := kernel.Head{
		Precision: precision, H: size.h, W: size.w, C: c, K: k, Linear: size.linear, Valid: n,
		X: packed(&arena, precision, p.x, n, c, size.h, size.w), Scale: f32(&arena, p.scale), Shift: f32(&arena, p.shift),
		Pool: arena.Floats(c * 16), WL: f32(&arena, p.w), Bias: f32(&arena, p.bias),
		Logits: arena.Floats(k * 16), Labels: p.labels, Gain: 1 / float32(n),
		Loss: arena.Doubles(16), DLogits: arena.Floats(k * 16),
		DWL: arena.Floats(k * c), DBias: arena.Floats(k), DPool: arena.Floats(c * 16),
		GX: arena.Floats(c * 16), Open: arena.Floats(c * 16), OpenX: arena.Floats(c * 16),
		GSum: arena.Doubles(c), GXSum: arena.Doubles(c),
	}
	heads := []kernel.Head{head}
	team := w.team(t, &arena, 0)
	team.PoolForward(heads)
	team.LinearForward(heads)
	team.CrossEntropy(heads)
	team.LinearBackward(heads)
	team.PoolBackward(heads)
	near(t, "pool", unpacked(kernel.F32, head.Pool, n, c, 1, 1), p.want.pool, 2e-6)
	near(t, "logits", unpacked(kernel.F32, head.Logits, n, k, 1, 1), p.want.logits, 4e-6)
	near(t, "loss", head.Loss, p.want.loss, 4e-6)
	near(t, "dlogits", unpacked(kernel.F32, head.DLogits, n, k, 1, 1), p.want.dlogits, 4e-6)
	near(t, "dw", wide(head.DWL), p.want.dw, 1e-5)
	near(t, "db", wide(head.DBias), p.want.db, 1e-5)
	near(t, "gx", unpacked(kernel.F32, head.GX, n, c, 1, 1), p.want.gx, 1e-5)
	near(t, "gsum", head.GSum, p.want.gsum, 1e-5)
	near(t, "gxsum", head.GXSum, p.want.gxsum, 1e-5)
	var bits []byte
	for _, s := range [][]float32{head.Pool, head.Open, head.OpenX, head.Logits, head.DLogits, head.DWL, head.DBias, head.DPool,
		head.GX} {
		bits = append(bits, raw(s)...)
	}
	return slices.Concat(bits, raw(head.Loss), raw(head.GSum), raw(head.GXSum))
}

func (p *headTest) oracle() {
	n, c, k, hw, o := p.n, p.c, p.k, p.h*p.headSize.w, &p.want
	a := kernel.Oracle{}.Affine(p.x, p.scale, p.shift, p.linear, c, hw)
	o.pool, o.logits, o.loss = make([]float64, n*c), make([]float64, n*k), make([]float64, 16)
	o.dpool, o.dlogits = make([]float64, n*c), make([]float64, n*k)
	o.dw, o.db = make([]float64, k*c), make([]float64, k)
	for i, v := range a {
		o.pool[i/hw] += v / float64(hw)
	}
	for i := range n {
		var sum float64
		for j := range k {
			o.logits[i*k+j] = p.bias[j]
			for q := range c {
				o.logits[i*k+j] += p.w[j*c+q] * o.pool[i*c+q]
			}
			sum += math.Exp(o.logits[i*k+j])
		}
		y := int(p.labels[i])
		o.loss[i] = math.Log(sum) - o.logits[i*k+y]
		for j := range k {
			d := math.Exp(o.logits[i*k+j]) / sum
			if j == y {
				d--
			}
			d /= float64(n)
			o.dlogits[i*k+j] = d
			o.db[j] += d
			for q := range c {
				o.dw[j*c+q] += d * o.pool[i*c+q]
				o.dpool[i*c+q] += d * p.w[j*c+q]
			}
		}
	}
	o.gx, o.gsum, o.gxsum = make([]float64, n*c), make([]float64, c), make([]float64, c)
	for i := range p.x {
		o.gx[i/hw] = o.dpool[i/hw] / float64(hw)
		if p.linear || a[i] > 0 {
			o.gsum[i/hw%c] += o.gx[i/hw]
			o.gxsum[i/hw%c] += o.gx[i/hw] * p.x[i]
		}
	}
}

func TestNesterov(t *testing.T) {
	t.Run("two steps by hand", func(t *testing.T) {
		// d = g + decay·w, v = mu·v + d, w −= lr·(d + mu·v), worked in float64.
		var arena kernel.Arena
		t.Cleanup(arena.Free)
		w, v, g := arena.Floats(1), arena.Floats(1), arena.Floats(1)
		w[0], g[0] = 2, 0.5
		ww, vv := 2.0, 0.0
		for range 2 {
			kernel.Nesterov(w, v, g, 0.1, 0.9, 0.01)
			d := 0.5 + 0.01*ww
			vv = 0.9*vv + d
			ww -= 0.1 * (d + 0.9*vv)
		}
		near(t, "w", wide(w), []float64{ww}, 1e-6)
		near(t, "v", wide(v), []float64{vv}, 1e-6)
	})
}

func TestNaNInAnActivationReachesTheOutput(t *testing.T) {
	// A ReLU that turned NaN into 0 would hide a diverged training.
	for _, isa := range kernel.Available() {
		var arena kernel.Arena
		g := convCase{h: 1, w: 1, l: 1, ci: 1, co: 1}.geometry()
		k := kernel.Conv{Geometry: g, Valid: 1, X: arena.Floats(16), Scale: arena.Floats(1), Shift: arena.Floats(1),
			WP: arena.Floats(9), Z: arena.Floats(16)}
		k.X[0], k.WP[4], k.Scale[0] = float32(math.NaN()), 1, 1
		newTeam(t, &arena, isa, 1, g.ScratchLen()).Forward([]kernel.Conv{k})
		if z := float64(k.Z[0]); !math.IsNaN(z) {
			t.Errorf("%v: z = %g, want NaN", isa, z)
		}
	}
}

func TestDetect(t *testing.T) {
	if os.Getenv("IGC_ISA_HELPER") != "" {
		isa, err := kernel.Detect()
		fmt.Println(isa, err)
		os.Exit(0)
	}
	run := func(isa string) string {
		cmd := exec.Command(os.Args[0], "-test.run=^TestDetect$")
		cmd.Env = append(os.Environ(), "IGC_ISA_HELPER=1", "IGC_ISA="+isa)
		out, err := cmd.Output()
		if err != nil {
			t.Fatal(err)
		}
		return string(out)
	}
	t.Run("IGC_ISA forces one", func(t *testing.T) {
		if got := run("portable"); !strings.HasPrefix(got, "portable <nil>") {
			t.Errorf("got %q", got)
		}
	})
	t.Run("an unknown name is an error that lists the known", func(t *testing.T) {
		if got := run("sse9"); !strings.Contains(got, "IGC_ISA=sse9: this machine has") ||
			!strings.Contains(got, "portable") {
			t.Errorf("got %q", got)
		}
	})
}

// TestAnyNumberOfThreadsGivesTheSameBits also shows that a team covers every
// block: what no thread computes stays NaN.
func TestAnyNumberOfThreadsGivesTheSameBits(t *testing.T) {
	for _, p := range precisions {
		t.Run(p.String(), func(t *testing.T) { testThreads(t, p) })
	}
}

func testThreads(t *testing.T, p kernel.Precision) {
	isa := kernel.Available()[0]
	g := convCase{h: 3, w: 4, l: 3, ci: 2, co: 2, secondary: true, precision: p}.geometry()
	n, r := g.InLen(), rand.New(rand.NewPCG(5, 6))
	for blocks := 1; blocks <= 9; blocks++ {
		var want []float32
		for threads := 1; threads <= 5; threads++ {
			var arena kernel.Arena
			z := nan(arena.Floats(blocks * n))
			rng := rand.New(rand.NewPCG(7, uint64(blocks)))
			x := packed(&arena, p, uniform(rng, blocks*kernel.Lanes*g.In()*g.H*g.W, 2), blocks*kernel.Lanes, g.In(), g.H, g.W)
			wp, ws := f32(&arena, uniform(rng, g.PrimaryLen(), 1)), f32(&arena, uniform(rng, g.MixesLen(), 1))
			calls := make([]kernel.Conv, blocks)
			for b := range calls {
				calls[b] = kernel.Conv{Geometry: g, Valid: 16, X: x[b*n : (b+1)*n], Z: z[b*n : (b+1)*n], WP: wp, WS: ws}
			}
			team := newTeam(t, &arena, isa, threads, g.ScratchLen())
			for range 1 + r.IntN(20) { // some in quick succession, some after a sleep
				time.Sleep(time.Duration(r.IntN(2)*r.IntN(4)) * time.Millisecond)
				team.Forward(calls)
			}
			switch {
			case threads == 1:
				want = z
			case !sameBits(z, want):
				t.Errorf("%d blocks: %d threads give other bits than one", blocks, threads)
			}
		}
	}
}
