package kernel_test

import (
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"igcsearch/trainer/kernel"
)

// convCase is one shape of the conformance test: odd sizes on purpose.
type convCase struct {
	l, ci, co, h, w, n int
	secondary          bool
	kh, kw, stride     int // 0: 3×3, stride 1

	interleaved, between bool
}

func (c convCase) geometry() kernel.Geometry {
	if c.kh == 0 {
		c.kh, c.kw, c.stride = 3, 3, max(c.stride, 1)
	}
	return kernel.Geometry{H: c.h, W: c.w, KH: c.kh, KW: c.kw, Stride: c.stride, L: c.l, Ci: c.ci, Co: c.co,
		Secondary: c.secondary, Interleaved: c.interleaved, Between: c.between}
}

func (c convCase) String() string {
	g := c.geometry()
	return fmt.Sprintf("L=%d Ci=%d Co=%d %dx%d batch=%d secondary=%v kernel %dx%d stride %d interleaved=%v between=%v",
		c.l, c.ci, c.co, c.h, c.w, c.n, c.secondary, g.KH, g.KW, g.Stride, c.interleaved, c.between)
}

var convCases = []convCase{
	{l: 1, ci: 7, co: 7, h: 5, w: 7, n: 3, secondary: true},     // L = 1
	{l: 5, ci: 1, co: 1, h: 4, w: 9, n: 3, secondary: true},     // M = 1
	{l: 41, ci: 5, co: 5, h: 3, w: 4, n: 2, secondary: true},    // Table 1 (ii)
	{l: 3, ci: 7, co: 7, h: 6, w: 5, n: 17, secondary: true},    // two blocks, the second with one picture
	{l: 1, ci: 23, co: 23, h: 4, w: 4, n: 16, secondary: true},  // Table 1 (i)
	{l: 64, ci: 1, co: 1, h: 4, w: 8, n: 1, secondary: true},    // Table 1 (i)
	{l: 40, ci: 2, co: 2, h: 3, w: 8, n: 4, secondary: true},    // Table 1 (i)
	{l: 6, ci: 9, co: 9, h: 2, w: 2, n: 5, secondary: true},     // Table 1 (i)
	{l: 2, ci: 3, co: 6, h: 4, w: 4, n: 3, secondary: true},     // channels double: M → 2M
	{l: 4, ci: 4, co: 3, h: 3, w: 3, n: 3, secondary: true},     // fewer out than in
	{l: 1, ci: 3, co: 80, h: 8, w: 8, n: 3},                     // the first convolution
	{l: 1, ci: 3, co: 13, h: 1, w: 1, n: 19},                    // a single pixel
	{l: 3, ci: 2, co: 2, h: 1, w: 6, n: 2, secondary: true},     // a single row
	{l: 1, ci: 30, co: 5, h: 3, w: 32, n: 2},                    // more (channel, row) pairs than one chunk
	{l: 12, ci: 6, co: 6, h: 16, w: 16, n: 33, secondary: true}, // three blocks

	{l: 3, ci: 4, co: 8, h: 8, w: 8, n: 3, secondary: true, stride: 2},   // M → 2M
	{l: 24, ci: 2, co: 4, h: 4, w: 32, n: 2, secondary: true, stride: 2}, // Table 2
	{l: 5, ci: 1, co: 2, h: 7, w: 9, n: 17, secondary: true, stride: 2},  // odd sizes
	{l: 2, ci: 6, co: 5, h: 1, w: 1, n: 1, secondary: true, stride: 2},
	{l: 1, ci: 3, co: 18, h: 2, w: 3, n: 3, stride: 2},
	{l: 3, ci: 4, co: 8, h: 6, w: 5, n: 3, kh: 1, kw: 1, stride: 2}, // a projection shortcut
	{l: 2, ci: 5, co: 5, h: 1, w: 7, n: 3, kh: 1, kw: 1, stride: 2},
	{l: 4, ci: 7, co: 7, h: 4, w: 5, n: 3, secondary: true, kh: 1, kw: 1, stride: 1},
	{l: 1, ci: 13, co: 9, h: 3, w: 3, n: 18, kh: 1, kw: 1, stride: 1}, // a linear projection
	{l: 5, ci: 3, co: 3, h: 5, w: 6, n: 3, kh: 1, kw: 3, stride: 1},
	{l: 5, ci: 3, co: 3, h: 5, w: 6, n: 3, secondary: true, kh: 3, kw: 1, stride: 1},
	{l: 3, ci: 2, co: 4, h: 5, w: 6, n: 3, secondary: true, kh: 3, kw: 1, stride: 2},
	{l: 3, ci: 4, co: 2, h: 6, w: 7, n: 3, secondary: true, kh: 1, kw: 3, stride: 2},
	{l: 3, ci: 4, co: 4, h: 9, w: 8, n: 3, secondary: true, kh: 5, kw: 5, stride: 1},
	{l: 3, ci: 4, co: 4, h: 7, w: 9, n: 3, secondary: true, kh: 5, kw: 5, stride: 2},
	{l: 1, ci: 3, co: 64, h: 14, w: 15, n: 2, kh: 7, kw: 7, stride: 2}, // ImageNet's first
	{l: 2, ci: 3, co: 3, h: 2, w: 2, n: 2, kh: 7, kw: 7, stride: 1},    // a kernel larger than the picture
	{l: 2, ci: 5, co: 5, h: 4, w: 5, n: 17, interleaved: true},
	{l: 4, ci: 3, co: 6, h: 4, w: 5, n: 3, kh: 1, kw: 1, stride: 1, interleaved: true}, // secondary of a bottleneck
	{l: 3, ci: 4, co: 2, h: 5, w: 4, n: 3, stride: 2, interleaved: true},
	{l: 4, ci: 3, co: 3, h: 4, w: 5, n: 3, secondary: true, between: true}, // y computed again
	{l: 3, ci: 5, co: 5, h: 5, w: 4, n: 17, secondary: true, between: true, stride: 2},
}

// data is a case in PyTorch's layout, float64, with values that float32 holds.
type data struct {
	x, scale, shift, wp, ws, g, z, ca, cb, cc []float64
}

func uniform(r *rand.Rand, n int, bound float64) []float64 {
	s := make([]float64, n)
	for i := range s {
		s[i] = float64(float32((2*r.Float64() - 1) * bound))
	}
	return s
}

func f32(a *kernel.Arena, s []float64) []float32 {
	out := a.Floats(len(s))
	for i, v := range s {
		out[i] = float32(v)
	}
	return out
}

func packed(a *kernel.Arena, s []float64, n, c, h, w int) []float32 {
	out := a.Floats(kernel.Blocks(n) * c * h * w * kernel.Lanes)
	kernel.Pack(out, f32(a, s), n, c, h, w)
	return out
}

func unpacked(x []float32, n, c, h, w int) []float64 {
	s := make([]float32, n*c*h*w)
	kernel.Unpack(s, x, n, c, h, w)
	out := make([]float64, len(s))
	for i, v := range s {
		out[i] = float64(v)
	}
	return out
}

// near checks |got − want| ≤ tol·(rms of want + |want|): sums of up to some
// thousand float32 products.
func near(t *testing.T, name string, got, want []float64, tol float64) {
	t.Helper()
	if len(got) != len(want) {
		t.Fatalf("%s: %d values, want %d", name, len(got), len(want))
	}
	var sq float64
	for _, v := range want {
		sq += v * v
	}
	rms := math.Sqrt(sq / float64(max(1, len(want))))
	for i := range got {
		if !(math.Abs(got[i]-want[i]) <= tol*(rms+math.Abs(want[i])+1e-30)) {
			t.Fatalf("%s[%d] = %g, want %g (rms %g)", name, i, got[i], want[i], rms)
		}
	}
}

// newTeam returns a team that ends with the test.
func newTeam(t testing.TB, a *kernel.Arena, isa kernel.ISA, threads, scratch int) *kernel.Team {
	team, err := kernel.NewTeam(a, isa, threads, scratch)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(team.Close)
	return team
}

func wide[T float32 | float64](s []T) []float64 {
	out := make([]float64, len(s))
	for i, v := range s {
		out[i] = float64(v)
	}
	return out
}

// TestConvAgreesWithTheOracle is the conformance test of the convolution
// kernels: every instruction set of this machine, forward and gradients, each
// element within 2e-6·(rms + |value|) of plain float64 loops, 2e-5 for the
// sums of the weights' gradients.
func TestConvAgreesWithTheOracle(t *testing.T) {
	for _, isa := range kernel.Available() {
		for _, c := range convCases {
			for _, normalised := range []bool{true, false} {
				t.Run(fmt.Sprintf("%v/%v/normalised=%v", isa, c, normalised), func(t *testing.T) {
					testConv(t, isa, c, normalised)
				})
			}
		}
	}
}

func testConv(t *testing.T, isa kernel.ISA, c convCase, normalised bool) {
	var arena kernel.Arena
	t.Cleanup(arena.Free)
	r := rand.New(rand.NewPCG(1, 2))
	g := c.geometry()
	oh, ow := g.Size()
	hw, ohw, in, out, blocks := c.h*c.w, oh*ow, g.In(), g.Out(), kernel.Blocks(c.n)
	d := data{
		x: uniform(r, c.n*in*hw, 2), scale: uniform(r, in, 1), shift: uniform(r, in, 1),
		wp: uniform(r, g.PrimaryLen(), 1), ws: uniform(r, g.SecondaryLen(), 1),
		g: uniform(r, c.n*out*ohw, 1), ca: uniform(r, out, 1), cb: uniform(r, out, .1), cc: uniform(r, out, .1),
	}

	// The oracle: a = relu(scale·x + shift); z = P Ws Pᵀ Wp a; dz = ca·g + cb·z + cc.
	var o kernel.Oracle
	a := d.x
	if normalised {
		a = o.Affine(d.x, d.scale, d.shift, c.n, in, hw)
	}
	primary := kernel.GroupConv{N: c.n, Groups: c.l, Ci: c.ci, Co: c.co, H: c.h, W: c.w, KH: g.KH, KW: g.KW,
		Stride: g.Stride}
	secondary := kernel.GroupConv{N: c.n, Groups: c.co, Ci: c.l, Co: c.l, H: oh, W: ow, KH: 1, KW: 1, Stride: 1}
	// Interleaved partitions are ordinary ones of permuted channels, and back.
	into := func(x []float64, per, hw int) []float64 {
		if c.interleaved {
			return o.Permute(x, c.n, per, c.l, hw)
		}
		return x
	}
	back := func(x []float64, per, hw int) []float64 {
		if c.interleaved {
			return o.Permute(x, c.n, c.l, per, hw)
		}
		return x
	}
	y := back(primary.Forward(into(a, c.ci, hw), d.wp), c.co, ohw)
	if c.between {
		for i := range y {
			y[i] = max(0, y[i])
		}
	}
	z := slices.Clone(y)
	if c.secondary {
		z = o.Permute(y, c.n, c.l, c.co, ohw)
		z = secondary.Forward(z, d.ws)
		z = o.Permute(z, c.n, c.co, c.l, ohw)
	}
	dz := make([]float64, len(z))
	sum, sumsq := make([]float64, out), make([]float64, out)
	for i := range z {
		ch := i / ohw % out
		z[i] = float64(float32(z[i]))
		dz[i] = d.ca[ch]*d.g[i] + d.cb[ch]*z[i] + d.cc[ch]
		sum[ch] += z[i]
		sumsq[ch] += z[i] * z[i]
	}
	dy, dws := dz, []float64{}
	if c.secondary {
		yp := o.Permute(y, c.n, c.l, c.co, ohw)
		dyp := o.Permute(dz, c.n, c.l, c.co, ohw)
		dyp, dws = secondary.Backward(yp, d.ws, dyp)
		dy = o.Permute(dyp, c.n, c.co, c.l, ohw)
	}
	if c.between {
		for i := range dy {
			if y[i] <= 0 {
				dy[i] = 0
			}
		}
	}
	gx, dwp := primary.Backward(into(a, c.ci, hw), d.wp, into(dy, c.co, ohw))
	gx = back(gx, c.ci, hw)
	gsum, gxsum := make([]float64, in), make([]float64, in)
	for i := range gx {
		if normalised && a[i] <= 0 {
			gx[i] = 0
		}
		gsum[i/hw%in] += gx[i]
		gxsum[i/hw%in] += gx[i] * d.x[i]
	}

	// The kernels, block by block, with rubbish where results go.
	conv := kernel.Conv{Geometry: g, WP: f32(&arena, d.wp), WS: f32(&arena, d.ws)}
	conv.WPT, conv.WST = arena.Floats(g.PrimaryLen()), arena.Floats(g.SecondaryLen())
	g.Transpose(conv.WPT, conv.WST, conv.WP, conv.WS)
	if normalised {
		conv.Scale, conv.Shift = f32(&arena, d.scale), f32(&arena, d.shift)
	}
	conv.CA, conv.CB, conv.CC = f32(&arena, d.ca), f32(&arena, d.cb), f32(&arena, d.cc)
	x, gp := packed(&arena, d.x, c.n, in, c.h, c.w), packed(&arena, d.g, c.n, out, oh, ow)
	zk, gxk := arena.Floats(blocks*g.OutLen()), arena.Floats(blocks*g.InLen())
	for _, s := range [][]float32{zk, gxk} {
		for i := range s {
			s[i] = float32(math.NaN())
		}
	}
	sums := [4][]float64{arena.Doubles(blocks * out), arena.Doubles(blocks * out), arena.Doubles(blocks * in),
		arena.Doubles(blocks * in)}
	dwpk, dwsk := arena.Floats(blocks*g.PrimaryLen()), arena.Floats(blocks*g.SecondaryLen())
	xBefore, gBefore, wBefore := slices.Clone(x), slices.Clone(gp), slices.Clone(conv.WP)
	at := func(s []float32, b, n int) []float32 { return s[b*n : (b+1)*n] }
	atd := func(s []float64, b, n int) []float64 { return s[b*n : (b+1)*n] }
	calls := make([]kernel.Conv, blocks)
	for b := range blocks {
		k := conv
		k.Valid = min(16, c.n-16*b)
		k.X, k.Z, k.Sum, k.SumSq = at(x, b, g.InLen()), at(zk, b, g.OutLen()), atd(sums[0], b, out),
			atd(sums[1], b, out)
		k.G, k.GX, k.GSum, k.GXSum = at(gp, b, g.OutLen()), at(gxk, b, g.InLen()), atd(sums[2], b, in),
			atd(sums[3], b, in)
		k.DWP, k.DWS = at(dwpk, b, g.PrimaryLen()), at(dwsk, b, g.SecondaryLen())
		calls[b] = k
	}
	team := newTeam(t, &arena, isa, 2, g.ScratchLen())
	// Rubbish in the scratch: no kernel may count on zeros that it did not write.
	rubbish := slices.Clone(calls)
	for b := range rubbish {
		rubbish[b].X = arena.Floats(g.InLen())
		for i := range rubbish[b].X {
			rubbish[b].X[i] = float32(math.NaN())
		}
	}
	team.Forward(rubbish)
	team.Backward(rubbish)
	team.Forward(calls)
	team.Backward(calls)
	if g.InLen() == g.OutLen() { // in place: the same bits
		inPlace := packed(&arena, d.g, c.n, out, oh, ow)
		for b := range calls {
			calls[b].G = at(inPlace, b, g.OutLen())
			calls[b].GX = calls[b].G
		}
		team.Backward(calls)
		if !slices.Equal(inPlace, gxk) {
			t.Error("gx differs in place of g")
		}
	}
	if c.secondary { // y kept: the same bits
		dwp, dws, gx := slices.Clone(dwpk), slices.Clone(dwsk), slices.Clone(gxk)
		for b := range calls {
			calls[b].Y, calls[b].G, calls[b].GX = arena.Floats(g.OutLen()), at(gp, b, g.OutLen()), at(gxk, b, g.InLen())
		}
		team.Forward(calls)
		team.Backward(calls)
		if !slices.Equal(dwp, dwpk) || !slices.Equal(dws, dwsk) || !slices.Equal(gx, gxk) {
			t.Error("gradients differ with the primary convolutions' output kept")
		}
	}
	// A gradient that is the same at every position, masked by a ReLU of z, is
	// the same as it spread out and masked.
	gscale, gshift, gpool := f32(&arena, uniform(r, out, 1)), f32(&arena, uniform(r, out, 1)),
		f32(&arena, uniform(r, out*16, 1))
	spread := make([]kernel.Conv, blocks)
	for b := range calls {
		k := calls[b]
		k.Y, k.GX = nil, nil
		k.DWP, k.DWS = arena.Floats(g.PrimaryLen()), arena.Floats(g.SecondaryLen())
		k.G = arena.Floats(g.OutLen())
		for i := range k.G {
			ch, lane := i/16/ow%out, i%16
			if gscale[ch]*k.Z[i]+gshift[ch] > 0 {
				k.G[i] = gpool[ch*16+lane]
			}
		}
		spread[b] = k
		k.DWP, k.DWS = arena.Floats(g.PrimaryLen()), arena.Floats(g.SecondaryLen())
		k.G, k.GScale, k.GShift = gpool, gscale, gshift
		calls[b] = k
	}
	team.Backward(spread)
	team.Backward(calls)
	for b := range calls {
		near(t, "dwp of a pooled gradient", wide(calls[b].DWP), wide(spread[b].DWP), 1e-5)
		near(t, "dws of a pooled gradient", wide(calls[b].DWS), wide(spread[b].DWS), 1e-5)
	}
	total := func(s []float64, n int) []float64 {
		out := make([]float64, n)
		for i, v := range s {
			out[i%n] += v
		}
		return out
	}
	near(t, "z", unpacked(zk, c.n, out, oh, ow), z, 2e-6)
	near(t, "sum", total(sums[0], out), sum, 2e-5)
	near(t, "sumsq", total(sums[1], out), sumsq, 2e-5)
	near(t, "gx", unpacked(gxk, c.n, in, c.h, c.w), gx, 4e-6)
	if normalised {
		near(t, "gsum", total(sums[2], in), gsum, 2e-5)
		near(t, "gxsum", total(sums[3], in), gxsum, 2e-5)
	}
	dw := arena.Floats(g.PrimaryLen())
	kernel.SumBlocks(dw, dwpk)
	near(t, "dwp", wide(dw), dwp, 2e-5)
	if c.secondary {
		dw = arena.Floats(g.SecondaryLen())
		kernel.SumBlocks(dw, dwsk)
		near(t, "dws", wide(dw), dws, 2e-5)
	}
	if !slices.Equal(x, xBefore) || !slices.Equal(gp, gBefore) || !slices.Equal(conv.WP, wBefore) {
		t.Error("a kernel changed its input")
	}
}

// TestHeadAgreesWithTheOracle checks pooling, linear layer and cross-entropy,
// forward and backward, on a batch with padding lanes.
func TestHeadAgreesWithTheOracle(t *testing.T) {
	for _, isa := range kernel.Available() {
		for _, size := range []struct{ h, w, c, k, n int }{{5, 3, 7, 11, 3}, {4, 4, 80, 100, 16}, {1, 1, 1, 2, 1}} {
			t.Run(fmt.Sprintf("%v/%+v", isa, size), func(t *testing.T) {
				var arena kernel.Arena
				t.Cleanup(arena.Free)
				var o kernel.Oracle
				r := rand.New(rand.NewPCG(3, 4))
				n, c, k, hw := size.n, size.c, size.k, size.h*size.w
				x, scale, shift := uniform(r, n*c*hw, 2), uniform(r, c, 1), uniform(r, c, 1)
				w, bias := uniform(r, k*c, 1), uniform(r, k, 1)
				labels := arena.Floats(16)
				for i := range n {
					labels[i] = float32(r.IntN(k))
				}
				labels[15] = float32(k - 1)

				a := o.Affine(x, scale, shift, n, c, hw)
				pool, logits, loss := make([]float64, n*c), make([]float64, n*k), make([]float64, 16)
				dpool, dlogits, dw, db := make([]float64, n*c), make([]float64, n*k), make([]float64, k*c),
					make([]float64, k)
				for i, v := range a {
					pool[i/hw] += v / float64(hw)
				}
				for i := range n {
					var sum float64
					for j := range k {
						logits[i*k+j] = bias[j]
						for q := range c {
							logits[i*k+j] += w[j*c+q] * pool[i*c+q]
						}
						sum += math.Exp(logits[i*k+j])
					}
					y := int(labels[i])
					loss[i] = math.Log(sum) - logits[i*k+y]
					for j := range k {
						d := math.Exp(logits[i*k+j]) / sum
						if j == y {
							d--
						}
						d /= float64(n)
						dlogits[i*k+j] = d
						db[j] += d
						for q := range c {
							dw[j*c+q] += d * pool[i*c+q]
							dpool[i*c+q] += d * w[j*c+q]
						}
					}
				}
				gx, gsum, gxsum := make([]float64, n*c), make([]float64, c), make([]float64, c)
				for i := range x {
					gx[i/hw] = dpool[i/hw] / float64(hw)
					if a[i] > 0 {
						gsum[i/hw%c] += gx[i/hw]
						gxsum[i/hw%c] += gx[i/hw] * x[i]
					}
				}

				head := kernel.Head{
					H: size.h, W: size.w, C: c, K: k, Valid: n,
					X: packed(&arena, x, n, c, size.h, size.w), Scale: f32(&arena, scale), Shift: f32(&arena, shift),
					Pool: arena.Floats(c * 16), WL: f32(&arena, w), Bias: f32(&arena, bias),
					Logits: arena.Floats(k * 16), Labels: labels, Gain: 1 / float32(n),
					Loss: arena.Doubles(16), DLogits: arena.Floats(k * 16),
					DWL: arena.Floats(k * c), DBias: arena.Floats(k), DPool: arena.Floats(c * 16),
					GX: arena.Floats(c * 16), Open: arena.Floats(c * 16), OpenX: arena.Floats(c * 16),
					GSum: arena.Doubles(c), GXSum: arena.Doubles(c),
				}
				heads := []kernel.Head{head}
				team := newTeam(t, &arena, isa, 1, 0)
				team.PoolForward(heads)
				team.LinearForward(heads)
				team.CrossEntropy(heads)
				team.LinearBackward(heads)
				team.PoolBackward(heads)
				near(t, "pool", unpacked(head.Pool, n, c, 1, 1), pool, 2e-6)
				near(t, "logits", unpacked(head.Logits, n, k, 1, 1), logits, 4e-6)
				near(t, "loss", head.Loss, loss, 4e-6)
				near(t, "dlogits", unpacked(head.DLogits, n, k, 1, 1), dlogits, 4e-6)
				near(t, "dw", wide(head.DWL), dw, 1e-5)
				near(t, "db", wide(head.DBias), db, 1e-5)
				near(t, "gx", unpacked(head.GX, n, c, 1, 1), gx, 1e-5)
				near(t, "gsum", head.GSum, gsum, 1e-5)
				near(t, "gxsum", head.GXSum, gxsum, 1e-5)
			})
		}
	}
}

func TestNesterov(t *testing.T) {
	t.Run("two steps by hand", func(t *testing.T) {
		// d = g + decay·w, v = mu·v + d, w −= lr·(d + mu·v), worked in float64.
		var arena kernel.Arena
		t.Cleanup(arena.Free)
		w, v, g := arena.Floats(1), arena.Floats(1), arena.Floats(1)
		w[0], g[0] = 2, 0.5
		ww, vv := 2.0, 0.0
		for range 2 {
			kernel.Nesterov(w, v, g, 0.1, 0.9, 0.01)
			d := 0.5 + 0.01*ww
			vv = 0.9*vv + d
			ww -= 0.1 * (d + 0.9*vv)
		}
		near(t, "w", wide(w), []float64{ww}, 1e-6)
		near(t, "v", wide(v), []float64{vv}, 1e-6)
	})
}

func TestNaNInAnActivationReachesTheOutput(t *testing.T) {
	// A ReLU that turned NaN into 0 would hide a diverged training.
	for _, isa := range kernel.Available() {
		var arena kernel.Arena
		g := convCase{h: 1, w: 1, l: 1, ci: 1, co: 1}.geometry()
		k := kernel.Conv{Geometry: g, Valid: 1, X: arena.Floats(16), Scale: arena.Floats(1), Shift: arena.Floats(1),
			WP: arena.Floats(9), Z: arena.Floats(16)}
		k.X[0], k.WP[4], k.Scale[0] = float32(math.NaN()), 1, 1
		newTeam(t, &arena, isa, 1, g.ScratchLen()).Forward([]kernel.Conv{k})
		if z := float64(k.Z[0]); !math.IsNaN(z) {
			t.Errorf("%v: z = %g, want NaN", isa, z)
		}
	}
}

func TestDetect(t *testing.T) {
	if os.Getenv("IGC_ISA_HELPER") != "" {
		isa, err := kernel.Detect()
		fmt.Println(isa, err)
		os.Exit(0)
	}
	run := func(isa string) string {
		cmd := exec.Command(os.Args[0], "-test.run=^TestDetect$")
		cmd.Env = append(os.Environ(), "IGC_ISA_HELPER=1", "IGC_ISA="+isa)
		out, err := cmd.Output()
		if err != nil {
			t.Fatal(err)
		}
		return string(out)
	}
	t.Run("IGC_ISA forces one", func(t *testing.T) {
		if got := run("portable"); !strings.HasPrefix(got, "portable <nil>") {
			t.Errorf("got %q", got)
		}
	})
	t.Run("an unknown name is an error that lists the known", func(t *testing.T) {
		if got := run("sse9"); !strings.Contains(got, "IGC_ISA=sse9: this machine has") ||
			!strings.Contains(got, "portable") {
			t.Errorf("got %q", got)
		}
	})
}

// TestAnyNumberOfThreadsGivesTheSameBits also shows that a team covers every
// block: what no thread computes stays NaN.
func TestAnyNumberOfThreadsGivesTheSameBits(t *testing.T) {
	isa := kernel.Available()[0]
	g := convCase{h: 3, w: 4, l: 3, ci: 2, co: 2, secondary: true}.geometry()
	n, r := g.In()*g.H*g.W*kernel.Lanes, rand.New(rand.NewPCG(5, 6))
	for blocks := 1; blocks <= 9; blocks++ {
		var want []float32
		for threads := 1; threads <= 5; threads++ {
			var arena kernel.Arena
			x, z := arena.Floats(blocks*n), arena.Floats(blocks*n)
			rng := rand.New(rand.NewPCG(7, uint64(blocks)))
			for i := range x {
				x[i], z[i] = float32(rng.NormFloat64()), float32(math.NaN())
			}
			wp, ws := f32(&arena, uniform(rng, g.PrimaryLen(), 1)), f32(&arena, uniform(rng, g.SecondaryLen(), 1))
			calls := make([]kernel.Conv, blocks)
			for b := range calls {
				calls[b] = kernel.Conv{Geometry: g, Valid: 16, X: x[b*n : (b+1)*n], Z: z[b*n : (b+1)*n], WP: wp, WS: ws}
			}
			team := newTeam(t, &arena, isa, threads, g.ScratchLen())
			for range 1 + r.IntN(20) { // some in quick succession, some after a sleep
				time.Sleep(time.Duration(r.IntN(2)*r.IntN(4)) * time.Millisecond)
				team.Forward(calls)
			}
			switch {
			case threads == 1:
				want = z
			case !slices.Equal(z, want):
				t.Errorf("%d blocks: %d threads give other bits than one", blocks, threads)
			}
		}
	}
}
