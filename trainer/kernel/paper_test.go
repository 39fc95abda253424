package kernel_test

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"igcsearch/trainer/kernel"
)

// forward runs one convolution on x (N, In, H, W) and returns (N, Out, H, W).
func forward(t *testing.T, isa kernel.ISA, g kernel.Geometry, n int, x, wp, ws []float64) []float64 {
	t.Helper()
	var a kernel.Arena
	defer a.Free()
	k := kernel.Conv{Geometry: g, Valid: n, X: packed(&a, kernel.F32, x, n, g.In(), g.H, g.W), WP: f32(&a, wp), WS: f32(&a, ws),
		Z: a.Floats(g.OutLen())}
	newTeam(t, &a, isa, 1, g.ScratchLen()).Forward([]kernel.Conv{k})
	return unpacked(kernel.F32, k.Z, n, g.Out(), g.H, g.W)
}

// The equivalences of Section 4 of the paper and Eq. 6, on random inputs and
// weights of paperN pictures, with the kernels themselves.
func TestPaper(t *testing.T) {
	for name, test := range map[string]func(*testing.T, kernel.ISA, *rand.Rand){
		"Eq. 6":        testComposite,
		"Eq. 17 to 20": testRegularIsABlock,
		"Eq. 22":       testSummationFusion,
		"M = 1":        testXception,
	} {
		for _, isa := range kernel.Available() {
			t.Run(fmt.Sprintf("%v/%s", isa, name), func(t *testing.T) { test(t, isa, rand.New(rand.NewPCG(12, 13))) })
		}
	}
}

const paperN, paperH, paperW = 3, 5, 6

// igcBlock is an IGC block, and regular a regular convolution, of 3×3 kernels.
func igcBlock(l, m int) kernel.Geometry {
	return convCase{l: l, ci: m, co: m, h: paperH, w: paperW, secondary: true}.geometry()
}

func regular(ci, co int) kernel.Geometry {
	return convCase{l: 1, ci: ci, co: co, h: paperH, w: paperW}.geometry()
}

// testComposite checks Eq. 6: a block is a regular convolution with the kernel P·Ws·Pᵀ·Wp.
func testComposite(t *testing.T, isa kernel.ISA, r *rand.Rand) {
	const n, h, w = paperN, paperH, paperW
	for _, p := range []struct{ l, m int }{{4, 3}, {1, 5}, {6, 1}, {3, 8}} {
		g := igcBlock(p.l, p.m)
		width := g.In()
		x, wp, ws := uniform(r, n*width*h*w, 1), uniform(r, g.PrimaryLen(), 1),
			uniform(r, g.MixesLen(), 1)
		composite := make([]float64, width*width*9)
		for l := range p.l {
			for m := range p.m {
				for k := range p.l { // output channel l·M + m takes partition k's channel m
					for i := range p.m {
						for s := range 9 {
							composite[((l*p.m+m)*width+k*p.m+i)*9+s] = ws[(m*p.l+l)*p.l+k] * wp[((k*p.m+m)*p.m+i)*9+s]
						}
					}
				}
			}
		}
		near(t, fmt.Sprintf("L%dM%d", p.l, p.m), forward(t, isa, g, n, x, wp, ws),
			forward(t, isa, regular(width, width), n, x, composite, nil), 1e-5)
	}
}

// testRegularIsABlock checks Eq. 17 to 20: a regular convolution is a block.
func testRegularIsABlock(t *testing.T, isa kernel.ISA, r *rand.Rand) {
	const n, h, w = paperN, paperH, paperW
	// For L = b²: x in b parts of M channels, repeated b times.
	for _, b := range []int{1, 2, 3, 4} {
		const m = 3
		c, l := b*m, b*b
		x, full := uniform(r, n*c*h*w, 1), uniform(r, c*c*9, 1)
		var xs, want []float64
		y := forward(t, isa, regular(c, c), n, x, full, nil)
		for i := range n {
			for range b {
				xs = append(xs, x[i*c*h*w:(i+1)*c*h*w]...)
				want = append(want, y[i*c*h*w:(i+1)*c*h*w]...)
			}
		}
		var wp []float64
		for i := range b { // partition i·b + j is W_ij
			for j := range b {
				for o := range m {
					at := ((i*m+o)*c + j*m) * 9
					wp = append(wp, full[at:at+m*9]...)
				}
			}
		}
		ws := make([]float64, m*l*l)
		for q := range m {
			for out := range l {
				for in := range l {
					if in/b == out%b {
						ws[(q*l+out)*l+in] = 1
					}
				}
			}
		}
		near(t, fmt.Sprint("L = ", l), forward(t, isa, igcBlock(l, m), n, xs, wp, ws), want, 1e-5)
	}
}

// testSummationFusion checks Eq. 22: summation fusion is a block with all-one secondary kernels.
func testSummationFusion(t *testing.T, isa kernel.ISA, r *rand.Rand) {
	const n, h, w = paperN, paperH, paperW
	for _, l := range []int{1, 2, 4, 7} {
		const m = 3
		x, wp := uniform(r, n*m*h*w, 1), uniform(r, l*m*m*9, 1)
		sum := make([]float64, n*m*h*w)
		for k := range l {
			for i, v := range forward(t, isa, regular(m, m), n, x, wp[k*m*m*9:(k+1)*m*m*9], nil) {
				sum[i] += v
			}
		}
		var xs, want []float64
		for i := range n {
			for range l {
				xs = append(xs, x[i*m*h*w:(i+1)*m*h*w]...)
				want = append(want, sum[i*m*h*w:(i+1)*m*h*w]...)
			}
		}
		ws := make([]float64, m*l*l)
		for i := range ws {
			ws[i] = 1
		}
		near(t, fmt.Sprint("L = ", l), forward(t, isa, igcBlock(l, m), n, xs, wp, ws), want, 1e-5)
	}
}

// testXception checks M = 1 is Xception: a convolution of each channel, then 1×1 over all.
func testXception(t *testing.T, isa kernel.ISA, r *rand.Rand) {
	const n, h, w = paperN, paperH, paperW
	const l = 7
	x, wp, ws := uniform(r, n*l*h*w, 1), uniform(r, l*9, 1), uniform(r, l*l, 1)
	each := forward(t, isa, convCase{l: l, ci: 1, co: 1, h: h, w: w}.geometry(), n, x, wp, nil)
	all := forward(t, isa, convCase{l: 1, ci: l, co: l, h: h, w: w, kh: 1, kw: 1, stride: 1}.geometry(), n,
		each, ws, nil)
	near(t, "M = 1", forward(t, isa, igcBlock(l, 1), n, x, wp, ws), all, 1e-5)
}
