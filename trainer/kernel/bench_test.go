package kernel_test

import (
	"fmt"
	"testing"

	"igcsearch/trainer/kernel"
)

var benchPairs = []struct{ l, m int }{{64, 1}, {40, 2}, {28, 3}, {12, 6}, {3, 13}, {2, 16}, {1, 23}, {128, 1}, {85, 2}, {41, 5}, {12, 12}, {1, 44}}

// BenchmarkRow measures the micro-kernels on one row of 16 pictures, 32 columns,
// that lies in the caches, beside the peak of the machine: one thread, best
// instruction set (IGC_ISA forces another).
func BenchmarkRow(b *testing.B) {
	isa, err := kernel.Detect()
	if err != nil {
		b.Fatal(err)
	}
	for _, p := range benchPairs {
		g := kernel.Geometry{H: 32, W: 32, L: p.l, Ci: p.m, Co: p.m, Secondary: true}
		var a kernel.Arena
		b.Cleanup(a.Free)
		team := newTeam(b, &a, isa, 1, g.ScratchLen())
		peak := team.Peak()
		for _, m := range []kernel.Micro{kernel.Primary, kernel.Secondary, kernel.PrimaryGrad, kernel.SecondaryGrad} {
			flops := 2 * float64(g.PrimaryLen()) * float64(g.W*kernel.Lanes)
			if m == kernel.Secondary || m == kernel.SecondaryGrad {
				flops = 2 * float64(g.SecondaryLen()) * float64(g.W*kernel.Lanes)
			}
			b.Run(fmt.Sprintf("%v/L%dM%d", m, p.l, p.m), func(b *testing.B) {
				b.SetBytes(int64(4 * (g.In() + g.Out()) * g.W * kernel.Lanes))
				team.Row(g, m, 10)
				b.ResetTimer()
				team.Row(g, m, b.N)
				rate := flops * float64(b.N) / b.Elapsed().Seconds()
				b.ReportMetric(rate/1e9, "GFLOP/s")
				b.ReportMetric(100*rate/peak, "%peak")
			})
		}
	}
}

// BenchmarkBlock measures one IGC block on 16 pictures of 32×32, one thread,
// best instruction set (IGC_ISA forces another): go test -bench Block -count 10
// and benchstat.
func BenchmarkBlock(b *testing.B) {
	isa, err := kernel.Detect()
	if err != nil {
		b.Fatal(err)
	}
	for _, p := range benchPairs {
		var a kernel.Arena
		g := kernel.Geometry{H: 32, W: 32, L: p.l, Ci: p.m, Co: p.m, Secondary: true}
		n, c := g.Out()*g.H*g.W*kernel.Lanes, g.Out()
		k := kernel.Conv{Geometry: g, Valid: kernel.Lanes,
			X: a.Floats(n), Z: a.Floats(n), G: a.Floats(n), GX: a.Floats(n),
			Scale: a.Floats(c), Shift: a.Floats(c), CA: a.Floats(c), CB: a.Floats(c), CC: a.Floats(c),
			Sum: a.Doubles(c), SumSq: a.Doubles(c), GSum: a.Doubles(c), GXSum: a.Doubles(c),
			WP: a.Floats(g.PrimaryLen()), WPT: a.Floats(g.PrimaryLen()), DWP: a.Floats(g.PrimaryLen()),
			WS: a.Floats(g.SecondaryLen()), WST: a.Floats(g.SecondaryLen()), DWS: a.Floats(g.SecondaryLen())}
		for i := range k.X { // no zeros: they would be no slower, but nobody would believe it
			k.X[i], k.G[i] = float32(i%97)-48, float32(i%89)-44
		}
		g.Transpose(k.WPT, k.WST, k.WP, k.WS)
		team, calls := newTeam(b, &a, isa, 1, g.ScratchLen()), []kernel.Conv{k}
		madds := float64(g.PrimaryLen()+g.SecondaryLen()) * float64(g.H*g.W*kernel.Lanes)
		bench := func(name string, flops float64, tensors int, f func()) {
			b.Run(fmt.Sprintf("%s/L%dM%d", name, p.l, p.m), func(b *testing.B) {
				b.SetBytes(int64(4 * tensors * n)) // what has to cross memory at least
				for b.Loop() {
					f()
				}
				b.ReportMetric(flops*float64(b.N)/b.Elapsed().Seconds()/1e9, "GFLOP/s")
			})
		}
		bench("forward", 2*madds, 2, func() { team.Forward(calls) })
		bench("backward", 4*madds, 4, func() { team.Backward(calls) })
	}
}
