package kernel_test

import (
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

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
}

func (c convCase) geometry() kernel.Geometry {
	if c.kh == 0 {
		c.kh, c.kw, c.stride = 3, 3, max(c.stride, 1)
	}
	if c.secondary {
		c.mixes = []kernel.Mix{{K: c.l, Step: c.co}}
	}
	return kernel.Geometry{H: c.h, W: c.w, KH: c.kh, KW: c.kw, Stride: c.stride, L: c.l, Ci: c.ci, Co: c.co,
		StepIn: max(c.stepIn, 1), StepOut: max(c.stepOut, 1), Mixes: c.mixes, Between: c.between}
}

func (c convCase) String() string {
	g := c.geometry()
	return fmt.Sprintf("L=%d Ci=%d Co=%d %dx%d batch=%d mixes=%v kernel %dx%d stride %d steps %d %d between=%v linear=%v",
		c.l, c.ci, c.co, c.h, c.w, c.n, g.Mixes, g.KH, g.KW, g.Stride, g.StepIn, g.StepOut, c.between, c.linear)
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

// data is a case in PyTorch's layout, float64, with values that float32 holds.
type data struct {
	x, scale, shift, wp, ws, g, z, ca, cb, cc []float64
}

func uniform(r *rand.Rand, n int, bound float64) []float64 {
	s := make([]float64, n)
	for i := range s {
		s[i] = float64(float32((2*r.Float64() - 1) * bound))
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

func packed(a *kernel.Arena, s []float64, n, c, h, w int) []float32 {
	out := a.Floats(kernel.Blocks(n) * c * h * w * kernel.Lanes)
	kernel.Pack(out, f32(a, s), n, c, h, w)
	return out
}

func unpacked(x []float32, n, c, h, w int) []float64 {
	s := make([]float32, n*c*h*w)
	kernel.Unpack(s, x, n, c, h, w)
	out := make([]float64, len(s))
	for i, v := range s {
		out[i] = float64(v)
	}
	return out
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
// kernels: every instruction set of this machine, forward and gradients, each
// element within 2e-6·(rms + |value|) of plain float64 loops, 2e-5 for the
// sums of the weights' gradients.
func TestConvAgreesWithTheOracle(t *testing.T) {
	for _, isa := range kernel.Available() {
		for _, c := range convCases {
			for _, normalised := range []bool{true, false} {
				t.Run(fmt.Sprintf("%v/%v/normalised=%v", isa, c, normalised), func(t *testing.T) {
					testConv(t, isa, c, normalised)
				})
			}
		}
	}
}

// convTest is a convolution with its inputs, what the oracle makes of them, and the
// calls of the kernels.
type convTest struct {
	convCase
	kernel.Geometry
	normalised bool
	in         data
	want       struct{ z, sum, sumsq, gx, gsum, gxsum, dwp, dws []float64 }

	arena         kernel.Arena
	team          *kernel.Team
	conv          kernel.Conv // what all calls share
	calls         []kernel.Conv
	x, g          []float32 // packed inputs
	z, gx         []float32
	sums          [4][]float64 // sum, sumsq, gsum, gxsum: (B, channels)
	dwp, dws      []float32    // (B, …)
	height, width int          // of the output
	blocks        int
	hw, ohw       int
	inCh, outCh   int
}

func testConv(t *testing.T, isa kernel.ISA, c convCase, normalised bool) {
	g := c.geometry()
	oh, ow := g.Size()
	p := &convTest{convCase: c, Geometry: g, normalised: normalised, height: oh, width: ow, blocks: kernel.Blocks(c.n),
		hw: c.h * c.w, ohw: oh * ow, inCh: g.In(), outCh: g.Out()}
	t.Cleanup(p.arena.Free)
	r := rand.New(rand.NewPCG(1, 2))
	in, out := p.inCh, p.outCh
	p.in = data{
		x: uniform(r, c.n*in*p.hw, 2), scale: uniform(r, in, 1), shift: uniform(r, in, 1),
		wp: uniform(r, g.PrimaryLen(), 1), ws: uniform(r, g.MixesLen(), 1),
		g: uniform(r, c.n*out*p.ohw, 1), ca: uniform(r, out, 1), cb: uniform(r, out, .1), cc: uniform(r, out, .1),
	}
	p.oracle()
	p.pack()
	p.team = newTeam(t, &p.arena, isa, 2, g.ScratchLen())
	x, grad, w := slices.Clone(p.x), slices.Clone(p.g), slices.Clone(p.conv.WP)
	p.run()
	p.runInPlace(t)
	p.runWithKeptOutput(t)
	p.runPooled(t, r)
	p.compare(t)
	if !slices.Equal(x, p.x) || !slices.Equal(grad, p.g) || !slices.Equal(w, p.conv.WP) {
		t.Error("a kernel changed its input")
	}
}

// partitioned returns x (N, c, HW) with the channels of each partition one after the
// other, for partitions of so many channels that lie step apart: the channels are
// numbered in three digits, of which the last two change places. back is the inverse.
func (p *convTest) partitioned(x []float64, c, channels, step, hw int, back bool) []float64 {
	l, m := channels, step
	if back {
		l, m = step, channels
	}
	return kernel.Oracle{}.Permute(x, p.n*c/(channels*step), l, m, hw)
}

// oracle computes a = relu(scale·x + shift), z = P Ws Pᵀ Wp a, dz = ca·g + cb·z + cc
// and all gradients.
func (p *convTest) oracle() {
	var o kernel.Oracle
	c, d, w := p.convCase, p.in, &p.want
	a := d.x
	if p.normalised {
		a = o.Affine(d.x, d.scale, d.shift, c.n, p.inCh, p.hw)
		for i := range a {
			if c.linear {
				ch := i / p.hw % p.inCh
				a[i] = d.scale[ch]*d.x[i] + d.shift[ch]
			}
		}
	}
	primary := kernel.GroupConv{N: c.n, Groups: c.l, Ci: c.ci, Co: c.co, H: c.h, W: c.w, KH: p.KH, KW: p.KW,
		Stride: p.Stride}
	y := p.partitioned(primary.Forward(p.partitioned(a, p.inCh, c.ci, p.StepIn, p.hw, false), d.wp),
		p.outCh, c.co, p.StepOut, p.ohw, true)
	if c.between {
		for i := range y {
			y[i] = max(0, y[i])
		}
	}
	w.z = slices.Clone(y)
	factor := func(m kernel.Mix) kernel.GroupConv {
		return kernel.GroupConv{N: c.n, Groups: p.outCh / m.K, Ci: m.K, Co: m.K, H: p.height, W: p.width,
			KH: 1, KW: 1, Stride: 1}
	}
	var reads, weights [][]float64 // of each mix
	for ws, mixes := d.ws, p.Mixes; len(mixes) > 0; mixes = mixes[1:] {
		m := mixes[0]
		read := p.partitioned(w.z, p.outCh, m.K, m.Step, p.ohw, false)
		reads, weights = append(reads, read), append(weights, ws[:p.MixLen(m)])
		w.z = p.partitioned(factor(m).Forward(read, weights[len(weights)-1]), p.outCh, m.K, m.Step, p.ohw, true)
		ws = ws[p.MixLen(m):]
	}
	dz := make([]float64, len(w.z))
	w.sum, w.sumsq = make([]float64, p.outCh), make([]float64, p.outCh)
	for i := range w.z {
		ch := i / p.ohw % p.outCh
		z := float64(float32(w.z[i]))
		w.z[i] = z
		dz[i] = d.ca[ch]*d.g[i] + d.cb[ch]*z + d.cc[ch]
		w.sum[ch] += z
		w.sumsq[ch] += z * z
	}
	dy := dz
	for i, m := range slices.Backward(p.Mixes) {
		dread, dw := factor(m).Backward(reads[i], weights[i], p.partitioned(dy, p.outCh, m.K, m.Step, p.ohw, false))
		dy, w.dws = p.partitioned(dread, p.outCh, m.K, m.Step, p.ohw, true), append(dw, w.dws...)
	}
	if c.between {
		for i := range dy {
			if y[i] <= 0 {
				dy[i] = 0
			}
		}
	}
	w.gx, w.dwp = primary.Backward(p.partitioned(a, p.inCh, c.ci, p.StepIn, p.hw, false), d.wp,
		p.partitioned(dy, p.outCh, c.co, p.StepOut, p.ohw, false))
	w.gx = p.partitioned(w.gx, p.inCh, c.ci, p.StepIn, p.hw, true)
	w.gsum, w.gxsum = make([]float64, p.inCh), make([]float64, p.inCh)
	for i := range w.gx {
		if p.normalised && !c.linear && a[i] <= 0 {
			w.gx[i] = 0
		}
		w.gsum[i/p.hw%p.inCh] += w.gx[i]
		w.gxsum[i/p.hw%p.inCh] += w.gx[i] * d.x[i]
	}
}

// pack makes the calls of the kernels, one for each block, with NaN in the memory of
// results.
func (p *convTest) pack() {
	a, c, d := &p.arena, p.convCase, p.in
	conv := kernel.Conv{Geometry: p.Geometry, WP: f32(a, d.wp), WS: f32(a, d.ws)}
	conv.WPT, conv.WST = a.Floats(p.PrimaryLen()), a.Floats(p.MixesLen())
	p.Transpose(conv.WPT, conv.WST, conv.WP, conv.WS)
	if p.normalised {
		conv.Scale, conv.Shift, conv.Linear = f32(a, d.scale), f32(a, d.shift), c.linear
	}
	conv.CA, conv.CB, conv.CC = f32(a, d.ca), f32(a, d.cb), f32(a, d.cc)
	p.conv = conv
	p.x, p.g = packed(a, d.x, c.n, p.inCh, c.h, c.w), packed(a, d.g, c.n, p.outCh, p.height, p.width)
	p.z, p.gx = nan(a.Floats(p.blocks*p.OutLen())), nan(a.Floats(p.blocks*p.InLen()))
	for i := range p.sums {
		p.sums[i] = a.Doubles(p.blocks * []int{p.outCh, p.outCh, p.inCh, p.inCh}[i])
	}
	p.dwp, p.dws = a.Floats(p.blocks*p.PrimaryLen()), a.Floats(p.blocks*p.MixesLen())
	for b := range p.blocks {
		k := conv
		k.Valid = min(16, c.n-16*b)
		k.X, k.Z = at(p.x, b, p.InLen()), at(p.z, b, p.OutLen())
		k.Sum, k.SumSq = at(p.sums[0], b, p.outCh), at(p.sums[1], b, p.outCh)
		k.G, k.GX = at(p.g, b, p.OutLen()), at(p.gx, b, p.InLen())
		k.GSum, k.GXSum = at(p.sums[2], b, p.inCh), at(p.sums[3], b, p.inCh)
		k.DWP, k.DWS = at(p.dwp, b, p.PrimaryLen()), at(p.dws, b, p.MixesLen())
		p.calls = append(p.calls, k)
	}
}

// nan fills s with NaN.
func nan(s []float32) []float32 {
	for i := range s {
		s[i] = float32(math.NaN())
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
	if p.InLen() != p.OutLen() {
		return
	}
	inPlace := slices.Clone(p.calls)
	g := packed(&p.arena, p.in.g, p.n, p.outCh, p.height, p.width)
	for b := range inPlace {
		inPlace[b].G = at(g, b, p.OutLen())
		inPlace[b].GX = inPlace[b].G
	}
	p.team.Backward(inPlace)
	if !slices.Equal(g, p.gx) {
		t.Error("gx differs in place of g")
	}
}

// runWithKeptOutput keeps the output of the primary convolutions: the bits are the
// same.
func (p *convTest) runWithKeptOutput(t *testing.T) {
	if len(p.Mixes) == 0 {
		return
	}
	dwp, dws, gx := slices.Clone(p.dwp), slices.Clone(p.dws), slices.Clone(p.gx)
	kept := slices.Clone(p.calls)
	for b := range kept {
		kept[b].Y = p.arena.Floats(p.OutLen())
	}
	p.team.Forward(kept)
	p.team.Backward(kept)
	if !slices.Equal(dwp, p.dwp) || !slices.Equal(dws, p.dws) || !slices.Equal(gx, p.gx) {
		t.Error("gradients differ with the primary convolutions' output kept")
	}
}

// runPooled checks that a gradient that is the same at every position, masked by a
// ReLU of z, gives the same as that gradient written out and masked.
func (p *convTest) runPooled(t *testing.T, r *rand.Rand) {
	a, out := &p.arena, p.outCh
	scale, shift, g := f32(a, uniform(r, out, 1)), f32(a, uniform(r, out, 1)), f32(a, uniform(r, out*16, 1))
	pooled, spread := slices.Clone(p.calls), slices.Clone(p.calls)
	for _, calls := range [][]kernel.Conv{pooled, spread} {
		for b := range calls {
			k := &calls[b]
			k.Y, k.GX, k.DWP, k.DWS = nil, nil, a.Floats(p.PrimaryLen()), a.Floats(p.MixesLen())
		}
	}
	for b := range pooled {
		pooled[b].G, pooled[b].GScale, pooled[b].GShift = g, scale, shift
		k := &spread[b]
		k.G = a.Floats(p.OutLen())
		for i := range k.G {
			ch, lane := i/16/p.width%out, i%16
			if scale[ch]*k.Z[i]+shift[ch] > 0 {
				k.G[i] = g[ch*16+lane]
			}
		}
	}
	p.team.Backward(spread)
	p.team.Backward(pooled)
	for b := range pooled {
		near(t, "dwp of a pooled gradient", wide(pooled[b].DWP), wide(spread[b].DWP), 1e-5)
		near(t, "dws of a pooled gradient", wide(pooled[b].DWS), wide(spread[b].DWS), 1e-5)
	}
}

// compare compares the results of run with the oracle's.
func (p *convTest) compare(t *testing.T) {
	total := func(s []float64, n int) []float64 {
		out := make([]float64, n)
		for i, v := range s {
			out[i%n] += v
		}
		return out
	}
	w := &p.want
	near(t, "z", unpacked(p.z, p.n, p.outCh, p.height, p.width), w.z, 2e-6)
	near(t, "sum", total(p.sums[0], p.outCh), w.sum, 2e-5)
	near(t, "sumsq", total(p.sums[1], p.outCh), w.sumsq, 2e-5)
	near(t, "gx", unpacked(p.gx, p.n, p.inCh, p.h, p.w), w.gx, 4e-6)
	if p.normalised {
		near(t, "gsum", total(p.sums[2], p.inCh), w.gsum, 2e-5)
		near(t, "gxsum", total(p.sums[3], p.inCh), w.gxsum, 2e-5)
	}
	dw := p.arena.Floats(p.PrimaryLen())
	kernel.SumBlocks(dw, p.dwp)
	near(t, "dwp", wide(dw), w.dwp, 2e-5)
	if len(p.Mixes) > 0 {
		dw = p.arena.Floats(p.MixesLen())
		kernel.SumBlocks(dw, p.dws)
		near(t, "dws", wide(dw), w.dws, 2e-5)
	}
}

// TestHeadAgreesWithTheOracle checks pooling, linear layer and cross-entropy,
// forward and backward, on a batch with padding lanes.
func TestHeadAgreesWithTheOracle(t *testing.T) {
	for _, isa := range kernel.Available() {
		for _, size := range []headSize{{5, 3, 7, 11, 3, false}, {4, 4, 80, 100, 16, false}, {1, 1, 1, 2, 1, false},
			{5, 3, 7, 11, 3, true}} {
			t.Run(fmt.Sprintf("%v/%+v", isa, size), func(t *testing.T) { testHead(t, isa, size) })
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

func testHead(t *testing.T, isa kernel.ISA, size headSize) {
	var arena kernel.Arena
	t.Cleanup(arena.Free)
	r := rand.New(rand.NewPCG(3, 4))
	n, c, k := size.n, size.c, size.k
	p := headTest{headSize: size, x: uniform(r, n*c*size.h*size.w, 2), scale: uniform(r, c, 1), shift: uniform(r, c, 1)}
	p.w, p.bias, p.labels = uniform(r, k*c, 1), uniform(r, k, 1), arena.Floats(16)
	for i := range n {
		p.labels[i] = float32(r.IntN(k))
	}
	p.labels[15] = float32(k - 1)
	p.oracle()
	head := kernel.Head{
		H: size.h, W: size.w, C: c, K: k, Linear: size.linear, Valid: n,
		X: packed(&arena, p.x, n, c, size.h, size.w), Scale: f32(&arena, p.scale), Shift: f32(&arena, p.shift),
		Pool: arena.Floats(c * 16), WL: f32(&arena, p.w), Bias: f32(&arena, p.bias),
		Logits: arena.Floats(k * 16), Labels: p.labels, Gain: 1 / float32(n),
		Loss: arena.Doubles(16), DLogits: arena.Floats(k * 16),
		DWL: arena.Floats(k * c), DBias: arena.Floats(k), DPool: arena.Floats(c * 16),
		GX: arena.Floats(c * 16), Open: arena.Floats(c * 16), OpenX: arena.Floats(c * 16),
		GSum: arena.Doubles(c), GXSum: arena.Doubles(c),
	}
	heads := []kernel.Head{head}
	team := newTeam(t, &arena, isa, 1, 0)
	team.PoolForward(heads)
	team.LinearForward(heads)
	team.CrossEntropy(heads)
	team.LinearBackward(heads)
	team.PoolBackward(heads)
	near(t, "pool", unpacked(head.Pool, n, c, 1, 1), p.want.pool, 2e-6)
	near(t, "logits", unpacked(head.Logits, n, k, 1, 1), p.want.logits, 4e-6)
	near(t, "loss", head.Loss, p.want.loss, 4e-6)
	near(t, "dlogits", unpacked(head.DLogits, n, k, 1, 1), p.want.dlogits, 4e-6)
	near(t, "dw", wide(head.DWL), p.want.dw, 1e-5)
	near(t, "db", wide(head.DBias), p.want.db, 1e-5)
	near(t, "gx", unpacked(head.GX, n, c, 1, 1), p.want.gx, 1e-5)
	near(t, "gsum", head.GSum, p.want.gsum, 1e-5)
	near(t, "gxsum", head.GXSum, p.want.gxsum, 1e-5)
}

func (p *headTest) oracle() {
	n, c, k, hw, o := p.n, p.c, p.k, p.h*p.headSize.w, &p.want
	a := kernel.Oracle{}.Affine(p.x, p.scale, p.shift, n, c, hw)
	for i, x := range p.x {
		if p.linear {
			a[i] = p.scale[i/hw%c]*x + p.shift[i/hw%c]
		}
	}
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
	isa := kernel.Available()[0]
	g := convCase{h: 3, w: 4, l: 3, ci: 2, co: 2, secondary: true}.geometry()
	n, r := g.In()*g.H*g.W*kernel.Lanes, rand.New(rand.NewPCG(5, 6))
	for blocks := 1; blocks <= 9; blocks++ {
		var want []float32
		for threads := 1; threads <= 5; threads++ {
			var arena kernel.Arena
			x, z := arena.Floats(blocks*n), arena.Floats(blocks*n)
			rng := rand.New(rand.NewPCG(7, uint64(blocks)))
			for i := range x {
				x[i], z[i] = float32(rng.NormFloat64()), float32(math.NaN())
			}
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
			case !slices.Equal(z, want):
				t.Errorf("%d blocks: %d threads give other bits than one", blocks, threads)
			}
		}
	}
}
