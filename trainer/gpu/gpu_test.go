//go:build gpu

package gpu

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/sourcegraph/conc"
	"gorgonia.org/cu"

	"igcsearch/space"
	"igcsearch/trainer"
	"igcsearch/trainer/dataset"
	"igcsearch/trainer/gpu/emulator"
	"igcsearch/trainer/graph"
	"igcsearch/trainer/kernel"
)

func TestMain(m *testing.M) {
	if os.Getenv("IGC_EMULATED_DEVICES") == "" {
		os.Setenv("IGC_EMULATED_DEVICES", "2")
	}
	emulator.Main(m, "kernels")
}

// open returns the first GPU: a real one, or the emulated one that TestMain has
// the program find.
func open(t testing.TB) *Device {
	t.Helper()
	d, err := opened()
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// near checks |got − want| ≤ tol·(rms of want + |want|).
func near[T, U float32 | float64](t *testing.T, name string, got []T, want []U, tol float64) {
	t.Helper()
	if len(got) != len(want) {
		t.Fatalf("%s: %d values, want %d", name, len(got), len(want))
	}
	var sq float64
	for _, v := range want {
		sq += float64(v) * float64(v)
	}
	rms := math.Sqrt(sq / float64(max(1, len(want))))
	for i := range got {
		g, w := float64(got[i]), float64(want[i])
		if !(math.Abs(g-w) <= tol*(rms+math.Abs(w)+1e-30)) {
			t.Fatalf("%s[%d] = %g, want %g (rms %g)", name, i, g, w, rms)
		}
	}
}

// rig runs launches that a test makes by itself.
type rig struct {
	t testing.TB
	*Model
	p      *plan
	inputs map[*buffer][]float32
}

func newRig(t testing.TB, n int) *rig {
	r := &rig{t: t, Model: &Model{d: open(t)}, inputs: map[*buffer][]float32{}}
	r.p = &plan{tensors: &tensors{place: map[string]int{}}, n: n, blocks: ceil(n, lanes), purpose: training, gap: align}
	r.p.partsBuffer, r.p.counters = r.p.floats("parts", 0), r.p.floats("counters", 0)
	r.p.partsBuffer.kept, r.p.counters.kept = true, true
	t.Cleanup(func() {
		if err := r.d.do(func() error {
			for _, p := range r.memory {
				if err := cu.MemFree(p); err != nil {
					return err
				}
			}
			return nil
		}); err != nil {
			t.Error(err)
		}
	})
	return r
}

// input is a buffer with values; output one that is read afterwards.
func (r *rig) input(values []float64) *buffer {
	b := r.output(len(values))
	for _, v := range values {
		r.inputs[b] = append(r.inputs[b], float32(v))
	}
	return b
}

// activation is (n, c, h, w) as (B, c, h, w, 32), with values in the padding that
// must not count.
func (r *rig) activation(values []float64, size int) *buffer { return r.padded(values, size, 3) }

// padded is the same with a value of the caller's in the padding.
func (r *rig) padded(values []float64, size int, padding float64) *buffer {
	out := make([]float64, r.p.blocks*size*lanes)
	for i := range out {
		out[i] = padding
	}
	for i, v := range values {
		picture, at := i/size, i%size
		out[(picture/lanes*size+at)*lanes+picture%lanes] = v
	}
	return r.input(out)
}

func (r *rig) output(n int) *buffer {
	b := r.p.floats("tensor", n)
	b.kept = true
	return b
}

func (r *rig) run() {
	r.t.Helper()
	r.inputs[r.p.counters] = make([]float32, r.p.counters.bytes/4)
	total := r.p.arrange()
	err := r.d.do(func() error {
		base, err := r.alloc(total)
		if err != nil {
			return err
		}
		for _, b := range r.p.buffers {
			b.addr += base
		}
		if err := cu.MemsetD8Async(cu.DevicePtr(base), 0xFF, int64(total), r.stream); err != nil {
			return err
		}
		for b, v := range r.inputs {
			if err := upload(r.stream, b.addr, v); err != nil {
				return err
			}
		}
		for _, l := range r.p.launches {
			f, err := r.d.function(l.kernel)
			if err != nil {
				return err
			}
			if err := launchRaw(f, l.grid, l.block, l.shared, r.stream, encode(l.args)); err != nil {
				return fmt.Errorf("%s: %w", l.kernel, err)
			}
		}
		if err := r.stream.Synchronize(); err != nil {
			return err
		}
		for _, b := range r.p.buffers { // all of them are kept
			if err := b.intact(r.Model, r.p.gap); err != nil {
				return fmt.Errorf("a launch %w", err)
			}
		}
		return nil
	})
	if err != nil {
		r.t.Fatal(err)
	}
}

func (r *rig) read(b *buffer) []float32 {
	r.t.Helper()
	out := make([]float32, b.bytes/4)
	if err := r.do(func() error { return download(r.stream, out, b.address()) }); err != nil {
		r.t.Fatal(err)
	}
	return out
}

var convCases = []channels{
	{h: 5, w: 7, groups: 1, ci: 7, co: 7, kh: 3, kw: 3, stride: 1},
	{h: 4, w: 9, groups: 5, ci: 1, co: 1, kh: 3, kw: 3, stride: 1},
	{h: 9, w: 17, groups: 3, ci: 2, co: 2, kh: 3, kw: 3, stride: 1},
	{h: 3, w: 4, groups: 2, ci: 3, co: 3, kh: 3, kw: 3, stride: 1},
	{h: 8, w: 8, groups: 3, ci: 4, co: 4, kh: 3, kw: 3, stride: 1},
	{h: 2, w: 2, groups: 2, ci: 5, co: 5, kh: 3, kw: 3, stride: 1},
	{h: 6, w: 5, groups: 1, ci: 6, co: 6, kh: 3, kw: 3, stride: 1},
	{h: 4, w: 4, groups: 1, ci: 23, co: 23, kh: 3, kw: 3, stride: 1},
	{h: 3, w: 5, groups: 1, ci: 3, co: 80, kh: 3, kw: 3, stride: 1}, // several blocks of output channels
	{h: 3, w: 8, groups: 1, ci: 44, co: 44, kh: 3, kw: 3, stride: 1},
	{h: 1, w: 1, groups: 1, ci: 3, co: 13, kh: 3, kw: 3, stride: 1},
	{h: 5, w: 4, groups: 2, ci: 5, co: 5, kh: 3, kw: 3, stride: 1, stepIn: 2, stepOut: 2},
	{h: 4, w: 8, groups: 2, ci: 40, co: 40, kh: 1, kw: 1, stride: 1, stepIn: 2, stepOut: 2}, // second stages
	{h: 9, w: 6, groups: 3, ci: 1, co: 1, kh: 1, kw: 1, stride: 1, stepIn: 3, stepOut: 3},
	{h: 5, w: 6, groups: 4, ci: 2, co: 2, kh: 1, kw: 1, stride: 1, stepIn: 4, stepOut: 4},
	{h: 5, w: 6, groups: 2, ci: 3, co: 3, kh: 1, kw: 1, stride: 1, stepIn: 2, stepOut: 2},
	{h: 2, w: 3, groups: 5, ci: 41, co: 41, kh: 1, kw: 1, stride: 1, stepIn: 5, stepOut: 5},
	{h: 3, w: 3, groups: 1, ci: 85, co: 85, kh: 1, kw: 1, stride: 1},
	{h: 3, w: 3, groups: 1, ci: 13, co: 9, kh: 1, kw: 1, stride: 1},
	{h: 8, w: 8, groups: 3, ci: 4, co: 8, kh: 3, kw: 3, stride: 2},
	{h: 7, w: 9, groups: 5, ci: 1, co: 2, kh: 3, kw: 3, stride: 2},
	{h: 6, w: 32, groups: 2, ci: 2, co: 4, kh: 3, kw: 3, stride: 2},
	{h: 5, w: 4, groups: 3, ci: 4, co: 2, kh: 3, kw: 3, stride: 2, stepIn: 3, stepOut: 3},
	{h: 1, w: 1, groups: 2, ci: 6, co: 5, kh: 3, kw: 3, stride: 2},
	{h: 6, w: 10, groups: 1, ci: 3, co: 18, kh: 3, kw: 3, stride: 2},
	{h: 5, w: 20, groups: 2, ci: 2, co: 2, kh: 3, kw: 3, stride: 1}, // strips that share columns
	{h: 17, w: 17, groups: 1, ci: 4, co: 3, kh: 3, kw: 3, stride: 1},
	{h: 3, w: 28, groups: 2, ci: 1, co: 1, kh: 3, kw: 3, stride: 1},
	{h: 2, w: 14, groups: 1, ci: 5, co: 8, kh: 3, kw: 3, stride: 1},
	{h: 17, w: 20, groups: 1, ci: 2, co: 2, kh: 3, kw: 3, stride: 2},
	{h: 4, w: 27, groups: 1, ci: 3, co: 5, kh: 3, kw: 3, stride: 2},
	{h: 7, w: 7, groups: 2, ci: 16, co: 16, kh: 1, kw: 1, stride: 1, stepIn: 2, stepOut: 2},
	{h: 17, w: 3, groups: 2, ci: 2, co: 1, kh: 1, kw: 1, stride: 1},
	{h: 6, w: 28, groups: 2, ci: 3, co: 2, kh: 1, kw: 1, stride: 1, stepIn: 2, stepOut: 2},
	{h: 6, w: 5, groups: 3, ci: 4, co: 8, kh: 1, kw: 1, stride: 2},
	{h: 5, w: 6, groups: 5, ci: 3, co: 3, kh: 1, kw: 3, stride: 1},
	{h: 5, w: 6, groups: 3, ci: 2, co: 4, kh: 3, kw: 1, stride: 2},
	{h: 9, w: 8, groups: 3, ci: 4, co: 4, kh: 5, kw: 5, stride: 1},
	{h: 14, w: 15, groups: 1, ci: 3, co: 6, kh: 7, kw: 7, stride: 2},
	// Partitions whose channels lie neither side by side nor all as far apart as there are partitions.
	{h: 5, w: 6, groups: 12, ci: 3, co: 3, kh: 1, kw: 1, stride: 1, stepIn: 2, stepOut: 2}, // mixes of IGCV2
	{h: 2, w: 5, groups: 6, ci: 9, co: 9, kh: 1, kw: 1, stride: 1, stepIn: 3, stepOut: 3},
	{h: 4, w: 6, groups: 4, ci: 5, co: 3, kh: 1, kw: 1, stride: 1, stepOut: 4}, // ShuffleNet's first factor
	{h: 4, w: 5, groups: 6, ci: 2, co: 7, kh: 3, kw: 3, stride: 1, stepIn: 2, stepOut: 3},
	{h: 5, w: 9, groups: 4, ci: 3, co: 2, kh: 3, kw: 3, stride: 2, stepIn: 4, stepOut: 2},
	{h: 3, w: 3, groups: 6, ci: 2, co: 3, kh: 1, kw: 1, stride: 2, stepIn: 3, stepOut: 6},
}

func uniform(r *rand.Rand, n int, bound float64) []float64 {
	s := make([]float64, n)
	for i := range s {
		s[i] = float64(float32((2*r.Float64() - 1) * bound))
	}
	return s
}

// whole returns c with what a case leaves out: the sizes of the output, and steps of 1.
func (c channels) whole() channels {
	c.oh, c.ow = ceil(c.h, c.stride), ceil(c.w, c.stride)
	c.stepIn, c.stepOut = max(c.stepIn, 1), max(c.stepOut, 1)
	return c
}

// TestConvAgreesWithTheOracle is the conformance test of the convolution kernels,
// as that of package kernel: forward and gradients with what is fused into them,
// within 2e-6·(rms + |value|) of plain float64 loops, 2e-5 for sums.
func TestConvAgreesWithTheOracle(t *testing.T) {
	for _, c := range convCases {
		c = c.whole()
		for _, n := range []int{3, 33} {
			t.Run(fmt.Sprintf("%+v/%d", c, n), func(t *testing.T) { testConv(t, c, n, false, false) })
		}
		t.Run(fmt.Sprintf("%+v without a ReLU", c), func(t *testing.T) { testConv(t, c, 3, false, true) })
	}
}

// partitioned returns x, of n pictures, with the channels of each group one after the
// other, as the oracle has them, for groups of so many channels that lie step apart.
func (c channels) partitioned(x []float64, n, channels, step, hw int) []float64 {
	return kernel.Oracle{}.Permute(x, n*c.groups/step, channels, step, hw)
}

// apart is the inverse of partitioned.
func (c channels) apart(x []float64, n, channels, step, hw int) []float64 {
	return kernel.Oracle{}.Permute(x, n*c.groups/step, step, channels, hw)
}

// sums are those of v and v·by for each channel, as normalisations take them.
func sums(v, by []float64, channels, hw int) []float64 {
	s := make([]float64, 2*channels)
	for i := range v {
		s[i/hw%channels*2] += v[i]
		s[i/hw%channels*2+1] += v[i] * by[i]
	}
	return s
}

// total adds up the parts (C, parts, 2) that a kernel made of such sums.
func total(parts []float32, channels int) []float64 {
	s := make([]float64, 2*channels)
	per := len(parts) / channels
	for i, v := range parts {
		s[i/per*2+i%2] += float64(v)
	}
	return s
}

// convolved is what the kernels of a convolution compute.
type convolved struct{ z, gx, plain, dw []float64 }

// oracle is what the kernels should compute from an input a, with or without a ReLU, a
// gradient dz, and, as the gradient of one tensor, g.
func (c channels) oracle(n int, linear bool, a, dz, g, w []float64) (want convolved) {
	hw, ohw := c.h*c.w, c.oh*c.ow
	input := c.partitioned(a, n, c.ci, c.stepIn, hw)
	of := func(z []float64) []float64 { return c.partitioned(z, n, c.co, c.stepOut, ohw) }
	ofInput := func(dx []float64) []float64 { return c.apart(dx, n, c.ci, c.stepIn, hw) }
	conv := kernel.GroupConv{N: n, Groups: c.groups, Ci: c.ci, Co: c.co, H: c.h, W: c.w, KH: c.kh, KW: c.kw,
		Stride: c.stride}
	want.z = c.apart(conv.Forward(input, w), n, c.co, c.stepOut, ohw)
	dx, dw := conv.Backward(input, w, of(dz))
	want.gx, want.dw = ofInput(dx), dw
	for i := range want.gx {
		if a[i] <= 0 && !linear {
			want.gx[i] = 0
		}
	}
	plain, _ := conv.Backward(input, w, of(g))
	want.plain = ofInput(plain)
	return want
}

// testConv runs the kernels of a convolution, whose input has a ReLU or, if it is linear,
// none. On matrix units they agree with the oracle within 1e-3 on average, and as exactly
// as the others with the oracle of rounded operands.
func testConv(t *testing.T, c channels, n int, onMatrixUnits, linear bool) {
	rnd := rand.New(rand.NewPCG(1, 2))
	hw, ohw, in, out, weights := c.h*c.w, c.oh*c.ow, c.groups*c.ci, c.groups*c.co, c.groups*c.co*c.ci*c.kh*c.kw
	x, scale, shift, w := uniform(rnd, n*in*hw, 2), uniform(rnd, in, 1), uniform(rnd, in, 1), uniform(rnd, weights, 1)
	g, z := uniform(rnd, n*out*ohw, 1), uniform(rnd, n*out*ohw, 1)
	ca, cb, cc := uniform(rnd, out, 1), uniform(rnd, out, .1), uniform(rnd, out, .1)

	low := least(!linear)
	a := make([]float64, len(x))
	for i := range a {
		ch := i / hw % in
		a[i] = max(float64(low), scale[ch]*x[i]+shift[ch])
	}
	dz := make([]float64, len(g))
	for i := range dz {
		ch := i / ohw % out
		dz[i] = ca[ch]*g[i] + float64(float32(cb[ch]*z[i]+cc[ch]))
	}
	r := newRig(t, n)
	if onMatrixUnits {
		r = newRigTF32(t, n)
	}
	p := r.p
	bx, bg, bz := r.activation(x, in*hw), r.activation(g, out*ohw), r.activation(z, out*ohw)
	bscale, bshift, bw := r.input(scale), r.input(shift), r.input(w)
	bca, bcb, bcc := r.input(ca), r.input(cb), r.input(cc)
	gotZ, gotGX, gotPlain := r.output(p.blocks*out*ohw*lanes), r.output(p.blocks*in*hw*lanes),
		r.output(p.blocks*in*hw*lanes)
	forward := &convArgs{x: bx, scale: bscale, shift: bshift, w: bw, z: gotZ, low: low}
	of, by := newNormTest(r, rnd, out, n*ohw), newNormTest(r, rnd, in, n*hw)
	p.grouped(c, forward, of.forward())
	grad := c.gradient()
	p.grouped(grad, &convArgs{x: bg, w: bw, z: gotPlain, low: asItIs}, nil)
	backward := &convArgs{x: bg, x2: bz, scale: bca, scale2: bcb, shift: bcc, w: bw, z: gotGX, mx: bx, mlow: low}
	if !linear {
		backward.mscale, backward.mshift = bscale, bshift
	}
	if !p.rare(c) {
		backward.dz = r.output(p.blocks * out * ohw * lanes)
	}
	p.grouped(grad, backward, by.backward())
	p.place["w"] = 0
	p.weightGrad(c, &weightGradArgs{x: bx, scale: bscale, shift: bshift, low: low, g: bg, z: bz, ca: bca, cb: bcb, cc: bcc},
		"w", 1)
	ofTwo := p.partFloats
	if backward.dz != nil {
		p.weightGrad(c, &weightGradArgs{x: bx, scale: bscale, shift: bshift, low: low, g: backward.dz}, "w", 1)
	}
	forward.sums.kept, backward.sums.kept = true, true
	r.run()

	parts := r.read(p.partsBuffer)
	dw := added(parts[:ofTwo], weights)
	gotSums, gotGSums := total(r.read(forward.sums), out), total(r.read(backward.sums), in)
	values, gradients := unblock(r.read(gotZ), n, out*ohw), unblock(r.read(gotGX), n, in*hw)
	ofOne := unblock(r.read(gotPlain), n, in*hw)
	of.checkForward(gotSums)
	by.checkBackward(gotGSums)
	r.checkCounters()
	if backward.dz != nil {
		near(t, "dz", unblock(r.read(backward.dz), n, out*ohw), dz, 2e-6)
	}
	if onMatrixUnits {
		near(t, "dw of two tensors", dw, c.oracle(n, linear, a, dz, g, w).dw, 2e-5) // another kernel makes it
		dw = added(parts[ofTwo:], weights)
		want := c.oracle(n, linear, a, dz, g, w)
		nearOnAverage(t, "z", values, want.z, 1e-3)
		nearOnAverage(t, "gx", gradients, want.gx, 1e-3)
		nearOnAverage(t, "gx of one tensor", ofOne, want.plain, 1e-3)
		nearOnAverage(t, "dw", dw, want.dw, 1e-3)
		a, dz, g, w = tf32(a), tf32(dz), tf32(g), tf32(w)
	}
	want := c.oracle(n, linear, a, dz, g, w)
	near(t, "z", values, want.z, 2e-6)
	near(t, "gx", gradients, want.gx, 2e-6)
	near(t, "gx of one tensor", ofOne, want.plain, 2e-6)
	near(t, "sums", gotSums, sums(want.z, want.z, out, ohw), 2e-5)
	near(t, "sums of gx", gotGSums, sums(want.gx, x, in, hw), 2e-5)
	near(t, "dw", dw, want.dw, 2e-5)
	if backward.dz != nil {
		near(t, "dw of dz", added(parts[ofTwo:], weights), want.dw, 2e-5)
	}
}

// added is the sum of parts of n values each.
func added(parts []float32, n int) []float64 {
	sum := make([]float64, n)
	for i, v := range parts {
		sum[i%n] += float64(v)
	}
	return sum
}

// formula makes the same numbers as package graph's testdata/torch_losses.py.
func formula(tag, n int) []float32 {
	out := make([]float32, n)
	for i := range out {
		u := uint32(uint64(i)*2654435761 + uint64(tag)*40503 + 12345)
		out[i] = float32(u>>8)/(1<<23) - 1
	}
	return out
}

func fill(m *graph.Model, order []string) {
	for _, p := range m.Params {
		scale := len(p.Shape) == 1 && strings.HasSuffix(p.Name, "weight")
		for i, v := range formula(slices.Index(order, p.Name), len(p.Value)) {
			if scale {
				p.Value[i] = 1 + v/4
			} else {
				p.Value[i] = v / 2
			}
		}
	}
}

// newFed is a model that is fed by hand.
func newFed(t *testing.T, net space.Network, n int, o trainer.Recipe) *Model {
	t.Helper()
	in := net.Input()
	set := &dataset.Set{Name: "test", C: in.C, H: in.H, W: in.W, Train: dataset.Split{Labels: make([]uint16, n)}}
	m, err := open(t).New(net, n, set, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(m.Close)
	return m
}

// step runs a recorded step on pictures (N, C, H, W), and returns the mean loss.
func (m *Model) step(t *testing.T, r *recorded, x []float32, labels []int, rate float32) float64 {
	t.Helper()
	in := m.host.Net.Input()
	packed := make([]float32, m.fed.floats)
	kernel.Pack(packed, x, m.n, in.C, in.H, in.W)
	ids := make([]int32, r.y.bytes/4)
	for i := range ids {
		ids[i] = -1
		if i < len(labels) {
			ids[i] = int32(labels[i])
		}
	}
	losses := make([]float32, r.blocks*lanes)
	err := m.do(func() error {
		for _, err := range []error{send(m, m.state.addr, []state{{total: int32(m.n)}}),
			send(m, m.fed.from.addr, packed), send(m, r.y.addr, ids),
			send(m, m.rates.addr, []graph.Rates{{Learning: rate}}), r.graph.launch(m.stream),
			download(m.stream, losses, r.loss.addr), m.wait()} {
			if err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if r.purpose == training {
		return m.heard.losses[0]
	}
	sum := 0.0
	for _, l := range losses {
		sum += float64(l)
	}
	return sum / float64(m.n)
}

// TestTenStepsAgreeWithPyTorch is package graph's test of the same name.
func TestTenStepsAgreeWithPyTorch(t *testing.T) {
	var want struct {
		Order          []string
		Losses         []float64
		Evaluation     float64
		FirstGradients map[string][]float64 `json:"first_gradients"`
		Final          map[string][]float64
	}
	readJSON(t, "../graph/testdata/torch_losses.json", &want)
	const l, m, blocks, side, batch, classes = 3, 2, 2, 6, 5, 4
	model := newFed(t, space.Figure3(space.Pair{L: l, M: m}, blocks, space.Shape{C: 3, H: side, W: side}, classes),
		batch, trainer.Recipe{Momentum: 0.9, WeightDecay: 0.01, DecayAll: true})
	fill(model.host, want.Order)
	push(t, model)
	labels := make([]int, batch)
	var x []float32
	for s, wantLoss := range want.Losses {
		for i := range labels {
			labels[i] = (s + i*i) % classes
		}
		x = formula(100+s, batch*3*side*side)
		if loss := model.step(t, model.train, x, labels, 0.05); !(math.Abs(loss-wantLoss) <= 2e-5*wantLoss) {
			t.Errorf("loss of step %d = %.8f, PyTorch has %.8f", s, loss, wantLoss)
		}
		if s == 0 {
			pull(t, model)
			for _, p := range model.host.Params {
				near(t, "gradient of "+p.Name, p.Grad, want.FirstGradients[p.Name], 2e-5)
			}
		}
	}
	pull(t, model)
	for _, p := range model.host.Params {
		near(t, p.Name, p.Value, want.Final[p.Name], 1e-4)
	}
	for _, s := range model.host.Stats {
		near(t, s.Name, s.Value, want.Final[s.Name], 1e-4)
	}
	if loss := model.step(t, model.eval, x, labels, 0); !(math.Abs(loss-want.Evaluation) <= 1e-4*want.Evaluation) {
		t.Errorf("evaluation loss = %.8f, PyTorch has %.8f", loss, want.Evaluation)
	}
}

func push(t *testing.T, m *Model) {
	t.Helper()
	if err := m.Push(); err != nil {
		t.Fatal(err)
	}
}

func pull(t *testing.T, m *Model) {
	t.Helper()
	if err := m.Pull(); err != nil {
		t.Fatal(err)
	}
}

// TestNetworksAgreeWithPyTorch is package graph's test of the same name.
func TestNetworksAgreeWithPyTorch(t *testing.T) {
	var want struct {
		Networks map[string]struct {
			Losses     []float64
			Evaluation float64
			Gradients  map[string][2]float64
		}
	}
	readJSON(t, "../graph/testdata/torch_networks.json", &want)
	var shapes map[string]struct {
		Batch, Classes int
		Layers         []struct{ In struct{ C, H, W int } }
	}
	readJSON(t, "../graph/testdata/networks.json", &shapes)
	depths := map[string]int{"ResNet-C6 imagenet": 18, "IGC-L4M3 stages": 8, "RegConv-W6 stages": 8,
		"SumFusion stages": 5, "IGC-L4M2/L2M8/L8M3 stages": 8,
		"IGC-L4M2+Ident. flat": 6, "IGC-L4M2+Ident. stages": 14, "IGC-L4M2+Ident.+B2 stages": 8,
		"RegConv-W6+Ident. stages":    8,
		"IGC-L4M2+Ident.+ReLU stages": 8, "IGC-L4M2+Ident.+5x5 stages": 8, "IGC-L4M2+Ident.+1x3 stages": 8,
		"IGC-L4M2+Ident.+Swap stages": 8,
		"IGC-L4M2+Ident. imagenet":    10, "IGC-L4M2+Ident.+2L imagenet": 10,
		"IGC-L4M3+1x1 flat": 4, "IGCV2-M4K2K3 stages": 8, "IGCV2-M2K2K2+Ident. stages": 8, "IGCV3-W4R2G2x4 stages": 8,
		"RegNetX-W6G2 flat": 4, "RegNetX-W8G4 stages": 8, "ShuffleNet-W24G3 flat": 4, "ShuffleNet-W16G2 stages": 8}
	for name, want := range want.Networks {
		t.Run(name, func(t *testing.T) {
			system, layout, _ := strings.Cut(name, " ")
			depth := depths[name]
			if depth == 0 {
				depth = 5
			}
			side, batch, classes := shapes[name].Layers[0].In.H, shapes[name].Batch, shapes[name].Classes
			net := network(t, system, space.Layout(layout), depth, side, classes)
			m := newFed(t, net, batch, trainer.Recipe{Momentum: 0.9, WeightDecay: 0.01, DecayAll: true})
			fill(m.host, names(m.host))
			push(t, m)
			labels := make([]int, batch)
			var x []float32
			for s, wantLoss := range want.Losses {
				for i := range labels {
					labels[i] = (s + i*i) % classes
				}
				x = formula(100+s, batch*3*side*side)
				if loss := m.step(t, m.train, x, labels, 0.05); !(math.Abs(loss-wantLoss) <= 1e-4*wantLoss) {
					t.Errorf("loss of step %d = %.7f, PyTorch has %.7f", s, loss, wantLoss)
				}
				if s > 0 {
					continue
				}
				pull(t, m)
				for _, p := range m.host.Params {
					var sq, dot float64
					for i, v := range formula(999, len(p.Grad)) {
						sq += float64(p.Grad[i]) * float64(p.Grad[i])
						dot += float64(p.Grad[i]) * float64(v)
					}
					w := want.Gradients[p.Name]
					if !(math.Abs(math.Sqrt(sq)-w[0]) <= 1e-4*w[0]+1e-6) || !(math.Abs(dot-w[1]) <= 1e-4*w[0]+1e-6) {
						t.Errorf("gradient of %s: length %.6g, product %.6g; PyTorch has %.6g, %.6g", p.Name,
							math.Sqrt(sq), dot, w[0], w[1])
					}
				}
			}
			if loss := m.step(t, m.eval, x, labels, 0); !(math.Abs(loss-want.Evaluation) <= 1e-3*want.Evaluation) {
				t.Errorf("evaluation loss = %.7f, PyTorch has %.7f", loss, want.Evaluation)
			}
		})
	}
}

func readJSON(t *testing.T, name string, into any) {
	t.Helper()
	raw, err := os.ReadFile(name)
	if err == nil {
		err = json.Unmarshal(raw, into)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// pictureSet is a set of random pictures, of which the test pictures fill no batch.
func pictureSet(train, test, side int) *dataset.Set {
	r := rand.New(rand.NewPCG(5, 6))
	s := &dataset.Set{Name: "random", C: 3, H: side, W: side, Classes: []string{"a", "b", "c"},
		Mean: [3]float32{.4, .5, .6}, Std: [3]float32{.2, .3, .25}}
	split := func(n int) (p dataset.Split) {
		for range n * 3 * side * side {
			p.Pixels = append(p.Pixels, byte(r.Uint32()))
		}
		for range n {
			p.Labels = append(p.Labels, uint16(r.IntN(3)))
		}
		return p
	}
	s.Train, s.Validation, s.Test = split(train), split(7), split(test)
	return s
}

// newTrained is a model that is fed by the device, with first weights; it keeps
// averages and makes precise statistics.
func newTrained(t *testing.T, set *dataset.Set, batch int) *Model {
	t.Helper()
	return newTrainedOn(t, open(t), set, batch)
}

func newTrainedOn(t *testing.T, d *Device, set *dataset.Set, batch int) *Model {
	t.Helper()
	net := space.Figure3(space.Pair{L: 4, M: 2}, 2, space.Shape{C: 3, H: set.H, W: set.W}, len(set.Classes))
	m, err := d.New(net, batch, set, trainer.Recipe{Augmentation: &dataset.Augmentation{Pad: 2, Mirror: true},
		Seed: 3, Momentum: 0.9, WeightDecay: 1e-4,
		DecayAll: true, Average: true, Precise: true})
	if err != nil {
		t.Fatal(err)
	}
	fill(m.host, names(m.host))
	push(t, m)
	return m
}

func names(m *graph.Model) (list []string) {
	for _, p := range m.Params {
		list = append(list, p.Name)
	}
	return list
}

// rates are those of n steps from the given one on, with the mean of all weights so far
// as their average.
func rates(from, n int) (list []graph.Rates) {
	for k := range n {
		list = append(list, graph.Rates{Learning: .1, Average: 1 / float32(from+k+1)})
	}
	return list
}

// evaluate is an evaluation with averages and precise statistics, in the midst of a
// training.
func (m *Model) evaluate(t *testing.T, order []int) trainer.Score {
	t.Helper()
	var s trainer.Score
	for _, f := range []func() error{
		m.Exchange,
		func() error { return m.Measure(t.Context(), order) },
		func() (err error) { s, err = m.Evaluate(t.Context(), &m.set.Test); return err },
		m.Exchange,
	} {
		if err := f(); err != nil {
			t.Fatal(err)
		}
	}
	return s
}

// TestEvaluationIsThatOfTheProcessor: losses, weights, averages and precise statistics
// are within a relative 1e-4 of package graph's, pictures within two.
func TestEvaluationIsThatOfTheProcessor(t *testing.T) {
	const batch, side, steps = 20, 8, 3
	set := pictureSet(steps*batch, 45, side)
	for _, c := range []struct {
		system string
		layout space.Layout
		depth  int
	}{
		{"IGC-L4M2", space.Flat, 4},
		{"IGC-L4M2+Ident.", space.Stages, 14},
		{"RegConv-W6", space.Stages, 8},
		{"ResNet-C6", space.ImageNet, 18},
		{"IGCV2-M2K2K3", space.Flat, 4},
		{"IGCV3-W4R2G2", space.Stages, 8},
	} {
		t.Run(c.system, func(t *testing.T) {
			testEvaluation(t, network(t, c.system, c.layout, c.depth, side, 3), set, batch, steps)
		})
	}
}

// onBoth gives a model its first weights and returns the processor's model with the same.
func onBoth(t *testing.T, m *Model, net space.Network) *graph.Model {
	t.Helper()
	isa, err := kernel.Detect()
	if err != nil {
		t.Fatal(err)
	}
	o := m.r.GraphOptions()
	o.ISA = isa
	cpu, err := graph.New(net, m.n, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cpu.Close)
	fill(m.host, names(m.host))
	fill(cpu, names(cpu))
	return cpu
}

func testEvaluation(t *testing.T, net space.Network, set *dataset.Set, batch, steps int) {
	recipe := trainer.Recipe{Momentum: 0.9, WeightDecay: 0.01, DecayAll: true, Average: true, Precise: true}
	m, err := open(t).New(net, batch, set, recipe)
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	cpu := onBoth(t, m, net)
	push(t, m)
	order, list := dataset.Order(steps*batch, 3, 1), rates(0, steps)
	for i := range list {
		list[i].Learning = .02
	}
	losses, want := onProcessor(t, cpu, set, order, list, recipe, batch)

	if err := m.Train(t.Context(), 1, order, list, func(step int, s trainer.Score) error {
		if !(math.Abs(s.Loss-losses[step]) <= 1e-4*losses[step]) {
			t.Errorf("loss of step %d is %.7f, the processor's %.7f", step, s.Loss, losses[step])
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	got := m.evaluate(t, order[batch:])
	if d := got.Correct - want.Correct; d < -2 || d > 2 || !(math.Abs(got.Loss-want.Loss) <= 1e-4*want.Loss) {
		t.Errorf("score %+v, the processor's %+v", got, want)
	}
	pull(t, m)
	for i, p := range m.host.Params {
		near(t, p.Name, p.Value, cpu.Params[i].Value, 1e-4)
		near(t, "average of "+p.Name, p.Average, cpu.Params[i].Average, 1e-4)
	}
	for i, s := range m.host.Stats {
		near(t, s.Name, s.Value, cpu.Stats[i].Value, 1e-4)
		near(t, "precise "+s.Name, m.host.Precise[i].Value, cpu.Precise[i].Value, 1e-4)
	}
}

// onProcessor trains on the pictures of order and evaluates the test pictures by
// averages and by precise statistics of all batches but the first.
func onProcessor(t *testing.T, cpu *graph.Model, set *dataset.Set, order []int, list []graph.Rates,
	recipe trainer.Recipe, batch int) (losses []float64, score trainer.Score) {
	t.Helper()
	run := func(split *dataset.Split, order []int, do func(n int) error) {
		for len(order) > 0 {
			n := min(batch, len(order))
			x, y := cpu.Batch(n)
			clear(x)
			set.Fill(x, split, order[:n], nil, 0, 0)
			for i, picture := range order[:n] {
				y[i] = float32(split.Labels[picture])
			}
			if err := do(n); err != nil {
				t.Fatal(err)
			}
			order = order[n:]
		}
	}
	run(&set.Train, order, func(int) error {
		loss, err := cpu.Step()
		cpu.Update(list[len(losses)], recipe.Momentum, recipe.WeightDecay)
		losses = append(losses, loss)
		return err
	})
	cpu.Exchange()
	run(&set.Train, order[batch:], func(int) error { return cpu.Measure() })
	cpu.Measured()
	tested := set.Test.Len()
	run(&set.Test, dataset.Order(tested, 1, 1), func(n int) error {
		loss, err := cpu.Evaluate()
		score.Loss += loss * float64(n) / float64(tested)
		score.Correct += cpu.Correct(false)
		return err
	})
	cpu.Exchange()
	return losses, score
}

// TestPicturesAreThoseOfTheHost: the device crops, mirrors and normalises the same
// bits.
func TestPicturesAreThoseOfTheHost(t *testing.T) {
	set := pictureSet(90, 40, 9)
	m := newTrained(t, set, 35)
	defer m.Close()
	order := dataset.Order(90, 3, 2)[:70]
	if err := m.Train(t.Context(), 2, order, rates(0, 2), func(int, trainer.Score) error { return nil }); err != nil {
		t.Fatal(err)
	}
	got, labels, logits, err := m.Last()
	if err != nil {
		t.Fatal(err)
	}
	want := make([]float32, kernel.Blocks(35)*3*9*9*kernel.Lanes)
	set.Fill(want, &set.Train, order[35:], m.r.Augmentation, 3, 2)
	plain := make([]float32, 35*3*9*9)
	kernel.Unpack(plain, want, 35, 3, 9, 9)
	if !slices.Equal(got, plain) {
		t.Error("the pictures of the last batch are others than dataset.Fill's")
	}
	for i, l := range labels {
		if l != int(set.Train.Labels[order[35+i]]) {
			t.Errorf("label %d is %d", i, l)
		}
	}
	if len(logits) != 35*3 {
		t.Errorf("%d logits", len(logits))
	}
}

// TestSeedsShareTheirPixels: where each seed has a split of its own, the pictures are on the device once, and each model
// has its own training pictures and their normalisation.
func TestSeedsShareTheirPixels(t *testing.T) {
	set, err := dataset.Open(t.Context(), dataset.Options{Name: "synthetic", Validation: 100, TrainPictures: 70,
		TestPictures: 30, SplitPerSeed: true})
	if err != nil {
		t.Fatal(err)
	}
	d := open(t)
	var models []*Model
	for seed := range 2 {
		of, err := set.OfSeed(seed)
		if err != nil {
			t.Fatal(err)
		}
		m := newTrainedOn(t, d, of, 35)
		models = append(models, m)
	}
	if a, b := models[0].pictures, models[1].pictures; a.pixels.addr != b.pixels.addr || a.table.addr == b.table.addr {
		t.Errorf("pixels at %x and %x, tables at %x and %x: want the pixels once and two tables", a.pixels.addr,
			b.pixels.addr, a.table.addr, b.table.addr)
	}
	if len(d.pools) != 1 {
		t.Errorf("%d pools on the device", len(d.pools))
	}
	for _, m := range models {
		order := dataset.Order(70, 3, 2)
		if err := m.Train(t.Context(), 2, order, rates(0, 2), func(int, trainer.Score) error { return nil }); err != nil {
			t.Fatal(err)
		}
		got, labels, _, err := m.Last()
		if err != nil {
			t.Fatal(err)
		}
		want, plain := make([]float32, kernel.Blocks(35)*3*16*16*kernel.Lanes), make([]float32, 35*3*16*16)
		m.set.Fill(want, &m.set.Train, order[35:], m.r.Augmentation, 3, 2)
		kernel.Unpack(plain, want, 35, 3, 16, 16)
		if !slices.Equal(got, plain) {
			t.Error("the pictures of the last batch are others than dataset.Fill's")
		}
		for i, l := range labels {
			if l != int(m.set.Train.Labels[order[35+i]]) {
				t.Errorf("label %d is %d", i, l)
			}
		}
	}
	models[0].Close()
	models[1].Close()
	if len(d.pools)+len(d.pictures) != 0 {
		t.Errorf("%d pools and %d sets are left on the device", len(d.pools), len(d.pictures))
	}
}

// TestSameBits: of two trainings at once, of one that was interrupted, of one that is
// evaluated after each epoch, and of one alone.
func TestSameBits(t *testing.T) {
	set := pictureSet(96, 40, 8)
	epoch := func(m *Model, e int) {
		if err := m.Train(t.Context(), e, dataset.Order(96, 3, uint64(e)), rates(3*(e-1), 3),
			func(int, trainer.Score) error { return nil }); err != nil {
			t.Error(err)
		}
		if err := m.Pull(); err != nil {
			t.Error(err)
		}
	}
	each := func(m *Model, f func(values []float32)) {
		for _, p := range m.host.Params {
			f(p.Value)
			f(p.Velocity)
			f(p.Average)
		}
		for _, s := range append(m.host.Stats, m.host.Precise...) {
			f(s.Value)
		}
	}
	tensors := func(m *Model) (all []float32) {
		each(m, func(values []float32) { all = append(all, values...) })
		return all
	}
	evaluate := func(m *Model) trainer.Score {
		s := m.evaluate(t, dataset.Order(96, 3, 0)[:64])
		pull(t, m)
		return s
	}
	alone := newTrained(t, set, 32)
	defer alone.Close()
	epoch(alone, 1)
	half := tensors(alone)
	epoch(alone, 2)
	want := tensors(alone)
	score := evaluate(alone)
	after := tensors(alone)

	var wg conc.WaitGroup
	both := []*Model{newTrained(t, set, 32), newTrained(t, set, 32)}
	for _, m := range both {
		wg.Go(func() {
			epoch(m, 1)
			epoch(m, 2)
		})
	}
	wg.Wait()
	for _, m := range both {
		if !slices.Equal(tensors(m), want) {
			t.Error("beside another training the bits are others")
		}
		m.Close()
	}

	resumed := newTrained(t, set, 32)
	defer resumed.Close()
	i := 0
	each(resumed, func(values []float32) { i += copy(values, half[i:]) })
	push(t, resumed)
	epoch(resumed, 2)
	if !slices.Equal(tensors(resumed), want) {
		t.Error("after an interruption the bits are others")
	}
	if evaluate(resumed) != score || !slices.Equal(tensors(resumed), after) {
		t.Error("after an interruption the evaluation is another")
	}

	evaluated := newTrained(t, set, 32)
	defer evaluated.Close()
	epoch(evaluated, 1)
	evaluate(evaluated)
	epoch(evaluated, 2)
	if evaluate(evaluated) != score || !slices.Equal(tensors(evaluated), after) {
		t.Error("with an evaluation between the epochs the bits are others")
	}
}

// TestEvaluateCountsTheRest: the last batch of a split has pictures that count and
// places that do not. The loss of a picture of another class is the bias.
func TestEvaluateCountsTheRest(t *testing.T) {
	set := pictureSet(64, 75, 8)
	m := newTrained(t, set, 32)
	defer m.Close()
	// With a bias that outweighs all, the network answers one class.
	for _, p := range m.host.Params {
		if p.Name == "fc.bias" {
			copy(p.Value, []float32{0, 1e6, 0})
		}
	}
	push(t, m)
	for _, split := range []*dataset.Split{&set.Test, &set.Validation, &set.Train} {
		want := 0
		for _, l := range split.Labels {
			if l == 1 {
				want++
			}
		}
		got, err := m.Evaluate(t.Context(), split)
		if err != nil || got.Correct != want {
			t.Errorf("%d right of %d, want %d (%v)", got.Correct, split.Len(), want, err)
		}
		if loss := 1e6 * float64(split.Len()-want) / float64(split.Len()); !(math.Abs(got.Loss-loss) <= 1e-4*loss) {
			t.Errorf("loss %g, want %g", got.Loss, loss)
		}
	}
}

// TestMemory: what does not fit says so, and gives back what it took.
func TestMemory(t *testing.T) {
	d := open(t)
	set := pictureSet(64, 5, 32)
	before := free(t, d)
	net := space.Figure3(space.Pair{L: 4096, M: 1}, 6, space.Shape{C: 3, H: 32, W: 32}, 3)
	var held []*Model
	for len(held) < 64 {
		m, err := d.New(net, 1024, set, trainer.Recipe{})
		if err != nil {
			if !errors.Is(err, ErrMemory) {
				t.Errorf("error %v, want ErrMemory", err)
			}
			break
		}
		held = append(held, m)
	}
	if len(held) == 64 {
		t.Skip("the device has more memory than this test asks for")
	}
	for _, m := range held {
		m.Close()
	}
	if after := free(t, d); after != before && os.Getenv("IGC_REQUIRE_GPU") == "" {
		t.Errorf("%d bytes free, %d before", after, before)
	}
}

// TestDiverged: a loss that is no number is heard of, and ends the training.
func TestDiverged(t *testing.T) {
	set := pictureSet(96, 5, 8)
	m := newTrained(t, set, 32)
	defer m.Close()
	for _, p := range m.host.Params {
		if p.Name == "block1.bn.weight" {
			p.Value[0] = float32(math.NaN())
		}
	}
	push(t, m)
	stop := errors.New("stop")
	err := m.Train(t.Context(), 1, dataset.Order(96, 3, 1), rates(0, 3), func(step int, s trainer.Score) error {
		if !math.IsNaN(s.Loss) {
			t.Errorf("loss %g of step %d", s.Loss, step)
		}
		return stop
	})
	if !errors.Is(err, stop) {
		t.Errorf("error %v", err)
	}
	s, err := m.Evaluate(t.Context(), &set.Train)
	if err != nil || !math.IsNaN(s.Loss) || s.Correct != 0 {
		t.Errorf("score %+v (%v), want a loss that is no number and no picture right", s, err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := m.Train(ctx, 1, dataset.Order(96, 3, 1), rates(0, 3), nil); !errors.Is(err, context.Canceled) {
		t.Errorf("error %v, want that of the context", err)
	}
}

var opened = sync.OnceValues(func() (*Device, error) { return Open(0) })
