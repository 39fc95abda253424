package kernel_test

import (
	"fmt"
	"math"
	"testing"

	"igcsearch/trainer/kernel"
)

// block is an IGC block, L partitions of m channels to co, on pictures of 32×32.
func block(l, m, co, stride int) kernel.Geometry {
	return kernel.Geometry{H: 32, W: 32, KH: 3, KW: 3, Stride: stride, L: l, Ci: m, Co: co,
		StepIn: 1, StepOut: 1, Mixes: []kernel.Mix{{K: l, Step: co}}}
}

// conv is a regular convolution.
func conv(size, k, stride, ci, co int) kernel.Geometry {
	return kernel.Geometry{H: size, W: size, KH: k, KW: k, Stride: stride, L: 1, Ci: ci, Co: co, StepIn: 1, StepOut: 1}
}

var benchCases = []struct {
	name string
	kernel.Geometry
}{
	// Figure 3's blocks.
	{"L64M1", block(64, 1, 1, 1)}, {"L40M2", block(40, 2, 2, 1)}, {"L28M3", block(28, 3, 3, 1)},
	{"L12M6", block(12, 6, 6, 1)},
	{"L3M13", block(3, 13, 13, 1)}, {"L2M16", block(2, 16, 16, 1)}, {"L1M23", block(1, 23, 23, 1)},
	{"L128M1", block(128, 1, 1, 1)}, {"L85M2", block(85, 2, 2, 1)}, {"L41M5", block(41, 5, 5, 1)},
	{"L12M12", block(12, 12, 12, 1)}, {"L1M44", block(1, 44, 44, 1)},
	// Where stages begin: stride 2, twice the channels.
	{"L24M2to4", block(24, 2, 4, 2)}, {"L4M8to16", block(4, 8, 16, 2)}, {"RegConvW16to32", conv(32, 3, 2, 16, 32)},
	// Other kernels: a linear projection, 5×5, ImageNet's first convolution (on a quarter of its picture).
	{"1x1C64", conv(32, 1, 1, 64, 64)}, {"5x5C16", conv(32, 5, 1, 16, 16)},
	{"7x7stride2C3to64", conv(112, 7, 2, 3, 64)},
}

// eachBench calls f for each case and precision, with a name of the precision that
// benchstat -col /precision compares.
func eachBench(f func(name string, g kernel.Geometry)) {
	for _, p := range precisions {
		for _, c := range benchCases {
			g := c.Geometry
			g.Precision = p
			f(fmt.Sprintf("precision=%v/%s", p, c.name), g)
		}
	}
}

// BenchmarkRow measures the micro-kernels on one row of 16 pictures that lies in
// the caches, beside the peak of the instruction that multiplies: one thread, best
// instruction set (IGC_ISA forces another).
func BenchmarkRow(b *testing.B) {
	isa, err := kernel.Detect()
	if err != nil {
		b.Fatal(err)
	}
	eachBench(func(name string, g kernel.Geometry) {
		_, ow := g.Size()
		var a kernel.Arena
		b.Cleanup(a.Free)
		team := newTeam(b, &a, isa, 1, g.ScratchLen())
		peak := team.Peak(g.Precision)
		for _, m := range []kernel.Micro{kernel.Primary, kernel.Secondary, kernel.PrimaryGrad, kernel.SecondaryGrad} {
			if len(g.Mixes) == 0 && (m == kernel.Secondary || m == kernel.SecondaryGrad) {
				continue
			}
			b.Run(fmt.Sprintf("%v/%s", m, name), func(b *testing.B) {
				b.SetBytes(int64(4 * g.Precision.Floats((g.In()*g.W+g.Out()*ow)*kernel.Lanes)))
				team.Row(g, m, 10)
				b.ResetTimer()
				rate := team.Row(g, m, b.N)
				b.ReportMetric(rate/1e9, "GFLOP/s")
				b.ReportMetric(100*rate/peak, "%peak")
			})
		}
	})
}

// BenchmarkBlock measures one convolution block on 16 pictures, one thread,
// best instruction set (IGC_ISA forces another): go test -bench Block -count 10
// and benchstat.
func BenchmarkBlock(b *testing.B) {
	isa, err := kernel.Detect()
	if err != nil {
		b.Fatal(err)
	}
	eachBench(func(name string, g kernel.Geometry) {
		var a kernel.Arena
		b.Cleanup(a.Free)
		oh, ow := g.Size()
		in, out := g.In(), g.Out()
		k := kernel.Conv{Geometry: g, Valid: kernel.Lanes,
			X: a.Floats(g.InLen()), Z: a.Floats(g.OutLen()), G: a.Floats(g.OutLen()), GX: a.Floats(g.InLen()),
			Scale: a.Floats(in), Shift: a.Floats(in), CA: a.Floats(out), CB: a.Floats(out), CC: a.Floats(out),
			Sum: a.Doubles(out), SumSq: a.Doubles(out), GSum: a.Doubles(in), GXSum: a.Doubles(in),
			WP: a.Floats(g.PrimaryLen()), WPT: a.Floats(g.PrimaryLen()), DWP: a.Floats(g.PrimaryLen()),
			WS: a.Floats(g.MixesLen()), WST: a.Floats(g.MixesLen()), DWS: a.Floats(g.MixesLen())}
		fill(g.Precision, k.X, 97)
		fill(g.Precision, k.G, 89)
		g.Transpose(k.WPT, k.WST, k.WP, k.WS)
		team, calls := newTeam(b, &a, isa, 1, g.ScratchLen()), []kernel.Conv{k}
		peak := team.Peak(g.Precision)
		madds := float64(g.PrimaryLen()+g.MixesLen()) * float64(oh*ow*kernel.Lanes)
		bench := func(way string, flops float64, floats int, f func()) {
			b.Run(way+"/"+name, func(b *testing.B) {
				b.SetBytes(int64(4 * floats)) // what has to cross memory at least
				for b.Loop() {
					f()
				}
				rate := flops * float64(b.N) / b.Elapsed().Seconds()
				b.ReportMetric(rate/1e9, "GFLOP/s")
				b.ReportMetric(100*rate/peak, "%peak")
			})
		}
		bench("forward", 2*madds, len(k.X)+len(k.Z), func() { team.Forward(calls) })
		bench("backward", 4*madds, 2*(len(k.X)+len(k.Z)), func() { team.Backward(calls) })
	})
}

// fill writes activations of small whole numbers, n different ones, of which bfloat16
// has each: not only zeros, which would be no slower, but nobody would believe it.
func fill(p kernel.Precision, x []float32, n int) {
	for i := range x {
		x[i] = float32(i%n - n/2)
		if p != kernel.F32 {
			bits := math.Float32bits(x[i])
			x[i] = math.Float32frombits(bits | bits>>16) // two of them
		}
	}
}
