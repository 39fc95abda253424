package samebits_test

import (
	"encoding/binary"
	"hash/fnv"
	"math"
	"math/rand/v2"
	"testing"

	"igcsearch/trainer/samebits"
)

// TestBits compares each function with package math, and the bits of its results with
// recorded ones, which all machines share.
func TestBits(t *testing.T) {
	var pcg rand.PCG
	pcg.Seed(1, 2)
	uniform := func() float64 { return (float64(pcg.Uint64()>>11) + 0.5) / (1 << 53) }
	for _, c := range []struct {
		name string
		at   func() (ours, math float64)
		bits uint64
	}{
		{"Log", func() (float64, float64) {
			x := uniform()
			return samebits.Log(x), math.Log(x)
		}, 0x39e8a46fd32c0ac8},
		{"Cos", func() (float64, float64) {
			x := 2 * math.Pi * uniform()
			return samebits.Cos(x), math.Cos(x)
		}, 0x5da0d729b29b649f},
		{"Pow", func() (float64, float64) {
			x, n := 1-uniform()/100, int(pcg.Uint64()>>44)
			return samebits.Pow(x, n), math.Pow(x, float64(n))
		}, 0xc7dfca9d99e070ca},
	} {
		sum := fnv.New64a()
		for range 200000 {
			got, want := c.at()
			// Beside zeros of the cosine the last bit is of the argument.
			if !(math.Abs(got-want) <= 4e-16*math.Abs(want)+1e-16) {
				t.Fatalf("%s is %g, want %g", c.name, got, want)
			}
			sum.Write(binary.LittleEndian.AppendUint64(nil, math.Float64bits(got)))
		}
		if got := sum.Sum64(); got != c.bits {
			t.Errorf("the bits of %s have the sum %#x, want %#x", c.name, got, c.bits)
		}
	}
	for x, want := range map[float64]float64{0: 1, math.Pi: -1, 2 * math.Pi: 1} {
		if got := samebits.Cos(x); got != want {
			t.Errorf("Cos(%g) = %g, want %g", x, got, want)
		}
	}
	if samebits.Pow(0.5, 0) != 1 || samebits.Pow(0, 3) != 0 || samebits.Log(1) != 0 {
		t.Errorf("Pow(0.5, 0), Pow(0, 3), Log(1) = %g, %g, %g", samebits.Pow(0.5, 0), samebits.Pow(0, 3), samebits.Log(1))
	}
}
