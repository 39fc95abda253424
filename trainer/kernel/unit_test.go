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

// addCase is a kind of the end of a residual unit.
type addCase struct {
	precision kernel.Precision
	// shortcut is 0 without one, 1 for activations, 2 for a normalised one.
	shortcut       int
	pooled, linear bool
}

func (c addCase) String() string {
	return fmt.Sprintf("%v/%v/pooled=%v linear=%v", c.precision,
		[]string{"no shortcut", "shortcut", "normalised shortcut"}[c.shortcut], c.pooled, c.linear)
}

func TestAddAgreesWithTheOracle(t *testing.T) {
	for _, p := range precisions {
		for kind := range 12 {
			c := addCase{p, kind / 4, kind&1 > 0, kind&2 > 0}
			inAllWays(t, p, c, func(t *testing.T, w way) []byte { return testAdd(t, c, w) })
		}
	}
}

// testAdd returns the bits of all results.
func testAdd(t *testing.T, of addCase, by way) []byte {
	var arena kernel.Arena
	t.Cleanup(arena.Free)
	const n, c, h, w, hw = 5, 3, 4, 7, 28
	o := kernel.Oracle{Precision: of.precision}
	r := rand.New(rand.NewPCG(8, 9))
	z, x := rounded(of.precision, uniform(r, n*c*hw, 2)), rounded(of.precision, uniform(r, n*c*hw, 2))
	scale, shift, xscale, xshift := uniform(r, c, 1), uniform(r, c, 1), uniform(r, c, 1), uniform(r, c, 1)
	gp, g := uniform(r, n*c, 1), rounded(of.precision, uniform(r, n*c*hw, 1))
	if of.pooled {
		g = unpool(gp, hw)
	}
	out, gx := make([]float64, n*c*hw), make([]float64, n*c*hw)
	gsum, gzsum, gxsum := make([]float64, c), make([]float64, c), make([]float64, c)
	for i := range out {
		ch := i / hw % c
		b := shift[ch]
		switch of.shortcut {
		case 1:
			b = o.FMA(1, x[i], b)
		case 2:
			b = o.FMA(xscale[ch], x[i], o.FMA(1, xshift[ch], b))
		}
		out[i] = o.FMA(scale[ch], z[i], b)
		if !of.linear {
			out[i] = max(0, out[i])
		}
		if out[i] = o.Round(out[i]); of.linear || out[i] > 0 {
			gx[i] = o.Round(g[i])
		}
		gsum[ch] += gx[i]
		gzsum[ch] += gx[i] * z[i]
		gxsum[ch] += gx[i] * x[i]
	}
	floats := of.precision.Floats(c * hw * kernel.Lanes)
	a := kernel.Add{Precision: of.precision, H: h, W: w, C: c, Linear: of.linear,
		Z: packed(&arena, of.precision, z, n, c, h, w), Scale: f32(&arena, scale), Shift: f32(&arena, shift),
		Out: arena.Floats(floats), G: packed(&arena, of.precision, g, n, c, h, w), GX: arena.Floats(floats),
		GSum: arena.Doubles(c), GZSum: arena.Doubles(c)}
	if of.pooled {
		a.Pooled, a.G = true, packed(&arena, kernel.F32, gp, n, c, 1, 1)
	}
	if of.shortcut > 0 {
		a.X = packed(&arena, of.precision, x, n, c, h, w)
	}
	if of.shortcut == 2 {
		a.XScale, a.XShift, a.GXSum = f32(&arena, xscale), f32(&arena, xshift), arena.Doubles(c)
	}
	team := by.team(t, &arena, 0)
	team.AddForward([]kernel.Add{a})
	team.AddBackward([]kernel.Add{a})
	agree(t, of.precision, "out", unpacked(of.precision, a.Out, n, c, h, w), out, 1e-6)
	agree(t, of.precision, "gx", unpacked(of.precision, a.GX, n, c, h, w), gx, 0)
	near(t, "gsum", a.GSum, gsum, 1e-5)
	near(t, "gzsum", a.GZSum, gzsum, 1e-5)
	if of.shortcut == 2 {
		near(t, "gxsum", a.GXSum, gxsum, 1e-5)
	}
	bits := slices.Concat(raw(a.Out), raw(a.GX), raw(a.GSum), raw(a.GZSum), raw(a.GXSum))
	if !of.pooled {
		gx := slices.Clone(a.GX)
		a.GX = a.G
		team.AddBackward([]kernel.Add{a})
		if !sameBits(gx, a.GX) {
			t.Error("gx differs in place of g")
		}
	}
	return bits
}

// maxCase is a size of the max pool.
type maxCase struct {
	precision kernel.Precision
	h, w, n   int
	few       bool // values, so that many are equal
}

func (c maxCase) String() string {
	return fmt.Sprintf("%v/%dx%d batch=%d few=%v", c.precision, c.h, c.w, c.n, c.few)
}

func TestMaxAgreesWithTheOracle(t *testing.T) {
	for _, p := range precisions {
		for _, c := range []maxCase{{p, 8, 8, 3, true}, {p, 7, 5, 16, true}, {p, 7, 5, 16, false}, {p, 1, 1, 1, true}, {p, 2, 9, 2, true}} {
			inAllWays(t, p, c, func(t *testing.T, w way) []byte { return testMax(t, c, w) })
		}
	}
}

// testMax returns the bits of all results.
func testMax(t *testing.T, of maxCase, by way) []byte {
	var arena kernel.Arena
	t.Cleanup(arena.Free)
	const c = 3
	o := kernel.Oracle{Precision: of.precision}
	n, h, w := of.n, of.h, of.w
	oh, ow := (h+1)/2, (w+1)/2
	r := rand.New(rand.NewPCG(10, 11))
	x, scale, shift := uniform(r, n*c*h*w, 2), uniform(r, c, 1), uniform(r, c, 1)
	g := rounded(of.precision, uniform(r, n*c*oh*ow, 1))
	for i := range x {
		if of.few {
			x[i] = float64(int(4 * x[i]))
		}
	}
	a := o.Affine(rounded(of.precision, x), scale, shift, false, c, h*w)
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
					gx[best] = o.Round(o.FMA(1, g[at], gx[best]))
				}
			}
		}
	}
	for i := range gx {
		gsum[i/(h*w)%c] += gx[i]
		gxsum[i/(h*w)%c] += gx[i] * x[i]
	}
	m := kernel.Max{Precision: of.precision, H: h, W: w, C: c, X: packed(&arena, of.precision, x, n, c, h, w),
		Scale: f32(&arena, scale), Shift: f32(&arena, shift), Out: arena.Floats(of.precision.Floats(c * oh * ow * 16)),
		G:  packed(&arena, of.precision, g, n, c, oh, ow),
		GX: arena.Floats(of.precision.Floats(c * h * w * 16)), GSum: arena.Doubles(c), GXSum: arena.Doubles(c)}
	team := by.team(t, &arena, 0)
	team.MaxForward([]kernel.Max{m})
	team.MaxBackward([]kernel.Max{m})
	agree(t, of.precision, "out", unpacked(of.precision, m.Out, n, c, oh, ow), out, 1e-6)
	agree(t, of.precision, "gx", unpacked(of.precision, m.GX, n, c, h, w), gx, 1e-6)
	near(t, "gsum", m.GSum, gsum, 1e-5)
	near(t, "gxsum", m.GXSum, gxsum, 1e-5)
	return slices.Concat(raw(m.Out), raw(m.GX), raw(m.GSum), raw(m.GXSum))
}

func TestSum(t *testing.T) {
	for _, p := range precisions {
		o := kernel.Oracle{Precision: p}
		for _, w := range ways(p) {
			for _, n := range []int{16, 48, 1600} {
				var arena kernel.Arena
				t.Cleanup(arena.Free)
				r := rand.New(rand.NewPCG(14, 15))
				a, b := rounded(p, uniform(r, n, 2)), rounded(p, uniform(r, n, 2))
				to, from := packed(&arena, p, a, kernel.Lanes, n/16, 1, 1), packed(&arena, p, b, kernel.Lanes, n/16, 1, 1)
				w.team(t, &arena, 0).Sum(p, to, from)
				for i := range a {
					a[i] = o.Round(float64(float32(a[i] + b[i])))
				}
				equal(t, fmt.Sprintf("%v: sum of %d", w, n), unpacked(p, to, kernel.Lanes, n/16, 1, 1), a)
			}
		}
	}
}
