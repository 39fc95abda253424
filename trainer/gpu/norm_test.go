//go:build gpu

package gpu

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"
	"unsafe"

	"igcsearch/space"
	"igcsearch/trainer/graph"
)

// normTest is a normalisation in the launches of a rig, forward or backward.
type normTest struct {
	*rig
	c                  int
	count              float64
	weight, bias       []float64
	wasMean, wasVar    []float64
	mean, istd         []float64 // read backward
	args               normArgs
	gotMean, gotVar    *buffer
	gotCentre, gotIstd *buffer // float64
}

func newNormTest(r *rig, rnd *rand.Rand, c, count int) *normTest {
	positive := func(values []float64) []float64 {
		for i := range values {
			values[i] = .1 + math.Abs(values[i])
		}
		return values
	}
	return &normTest{rig: r, c: c, count: float64(count), weight: uniform(rnd, c, 1), bias: uniform(rnd, c, 1),
		wasMean: uniform(rnd, c, 1), wasVar: positive(uniform(rnd, c, 1)), mean: uniform(rnd, c, 1),
		istd: positive(uniform(rnd, c, 1))}
}

// doubles is an input of float64.
func (r *rig) doubles(values []float64) *buffer {
	b := r.output(2 * len(values))
	r.inputs[b] = unsafe.Slice((*float32)(unsafe.Pointer(unsafe.SliceData(values))), 2*len(values))
	return b
}

func (r *rig) readDoubles(b *buffer) []float64 {
	v := r.read(b)
	return slices.Clone(unsafe.Slice((*float64)(unsafe.Pointer(unsafe.SliceData(v))), len(v)/2))
}

func (n *normTest) forward() *normArgs {
	n.gotMean, n.gotVar = n.input(n.wasMean), n.input(n.wasVar)
	n.gotCentre, n.gotIstd = n.output(2*n.c), n.output(2*n.c)
	n.args = normArgs{epsilon: graph.Epsilon, factor: .75, count: n.count, inverse: 1 / n.count,
		weight: n.input(n.weight), bias: n.input(n.bias), runningMean: n.gotMean, runningVar: n.gotVar,
		scale: n.output(n.c), shift: n.output(n.c), mean: n.gotCentre, istd: n.gotIstd, state: n.input(make([]float64, 8))}
	return &n.args
}

func (n *normTest) backward() *normArgs {
	n.args = normArgs{count: n.count, inverse: 1 / n.count, weight: n.input(n.weight), mean: n.doubles(n.mean),
		istd: n.doubles(n.istd), dweight: n.output(n.c), dbias: n.output(n.c), ca: n.output(n.c), cb: n.output(n.c),
		cc: n.output(n.c)}
	return &n.args
}

// checkForward compares what the kernel made of the sums (c, 2) of z and z² with the
// formulas in plain Go.
func (n *normTest) checkForward(sums []float64) {
	n.t.Helper()
	const epsilon = float64(float32(graph.Epsilon))
	var scale, shift, runningMean, runningVar, centre, istd []float64
	for c := range n.c {
		mean := sums[2*c] / n.count
		variance := max(sums[2*c+1]/n.count-mean*mean, 0)
		s := n.weight[c] / math.Sqrt(variance+epsilon)
		unbiased := variance * n.count / max(n.count-1, 1)
		if n.count == 2 {
			unbiased = variance * 2
		}
		scale, shift = append(scale, s), append(shift, n.bias[c]-mean*s)
		runningMean = append(runningMean, .75*n.wasMean[c]+.25*mean)
		runningVar = append(runningVar, .75*n.wasVar[c]+.25*unbiased)
		centre, istd = append(centre, mean), append(istd, 1/math.Sqrt(variance+epsilon))
	}
	t := n.t.(*testing.T)
	near(t, "scale", n.read(n.args.scale), scale, 1e-6)
	near(t, "shift", n.read(n.args.shift), shift, 1e-6)
	near(t, "running mean", n.read(n.gotMean), runningMean, 1e-6)
	near(t, "running variance", n.read(n.gotVar), runningVar, 1e-6)
	near(t, "mean", n.readDoubles(n.gotCentre), centre, 1e-9)
	near(t, "1/deviation", n.readDoubles(n.gotIstd), istd, 1e-9)
}

// checkBackward is the same of the sums of g and g·z: dz, ca·g + cb·z + cc, has the
// formula's value where g and z are 0 and 0, 1 and 0, 0 and 1.
func (n *normTest) checkBackward(sums []float64) {
	n.t.Helper()
	var dweight, dbias, ca, cb, cc []float64
	for c := range n.c {
		g, mean, istd := sums[2*c], n.mean[c], n.istd[c]
		dw := istd * (sums[2*c+1] - mean*g)
		dz := func(g1, z float64) float64 {
			return n.weight[c] * istd * (g1 - g/n.count - (z-mean)*istd*dw/n.count)
		}
		dweight, dbias = append(dweight, dw), append(dbias, g)
		ca, cb, cc = append(ca, dz(1, 0)-dz(0, 0)), append(cb, dz(0, 1)-dz(0, 0)), append(cc, dz(0, 0))
	}
	t := n.t.(*testing.T)
	near(t, "dweight", n.read(n.args.dweight), dweight, 1e-6)
	near(t, "dbias", n.read(n.args.dbias), dbias, 1e-6)
	near(t, "ca", n.read(n.args.ca), ca, 1e-6)
	near(t, "cb", n.read(n.args.cb), cb, 1e-6)
	near(t, "cc", n.read(n.args.cc), cc, 1e-6)
}

// checkCounters fails if a launch left a counter that the next would begin with.
func (r *rig) checkCounters() {
	r.t.Helper()
	for i, v := range r.read(r.p.counters) {
		if math.Float32bits(v) != 0 {
			r.t.Errorf("counter %d is %d after the launches", i, math.Float32bits(v))
		}
	}
}

// TestWhichBlockIsLastChangesNoBit ends normalisations with the blocks in three
// orders, of several blocks for each channel and of several channels for each block.
func TestWhichBlockIsLastChangesNoBit(t *testing.T) {
	for _, c := range []channels{
		{h: 16, w: 17, groups: 3, ci: 2, co: 2, kh: 3, kw: 3, stride: 1},
		{h: 8, w: 9, groups: 2, ci: 40, co: 40, kh: 1, kw: 1, stride: 1, stepIn: 2, stepOut: 2},
		{h: 9, w: 8, groups: 3, ci: 4, co: 6, kh: 5, kw: 5, stride: 1},
	} {
		c = c.whole()
		var want []float32
		for _, order := range []string{"", "reverse", "random", "random"} {
			t.Setenv("IGC_EMULATED_ORDER", order)
			got := endedNorms(t, c, 40)
			if want == nil {
				want = got
			}
			if !slices.EqualFunc(got, want, func(a, b float32) bool { return math.Float32bits(a) == math.Float32bits(b) }) {
				t.Errorf("%+v: order %q has other bits", c, order)
			}
		}
	}
}

// endedNorms is what a convolution and the end of a residual unit write for their
// normalisations.
func endedNorms(t *testing.T, c channels, n int) (all []float32) {
	r, rnd := newRig(t, n), rand.New(rand.NewPCG(3, 4))
	out, hw := c.groups*c.co, c.oh*c.ow
	floats := func(size int) *buffer { return r.input(uniform(rnd, r.p.blocks*size*lanes, 1)) }
	of, first, second := newNormTest(r, rnd, out, n*hw), newNormTest(r, rnd, out, n*hw), newNormTest(r, rnd, out, n*hw)
	z := floats(out * hw)
	conv := &convArgs{x: floats(c.groups * c.ci * c.h * c.w), w: r.input(uniform(rnd, out*c.ci*c.kh*c.kw, 1)), z: z,
		low: asItIs}
	r.p.grouped(c, conv, of.forward())
	unit := &unitArgs{c: int32(out), h: int32(c.oh), w: int32(c.ow), n: int32(n), z: z, x: floats(out * hw),
		out: floats(out * hw), g: floats(out * hw), gx: floats(out * hw)}
	r.p.gradRows("add_grad", space.Shape{C: out, H: c.oh, W: c.ow}, unit, first.backward(), second.backward())
	unit.sums.kept, unit.xsums.kept = true, true
	conv.sums.kept = true
	r.run()
	of.checkForward(total(r.read(conv.sums), out))
	first.checkBackward(total(r.read(unit.sums), out))
	second.checkBackward(total(r.read(unit.xsums), out))
	r.checkCounters()
	for _, a := range []normArgs{of.args, first.args, second.args} {
		for _, b := range []*buffer{a.runningMean, a.runningVar, a.scale, a.shift, a.dweight, a.dbias, a.ca, a.cb, a.cc} {
			if b != nil {
				all = append(all, r.read(b)...)
			}
		}
	}
	return all
}
