//go:build gpu

package gpu

import (
	"fmt"
	"math/rand/v2"
	"testing"
)

// TestMaxPoolGradGoesToTheFirstOfTheLargest: values of a few steps, of which many
// windows have the largest more than once. The gradient goes to the first, row by row.
func TestMaxPoolGradGoesToTheFirstOfTheLargest(t *testing.T) {
	for _, size := range [][2]int{{5, 7}, {4, 8}, {1, 1}, {2, 3}} {
		t.Run(fmt.Sprint(size), func(t *testing.T) {
			const n = 3
			h, w := size[0], size[1]
			oh, ow := ceil(h, 2), ceil(w, 2)
			rnd := rand.New(rand.NewPCG(5, 6))
			z := make([]float64, n*h*w)
			for i := range z {
				z[i] = float64(rnd.IntN(4) - 1)
			}
			g := uniform(rnd, n*oh*ow, 1)
			want := make([]float64, len(z))
			for i := range g {
				picture, y, x := i/(oh*ow), i/ow%oh, i%ow
				top, first := 0.0, -1
				for r := max(2*y-1, 0); r < min(2*y+2, h); r++ {
					for c := max(2*x-1, 0); c < min(2*x+2, w); c++ {
						if at := (picture*h+r)*w + c; z[at] > top {
							top, first = z[at], at
						}
					}
				}
				if first >= 0 {
					want[first] += g[i]
				}
			}
			r := newRig(t, n)
			a := unitArgs{c: 1, h: int32(h), w: int32(w), n: n, parts: int32(h), z: r.activation(z, h*w),
				scale: r.input([]float64{1}), shift: r.input([]float64{0}), out: r.output(oh * ow * lanes)}
			pool := a
			r.p.rows("max_pool", oh, 1, &pool)
			a.g, a.gx, a.sums = r.activation(g, oh*ow), r.output(h*w*lanes), r.output(2*h)
			r.p.rows("max_pool_grad", h, 1, &a)
			r.run()
			near(t, "gx", unblock(r.read(a.gx), n, h*w), want, 1e-6)
		})
	}
}
