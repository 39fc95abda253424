//go:build gpu

package gpu

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"strings"
	"sync"
	"testing"

	"igcsearch/search"
	"igcsearch/space"
	"igcsearch/trainer"
	"igcsearch/trainer/dataset"
)

// tf32 rounds numbers, as float32, to the nearest ones with ten bits behind the
// point, of two to that farther from 0.
func tf32(x []float64) []float64 {
	out := make([]float64, len(x))
	for i, v := range x {
		out[i] = float64(math.Float32frombits((math.Float32bits(float32(v)) + 0x1000) &^ 0x1fff))
	}
	return out
}

// nearOnAverage checks that the root mean square of got − want is at most tol times
// that of want.
func nearOnAverage[T float32 | float64](t *testing.T, name string, got []T, want []float64, tol float64) {
	t.Helper()
	var sq, of float64
	for i, w := range want {
		sq += (float64(got[i]) - w) * (float64(got[i]) - w)
		of += w * w
	}
	if relative := math.Sqrt(sq / of); !(relative <= tol) {
		t.Fatalf("%s is off by %.2g on average, want at most %g", name, relative, tol)
	}
}

// newRigTF32 is a rig on a GPU with matrix units for TF32. The emulated one then says
// that it has them.
func newRigTF32(t *testing.T, n int) *rig {
	t.Setenv("IGC_EMULATED_CAPABILITY", "8.0")
	r := newRig(t, n)
	d, err := openedTF32()
	if err != nil {
		t.Fatal(err)
	}
	if !d.info.Has(search.PrecisionTF32) {
		t.Skip(d.info.Name + " has no matrix units for TF32")
	}
	r.d, r.p.tf32 = d, true
	return r
}

var openedTF32 = sync.OnceValues(func() (*Device, error) { return Open(0) })

// TestMatrixUnitsAgreeWithTheOracle: the kernels of conv_tc.h are within 1e-3 of plain
// float64 loops, and within the tolerances of the other kernels of loops over rounded
// operands.
func TestMatrixUnitsAgreeWithTheOracle(t *testing.T) {
	for _, c := range []channels{
		{h: 3, w: 5, groups: 2, ci: 16, co: 16},
		{h: 5, w: 3, groups: 3, ci: 17, co: 17},
		{h: 4, w: 4, groups: 2, ci: 23, co: 23},
		{h: 2, w: 9, groups: 1, ci: 32, co: 32},
		{h: 17, w: 17, groups: 2, ci: 40, co: 40},
		{h: 2, w: 3, groups: 5, ci: 41, co: 41},
		{h: 3, w: 3, groups: 2, ci: 50, co: 50},
		{h: 1, w: 1, groups: 3, ci: 64, co: 64},
		{h: 3, w: 2, groups: 1, ci: 85, co: 85}, // several blocks of output channels
		{h: 2, w: 2, groups: 1, ci: 16, co: 57},
		{h: 2, w: 2, groups: 1, ci: 300, co: 27},
		{h: 2, w: 3, groups: 6, ci: 17, co: 20, stepIn: 2, stepOut: 3},
	} {
		c.kh, c.kw, c.stride = 1, 1, 1
		c.stepIn, c.stepOut = cmp.Or(c.stepIn, c.groups), cmp.Or(c.stepOut, c.groups)
		c = c.whole()
		for _, n := range []int{3, 33} {
			t.Run(fmt.Sprintf("%+v/%d", c, n), func(t *testing.T) { testConv(t, c, n, true, false) })
		}
		t.Run(fmt.Sprintf("%+v without a ReLU", c), func(t *testing.T) { testConv(t, c, 3, true, true) })
	}
}

// TestMatrixUnitsOnlyWhereAsked: without the setting no launch needs them, and with it
// only 1×1 convolutions of 16 channels and more.
func TestMatrixUnitsOnlyWhereAsked(t *testing.T) {
	for _, c := range []struct {
		c    channels
		tf32 bool
		want bool
	}{
		{channels{kh: 1, kw: 1, stride: 1, ci: 40, co: 40}, true, true},
		{channels{kh: 1, kw: 1, stride: 1, ci: 40, co: 40}, false, false},
		{channels{kh: 1, kw: 1, stride: 1, ci: 15, co: 40}, true, false},
		{channels{kh: 1, kw: 1, stride: 1, ci: 40, co: 15}, true, false},
		{channels{kh: 1, kw: 1, stride: 2, ci: 40, co: 40}, true, false},
		{channels{kh: 3, kw: 3, stride: 1, ci: 40, co: 40}, true, false},
		{channels{kh: 1, kw: 1, stride: 1, ci: 4096, co: 4096}, true, false}, // the shared memory is too small
	} {
		c.c.groups, c.c.h, c.c.w = 1, 2, 2
		c.c = c.c.whole()
		r := newRig(t, 3)
		r.p.tf32 = c.tf32
		r.p.place["w"] = 0
		b := kept("b", 4)
		r.p.grouped(c.c, &convArgs{x: b, w: b, z: b, low: asItIs}, nil)
		r.p.weightGrad(c.c, &weightGradArgs{x: b, g: b, low: asItIs}, "w", 1)
		for _, l := range r.p.launches {
			if got := strings.Contains(l.kernel, "_tf32"); got != c.want {
				t.Errorf("%+v with tf32 = %v: %s", c.c, c.tf32, l.kernel)
			}
		}
	}
}

// TestTrainingsOnMatrixUnits: a training has the same bits in each order of blocks and
// threads, others than with float32, and losses near to its.
func TestTrainingsOnMatrixUnits(t *testing.T) {
	t.Setenv("IGC_EMULATED_CAPABILITY", "8.0")
	d, err := openedTF32()
	if err != nil {
		t.Fatal(err)
	}
	if !d.info.Has(search.PrecisionTF32) {
		t.Skip(d.info.Name + " has no matrix units for TF32")
	}
	const batch, steps = 35, 3
	set := pictureSet(batch*steps, 7, 8)
	net := space.Figure3(space.Pair{L: 18, M: 2}, 2, space.Shape{C: 3, H: 8, W: 8}, 3)
	order, list := dataset.Order(batch*steps, 3, 1), rates(0, steps)
	train := func(precision string) (losses []float64, weights []float32) {
		m, err := d.New(net, batch, set, trainer.Recipe{Momentum: 0.9, WeightDecay: 0.01, Precision: precision})
		if err != nil {
			t.Fatal(err)
		}
		defer m.Close()
		want := search.Recipe{Precision: precision}.Arithmetic(d.info.Arithmetic())
		if m.Arithmetic() != want {
			t.Errorf("the arithmetic is %q, want %q", m.Arithmetic(), want)
		}
		fill(m.host, names(m.host))
		push(t, m)
		if err := m.Train(t.Context(), 1, order, list, func(_ int, s trainer.Score) error {
			losses = append(losses, s.Loss)
			return nil
		}); err != nil {
			t.Fatal(err)
		}
		pull(t, m)
		for _, p := range m.host.Params {
			weights = append(weights, p.Value...)
		}
		return losses, weights
	}
	exact, _ := train("")
	want, weights := train(search.PrecisionTF32)
	for i, loss := range exact {
		if want[i] == loss || !(math.Abs(want[i]-loss) <= 1e-2*loss) {
			t.Errorf("loss of step %d is %.7f, with float32 %.7f", i, want[i], loss)
		}
	}
	for _, ordered := range []string{"reverse", "random"} {
		t.Setenv("IGC_EMULATED_ORDER", ordered)
		if got, again := train(search.PrecisionTF32); !slices.Equal(got, want) || !slices.Equal(again, weights) {
			t.Errorf("in the order %s the bits are others", ordered)
		}
	}
}
