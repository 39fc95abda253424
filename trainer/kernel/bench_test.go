package kernel_test

import (
	"fmt"
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

// BenchmarkRow measures the micro-kernels on one row of 16 pictures that lies in
// the caches, beside the peak of the machine: one thread, best
// instruction set (IGC_ISA forces another).
func BenchmarkRow(b *testing.B) {
	isa, err := kernel.Detect()
	if err != nil {
		b.Fatal(err)
	}
	for _, c := range benchCases {
		g := c.Geometry
		_, ow := g.Size()
		var a kernel.Arena
		b.Cleanup(a.Free)
		team := newTeam(b, &a, isa, 1, g.ScratchLen())
		peak := team.Peak(kernel.F32)
		for _, m := range []kernel.Micro{kernel.Primary, kernel.Secondary, kernel.PrimaryGrad, kernel.SecondaryGrad} {
			if len(g.Mixes) == 0 && (m == kernel.Secondary || m == kernel.SecondaryGrad) {
				continue
			}
			b.Run(fmt.Sprintf("%v/%s", m, c.name), func(b *testing.B) {
				b.SetBytes(int64(4 * (g.In()*g.W + g.Out()*ow) * kernel.Lanes))
				team.Row(g, m, 10)
				b.ResetTimer()
				rate := team.Row(g, m, b.N)
				b.ReportMetric(rate/1e9, "GFLOP/s")
				b.ReportMetric(100*rate/peak, "%peak")
			})
		}
	}
}

// BenchmarkBlock measures one convolution block on 16 pictures, one thread,
// best instruction set (IGC_ISA forces another): go test -bench Block -count 10
// and benchstat.
func BenchmarkBlock(b *testing.B) {
	isa, err := kernel.Detect()
	if err != nil {
		b.Fatal(err)
	}
	for _, bc := range benchCases {
		var a kernel.Arena
		g := bc.Geometry
		oh, ow := g.Size()
		in, out := g.In(), g.Out()
		k := kernel.Conv{Geometry: g, Valid: kernel.Lanes,
			X: a.Floats(g.InLen()), Z: a.Floats(g.OutLen()), G: a.Floats(g.OutLen()), GX: a.Floats(g.InLen()),
			Scale: a.Floats(in), Shift: a.Floats(in), CA: a.Floats(out), CB: a.Floats(out), CC: a.Floats(out),
			Sum: a.Doubles(out), SumSq: a.Doubles(out), GSum: a.Doubles(in), GXSum: a.Doubles(in),
			WP: a.Floats(g.PrimaryLen()), WPT: a.Floats(g.PrimaryLen()), DWP: a.Floats(g.PrimaryLen()),
			WS: a.Floats(g.MixesLen()), WST: a.Floats(g.MixesLen()), DWS: a.Floats(g.MixesLen())}
		for i := range k.X { // no zeros: they would be no slower, but nobody would believe it
			k.X[i] = float32(i%97) - 48
		}
		for i := range k.G {
			k.G[i] = float32(i%89) - 44
		}
		g.Transpose(k.WPT, k.WST, k.WP, k.WS)
		team, calls := newTeam(b, &a, isa, 1, g.ScratchLen()), []kernel.Conv{k}
		madds := float64(g.PrimaryLen()+g.MixesLen()) * float64(oh*ow*kernel.Lanes)
		bench := func(name string, flops float64, floats int, f func()) {
			b.Run(name+"/"+bc.name, func(b *testing.B) {
				b.SetBytes(int64(4 * floats)) // what has to cross memory at least
				for b.Loop() {
					f()
				}
				b.ReportMetric(flops*float64(b.N)/b.Elapsed().Seconds()/1e9, "GFLOP/s")
			})
		}
		bench("forward", 2*madds, len(k.X)+len(k.Z), func() { team.Forward(calls) })
		bench("backward", 4*madds, 2*(len(k.X)+len(k.Z)), func() { team.Backward(calls) })
	}
}
