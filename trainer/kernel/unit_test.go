package kernel_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"igcsearch/trainer/kernel"
)

// unpool spreads (N, C) over the positions of (N, C, HW).
func unpool(x []float64, hw int) []float64 {
	out := make([]float64, 0, len(x)*hw)
	for _, v := range x {
		out = append(out, slices.Repeat([]float64{v}, hw)...)
	}
	return out
}

func TestAddAgreesWithTheOracle(t *testing.T) {
	for _, isa := range kernel.Available() {
		for kind := range 8 {
			shortcut, pooled, linear := kind&1 > 0, kind&2 > 0, kind&4 > 0
			t.Run(fmt.Sprintf("%v/shortcut normalised=%v/gradient pooled=%v/linear=%v", isa, shortcut, pooled, linear),
				func(t *testing.T) {
					var arena kernel.Arena
					t.Cleanup(arena.Free)
					const n, c, h, w, hw = 5, 3, 4, 7, 28
					r := rand.New(rand.NewPCG(8, 9))
					z, x, scale, shift, xscale, xshift := uniform(r, n*c*hw, 2), uniform(r, n*c*hw, 2),
						uniform(r, c, 1), uniform(r, c, 1), uniform(r, c, 1), uniform(r, c, 1)
					gp, g := uniform(r, n*c, 1), uniform(r, n*c*hw, 1)
					if pooled {
						g = unpool(gp, hw)
					}
					out, gx := make([]float64, n*c*hw), make([]float64, n*c*hw)
					gsum, gzsum, gxsum := make([]float64, c), make([]float64, c), make([]float64, c)
					for i := range out {
						ch := i / hw % c
						b := x[i]
						if shortcut {
							b = xscale[ch]*b + xshift[ch]
						}
						out[i] = scale[ch]*z[i] + shift[ch] + b
						if linear || out[i] > 0 {
							gx[i] = g[i]
						} else {
							out[i] = 0
						}
						gsum[ch] += gx[i]
						gzsum[ch] += gx[i] * z[i]
						gxsum[ch] += gx[i] * x[i]
					}
					a := kernel.Add{H: h, W: w, C: c, Linear: linear, Z: packed(&arena, z, n, c, h, w), Scale: f32(&arena, scale),
						Shift: f32(&arena, shift),
						X:     packed(&arena, x, n, c, h, w), Out: arena.Floats(c * hw * 16),
						G:  packed(&arena, g, n, c, h, w),
						GX: arena.Floats(c * hw * 16), GSum: arena.Doubles(c), GZSum: arena.Doubles(c)}
					if pooled {
						a.Pooled, a.G = true, packed(&arena, gp, n, c, 1, 1)
					}
					if shortcut {
						a.XScale, a.XShift, a.GXSum = f32(&arena, xscale), f32(&arena, xshift), arena.Doubles(c)
					}
					team := newTeam(t, &arena, isa, 1, 0)
					team.AddForward([]kernel.Add{a})
					team.AddBackward([]kernel.Add{a})
					near(t, "out", unpacked(a.Out, n, c, h, w), out, 1e-6)
					near(t, "gx", unpacked(a.GX, n, c, h, w), gx, 0)
					near(t, "gsum", a.GSum, gsum, 1e-5)
					near(t, "gzsum", a.GZSum, gzsum, 1e-5)
					if shortcut {
						near(t, "gxsum", a.GXSum, gxsum, 1e-5)
					}
					if !pooled {
						gx := slices.Clone(a.GX)
						a.GX = a.G
						team.AddBackward([]kernel.Add{a})
						if !slices.Equal(gx, a.GX) {
							t.Error("gx differs in place of g")
						}
					}
				})
		}
	}
}

func TestMaxAgreesWithTheOracle(t *testing.T) {
	for _, isa := range kernel.Available() {
		for _, size := range []struct{ h, w, n int }{{8, 8, 3}, {7, 5, 16}, {1, 1, 1}, {2, 9, 2}} {
			t.Run(fmt.Sprintf("%v/%+v", isa, size), func(t *testing.T) {
				var arena kernel.Arena
				t.Cleanup(arena.Free)
				const c = 3
				n, h, w := size.n, size.h, size.w
				oh, ow := (h+1)/2, (w+1)/2
				r := rand.New(rand.NewPCG(10, 11))
				x, scale, shift, g := uniform(r, n*c*h*w, 2), uniform(r, c, 1), uniform(r, c, 1),
					uniform(r, n*c*oh*ow, 1)
				for i := range x { // few values, so that many are equal
					x[i] = float64(int(4 * x[i]))
				}
				a := kernel.Oracle{}.Affine(x, scale, shift, n, c, h*w)
				out, gx, gsum, gxsum := make([]float64, len(g)), make([]float64, len(x)), make([]float64, c),
					make([]float64, c)
				for p := range n * c {
					for i := range oh {
						for j := range ow {
							best := -1
							for kh := max(2*i-1, 0); kh < min(2*i+2, h); kh++ {
								for kw := max(2*j-1, 0); kw < min(2*j+2, w); kw++ {
									if at := (p*h+kh)*w + kw; best < 0 || a[at] > a[best] {
										best = at
									}
								}
							}
							at := (p*oh+i)*ow + j
							if out[at] = a[best]; a[best] > 0 {
								gx[best] += g[at]
							}
						}
					}
				}
				for i := range gx {
					gsum[i/(h*w)%c] += gx[i]
					gxsum[i/(h*w)%c] += gx[i] * x[i]
				}
				m := kernel.Max{H: h, W: w, C: c, X: packed(&arena, x, n, c, h, w), Scale: f32(&arena, scale),
					Shift: f32(&arena, shift),
					Out:   arena.Floats(c * oh * ow * 16), G: packed(&arena, g, n, c, oh, ow),
					GX: arena.Floats(c * h * w * 16), GSum: arena.Doubles(c), GXSum: arena.Doubles(c)}
				team := newTeam(t, &arena, isa, 1, 0)
				team.MaxForward([]kernel.Max{m})
				team.MaxBackward([]kernel.Max{m})
				near(t, "out", unpacked(m.Out, n, c, oh, ow), out, 1e-6)
				near(t, "gx", unpacked(m.GX, n, c, h, w), gx, 1e-6)
				near(t, "gsum", m.GSum, gsum, 1e-5)
				near(t, "gxsum", m.GXSum, gxsum, 1e-5)
			})
		}
	}
}

func TestSum(t *testing.T) {
	for _, isa := range kernel.Available() {
		for threads := 1; threads <= 3; threads++ {
			var arena kernel.Arena
			t.Cleanup(arena.Free)
			team := newTeam(t, &arena, isa, threads, 0)
			for _, n := range []int{16, 48, 1600} {
				to, from := arena.Floats(n), arena.Floats(n)
				for i := range to {
					to[i], from[i] = float32(i), float32(2*i)
				}
				team.Sum(kernel.F32, to, from)
				for i := range to {
					if to[i] != float32(3*i) {
						t.Fatalf("%v, %d threads: sum %d of %d is %g", isa, threads, i, n, to[i])
					}
				}
			}
		}
	}
}
