package kernel_test

import (
	"encoding/binary"
	"fmt"
	"math"
	"math/big"
	"math/rand/v2"
	"testing"

	"igcsearch/trainer/kernel"
)

var bf16 = kernel.Oracle{Precision: kernel.BF16}

// TestOracleRounds checks the rounding to bfloat16 by hand-worked values.
func TestOracleRounds(t *testing.T) {
	const up = 0x1p-7 // from 1 to the next bfloat16
	for _, c := range []struct{ v, want float64 }{
		{0, 0}, {1, 1}, {1 + up, 1 + up}, {-3.140625, -3.140625},
		{1 + up/2, 1}, {1 + 3*up/2, 1 + 2*up}, // ties to even
		{1 + up/2 + 0x1p-23, 1 + up}, {1 + up/2 - 0x1p-23, 1}, // beside a tie
		{2 - 0x1p-23, 2},                               // to the next power of two
		{0x1p-126, 0x1p-126}, {0x1p-126 - 0x1p-149, 0}, // a normal number, and the largest denormal
		{math.MaxFloat32, math.Inf(1)}, {0x1.fep127, 0x1.fep127}, // the largest bfloat16
		{math.Inf(-1), math.Inf(-1)}, {math.NaN(), math.NaN()},
	} {
		for _, sign := range []float64{1, -1} {
			got, want := bf16.Round(sign*c.v), sign*c.want
			if got != want && !(math.IsNaN(got) && math.IsNaN(want)) || math.Signbit(got) != math.Signbit(want) && !math.IsNaN(got) {
				t.Errorf("%g is rounded to %g, want %g", sign*c.v, got, want)
			}
		}
	}
}

// fmaByBig is x·y + z, rounded once to 24 bits, by arithmetic of any length.
func fmaByBig(x, y, z float32) float32 {
	flushed := func(v float32) *big.Float {
		if math.Abs(float64(v)) < 0x1p-126 {
			v = 0
		}
		return new(big.Float).SetPrec(1000).SetFloat64(float64(v))
	}
	sum := new(big.Float).SetPrec(1000).Mul(flushed(x), flushed(y))
	sum.Add(sum, flushed(z))
	sum.SetPrec(24)
	if sum.MantExp(nil) < -125 { // below 2⁻¹²⁶
		return 0
	}
	got, _ := sum.Float32()
	return got
}

// FuzzOracleFMA compares it with arithmetic of any length, on numbers of any size and
// on such as nearly cancel or lie nearly on a tie.
func FuzzOracleFMA(f *testing.F) {
	r := rand.New(rand.NewPCG(16, 17))
	for range 20000 {
		x, y := float32(r.NormFloat64()), float32(r.NormFloat64())
		z := float32(math.Ldexp(r.NormFloat64(), r.IntN(60)-30))
		switch r.IntN(4) {
		case 0:
			z = -x * y // nearly cancels
		case 1: // a tie of the product, and a little more or less
			x, y, z = 1+float32(r.IntN(1<<11))*0x1p-11, 1+float32(r.IntN(1<<13))*0x1p-13, z*0x1p-60
		case 2: // near 2⁻¹²⁶
			x, y, z = x*0x1p-70, y*0x1p-56, z*0x1p-126
		}
		f.Add(math.Float32bits(x), math.Float32bits(y), math.Float32bits(z))
	}
	// 2⁻¹²⁶ less a little is 2⁻¹²⁶ once it is rounded, and stays.
	f.Add(math.Float32bits(0x1p-76), math.Float32bits(-0x1p-76), math.Float32bits(0x1p-126))
	f.Add(math.Float32bits(0x1.8p-76), math.Float32bits(-0x1p-75), math.Float32bits(0x1p-126)) // and not this
	f.Fuzz(func(t *testing.T, a, b, c uint32) {
		x, y, z := math.Float32frombits(a), math.Float32frombits(b), math.Float32frombits(c)
		for _, v := range []float32{x, y, z} {
			if v != v || math.IsInf(float64(v), 0) {
				return
			}
		}
		if got, want := bf16.FMA(float64(x), float64(y), float64(z)), fmaByBig(x, y, z); got != float64(want) {
			t.Errorf("%g · %g + %g = %g, want %g", x, y, z, got, want)
		}
	})
}

// FuzzRounding compares the kernels' rounding with the oracle's, of any four floats
// on any lanes: a convolution with a weight of 1 only rounds.
func FuzzRounding(f *testing.F) {
	bytes := func(values ...float32) []byte {
		var b []byte
		for _, v := range values {
			b = binary.LittleEndian.AppendUint32(b, math.Float32bits(v))
		}
		return b
	}
	f.Add(bytes(0, 1, -1, 1+0x1p-8, 1+0x1p-8+0x1p-23, 1+0x3p-8, -1-0x1p-8, 0x1p-126, 0x1p-126-0x1p-149, 0x1p-149,
		math.MaxFloat32, -math.MaxFloat32, float32(math.Inf(1)), float32(math.Inf(-1)), float32(math.NaN()), 3.14159274))
	r := rand.New(rand.NewPCG(18, 19))
	random := make([]float32, 1600)
	for i := range random {
		random[i] = math.Float32frombits(r.Uint32())
	}
	f.Add(bytes(random...))
	f.Fuzz(func(t *testing.T, b []byte) {
		columns := (len(b)/4 + kernel.Lanes - 1) / kernel.Lanes
		if columns == 0 || columns > 1000 {
			return
		}
		x, want := make([]float64, columns*kernel.Lanes), make([]float64, columns*kernel.Lanes)
		for i := range len(b) / 4 {
			x[i] = float64(math.Float32frombits(binary.LittleEndian.Uint32(b[4*i:])))
		}
		for i, v := range x {
			want[i] = bf16.Round(v)
		}
		for _, p := range bf16Precisions {
			g := convCase{l: 1, ci: 1, co: 1, h: 1, w: columns, kh: 1, kw: 1, stride: 1, precision: p, input: pictures}.geometry()
			for _, w := range ways(p) {
				var a kernel.Arena
				in, z := a.Floats(g.InLen()), a.Floats(g.OutLen())
				copy(in, f32(&a, x))
				team, err := kernel.NewTeam(&a, w.isa, 1, g.ScratchLen())
				if err != nil {
					t.Fatal(err)
				}
				if w.emulate != kernel.F32 {
					team.Emulate(w.emulate)
				}
				team.Forward([]kernel.Conv{{Geometry: g, Valid: kernel.Lanes, X: in, WP: f32(&a, []float64{1}), Z: z}})
				// As pictures of one position: lanes and columns are one sequence.
				got := make([]float64, len(want))
				for c := range columns {
					copy(got[c*kernel.Lanes:], unpacked(p, z[c*kernel.Lanes/2:][:kernel.Lanes/2], kernel.Lanes, 1, 1, 1))
				}
				team.Close()
				a.Free()
				equal(t, fmt.Sprintf("%v, %v", p, w), got, want)
			}
		}
	})
}

// TestPrecisionPack checks the layout: picture n of a batch is lane n%16 of block
// n/16, and two bfloat16 lie in each float, the first in its lower half.
func TestPrecisionPack(t *testing.T) {
	const n, c, h, w = 17, 2, 3, 2
	x := make([]float32, n*c*h*w)
	for i := range x {
		x[i] = float32(i%256 + 1) // bfloat16 holds these
	}
	for _, p := range bf16Precisions {
		dst := nan(make([]float32, 2*c*h*w*kernel.Lanes/2))
		p.Pack(dst, x, n, c, h, w)
		at := func(picture, ch, row, col int) float32 {
			i := (((picture/16*h+row)*c+ch)*w+col)*16 + picture%16
			return math.Float32frombits(math.Float32bits(dst[i/2]) >> (i % 2 * 16) << 16)
		}
		for i, v := range x {
			if got := at(i/w/h/c, i/w/h%c, i/w%h, i%w); got != v {
				t.Fatalf("%v: value %d is %g, want %g", p, i, got, v)
			}
		}
		if got := at(17, 0, 0, 0); got != 0 {
			t.Errorf("%v: a padding lane is %g", p, got)
		}
		back := make([]float32, len(x))
		p.Unpack(back, dst, n, c, h, w)
		if !sameBits(back, x) {
			t.Errorf("%v: Unpack is not the inverse", p)
		}
	}
}
