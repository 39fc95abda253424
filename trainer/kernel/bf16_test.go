package kernel_test

import (
	"crypto/sha256"
	"flag"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"runtime"
	"slices"
	"strings"
	"testing"

	"igcsearch/trainer/kernel"
)

var update = flag.Bool("update", false, "write testdata/bf16.golden")

// bf16Cases are blocks of each kind.
var bf16Cases = []convCase{
	{l: 5, ci: 1, co: 1, h: 4, w: 9, n: 17, secondary: true},
	{l: 4, ci: 2, co: 2, h: 4, w: 5, n: 3, secondary: true},
	{l: 3, ci: 7, co: 7, h: 6, w: 5, n: 17, secondary: true},
	{l: 3, ci: 4, co: 8, h: 7, w: 8, n: 3, secondary: true, stride: 2},
	{l: 1, ci: 3, co: 13, h: 5, w: 6, n: 19, input: pictures},
	{l: 4, ci: 3, co: 3, h: 4, w: 5, n: 3, secondary: true, between: true, input: plain},
	{l: 3, ci: 4, co: 4, h: 7, w: 9, n: 3, secondary: true, kh: 5, kw: 5, stride: 2, linear: true},
	{l: 12, ci: 1, co: 2, h: 6, w: 7, n: 3, stride: 2, mixes: []kernel.Mix{{K: 3, Step: 2}, {K: 2, Step: 6}, {K: 2, Step: 12}}},

	// Where partitions share the steps of AMX, and many channels are split into blocks.
	{l: 7, ci: 3, co: 3, h: 4, w: 5, n: 17, secondary: true},             // three share a step, the last has it alone
	{l: 1, ci: 44, co: 44, h: 3, w: 4, n: 2},                             // five blocks
	{l: 2, ci: 13, co: 22, h: 3, w: 5, n: 3, secondary: true, stride: 2}, // the last of two or three blocks is smaller
	{l: 1, ci: 20, co: 20, h: 3, w: 3, n: 2, secondary: true},            // a mix of single channels
	{l: 16, ci: 2, co: 1, h: 3, w: 4, n: 3, secondary: true},
	{l: 17, ci: 1, co: 1, h: 3, w: 4, n: 3, secondary: true},
	{l: 40, ci: 1, co: 2, h: 2, w: 3, n: 3, secondary: true},        // a mix in two blocks
	{l: 2, ci: 9, co: 8, h: 3, w: 4, n: 3, kh: 1, kw: 1, stride: 1}, // one pair has channels of two partitions
	{l: 4, ci: 33, co: 3, h: 2, w: 3, n: 2, kh: 1, kw: 1, stride: 2, stepIn: 2},
	{l: 3, ci: 3, co: 4, h: 4, w: 5, n: 3, kh: 3, kw: 1, stride: 1, stepOut: 3},
	{l: 5, ci: 2, co: 3, h: 5, w: 4, n: 3, kh: 5, kw: 5, stride: 1},
	{l: 5, ci: 1, co: 2, h: 6, w: 7, n: 3, kh: 7, kw: 7, stride: 2, input: plain},
	{l: 1, ci: 3, co: 20, h: 7, w: 6, n: 2, kh: 7, kw: 7, stride: 1, input: pictures},
}

// ofBF16 calls f with each case in each precision of bfloat16.
func ofBF16(f func(convCase)) {
	for _, p := range bf16Precisions {
		for _, c := range bf16Cases {
			c.precision = p
			f(c)
		}
	}
}

// randomCase draws a block of any kind, small enough for the oracle.
func randomCase(r *rand.Rand) convCase {
	upTo := func(limits ...int) int { return 1 + r.IntN(limits[r.IntN(len(limits))]) }
	divisor := func(n int) int {
		for {
			if d := upTo(n); n%d == 0 {
				return d
			}
		}
	}
	for {
		c := convCase{l: upTo(1, 4, 20, 70), ci: upTo(4, 20, 70), co: upTo(4, 20, 70), h: upTo(6), w: upTo(4, 9, 40), n: upTo(3, 17),
			kh: 2*upTo(1, 2, 4) - 1, kw: 2*upTo(1, 2, 4) - 1, stride: upTo(1, 2), linear: r.IntN(4) == 0}
		if r.IntN(2) == 0 {
			for range upTo(3) {
				k := divisor(c.l * c.co)
				c.mixes = append(c.mixes, kernel.Mix{K: k, Step: divisor(c.l * c.co / k)})
			}
			c.between = r.IntN(3) == 0
			c.input = []inputKind{normalised, plain}[r.IntN(2)]
		} else if c.input = inputKind(r.IntN(3)); c.input != pictures {
			c.stepIn, c.stepOut = divisor(c.l), divisor(c.l)
		}
		g := c.geometry()
		if c.n*c.h*c.w*(g.PrimaryLen()+g.MixesLen()+g.In()) < 500_000 {
			return c
		}
	}
}

// TestBF16OfRandomSizes compares blocks whose sizes nobody chose with the oracle.
func TestBF16OfRandomSizes(t *testing.T) {
	r := rand.New(rand.NewPCG(22, 23))
	for range 30 {
		c := randomCase(r)
		for _, c.precision = range bf16Precisions {
			t.Run(c.String(), func(t *testing.T) { testConv(t, c, newData(c)) })
		}
	}
}

func scale(s []float64, by float64) {
	for i := range s {
		s[i] *= by
	}
}

// TestBF16OfTinyNumbers has products and sums around 2⁻¹²⁶, the smallest number that
// is not flushed to zero.
func TestBF16OfTinyNumbers(t *testing.T) {
	ofBF16(func(c convCase) {
		d := newData(c)
		scale(d.x, 0x1p-60)
		scale(d.shift, 0x1p-60)
		scale(d.wp, 0x1p-65)
		scale(d.g, 0x1p-60)
		scale(d.pooled, 0x1p-60)
		scale(d.cb, 0)
		scale(d.cc, 0x1p-126) // half of these are denormal
		for i := range d.x {  // and so is a tenth of the activations
			if i%10 == 0 {
				d.x[i] *= 0x1p-67
			}
		}
		t.Run(c.String(), func(t *testing.T) { testConv(t, c, d) })
	})
}

// TestBF16OfHugeNumbers has sums that overflow. What is infinite or no number is so in
// the oracle too, and all else is the same. Which of both it is may differ: where there
// is nothing to multiply, kernels multiply by zero, which makes NaN of infinity. With AMX
// they do so for other partitions too, and have NaN where the oracle may have a number.
func TestBF16OfHugeNumbers(t *testing.T) {
	ofBF16(func(c convCase) {
		d, g := newData(c), c.geometry()
		scale(d.x, 0x1p63)
		scale(d.wp, 0x1p65*math.Sqrt(2/float64(g.Ci*g.KH*g.KW))) // some sums overflow, and most do not
		scale(d.g, 0x1p63)
		scale(d.cb, 0x1p-64)
		o := newConvOracle(c, d)
		numbers := func(s []float64) []float64 {
			s = slices.Clone(s)
			for i, v := range s {
				if math.IsInf(v, 0) {
					s[i] = math.NaN()
				}
			}
			return s
		}
		var first []float64
		for _, w := range ways(c.precision) {
			t.Run(c.String()+"/"+w.String(), func(t *testing.T) {
				p := &convTest{convOracle: o, blocks: kernel.Blocks(c.n)}
				t.Cleanup(p.arena.Free)
				p.pack()
				p.team = w.team(t, &p.arena, o.ScratchLen())
				p.run()
				got, want := numbers(unpacked(c.precision, p.z, c.n, p.outCh, p.height, p.width)), numbers(p.want.z)
				if c.input != pictures {
					got = append(got, numbers(unpacked(c.precision, p.spread.gx, c.n, p.inCh, c.h, c.w))...)
					want = append(want, numbers(p.want.spread.gx)...)
				}
				if first == nil {
					first = got
				}
				equal(t, "z and gx, beside those of another way", got, first)
				if c.precision == kernel.AMX {
					for i, v := range got {
						if math.IsNaN(v) {
							want[i] = v
						}
					}
				}
				equal(t, "z and gx", got, want)
			})
		}
	})
}

// TestBF16FlushesAfterRounding has the sum 2⁻¹²⁶ − 2⁻¹⁵², which is 2⁻¹²⁶ once it is
// rounded.
func TestBF16FlushesAfterRounding(t *testing.T) {
	if runtime.GOARCH == "arm64" {
		t.Skip("arm64 flushes before it rounds: the one number whose bits differ there")
	}
	for p, d := range map[kernel.Precision]data{
		kernel.BF16: {x: []float64{0x1p-76, 0x1p-63}, wp: []float64{-0x1p-76, 0x1p-63}},
		// AMX adds a product to that of the pair before.
		kernel.AMX: {x: []float64{0x1p-63, 0, 0x1p-76}, wp: []float64{0x1p-63, 0, -0x1p-76}},
	} {
		c := convCase{l: 1, ci: len(d.x), co: 1, h: 1, w: 1, n: 1, kh: 1, kw: 1, stride: 1, precision: p, input: plain}
		all := newData(c)
		all.x, all.wp = d.x, d.wp
		t.Run(c.String(), func(t *testing.T) { testConv(t, c, all) })
	}
}

// TestBF16HasTheSameBitsOnEveryMachine compares the results of all kernels with those
// that were recorded on an x86-64. .ci/run runs it on an emulated arm64.
func TestBF16HasTheSameBitsOnEveryMachine(t *testing.T) {
	const file = "testdata/bf16.golden"
	for i, w := range ways(kernel.BF16) {
		t.Run(w.String(), func(t *testing.T) {
			got := bf16Hashes(t, w)
			if *update && i == 0 {
				if err := os.WriteFile(file, []byte(strings.Join(got, "\n")+"\n"), 0o666); err != nil {
					t.Fatal(err)
				}
			}
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			want := strings.Split(strings.TrimSpace(string(text)), "\n")
			if len(got) != len(want) {
				t.Fatalf("%d results, want %d", len(got), len(want))
			}
			for i := range got {
				if got[i] != want[i] {
					t.Errorf("got  %s\nwant %s", got[i], want[i])
				}
			}
		})
	}
}

// bf16Hashes are the results with their hashes.
func bf16Hashes(t *testing.T, w way) (lines []string) {
	add := func(what string, bits ...[]byte) {
		lines = append(lines, fmt.Sprintf("%.16x %s", sha256.Sum256(slices.Concat(bits...)), what))
	}
	ofBF16(func(c convCase) {
		p := &convTest{convOracle: newConvOracle(c, newData(c)), blocks: kernel.Blocks(c.n)}
		t.Cleanup(p.arena.Free)
		p.pack()
		p.team = w.team(t, &p.arena, p.ScratchLen())
		p.run()
		p.runWithKeptOutput(t)
		p.runPooled()
		p.compare(t)
		add("forward "+c.String(), raw(p.y), raw(p.z), raw(p.sums[0]), raw(p.sums[1]))
		for i, r := range []backwardResults{p.spread, p.pooled} {
			if c.input != normalised {
				r.gsum, r.gxsum = nil, nil // not written
			}
			add([]string{"backward ", "backward, pooled "}[i]+c.String(), raw(r.gx), raw(r.gsum), raw(r.gxsum), raw(r.dwp),
				raw(r.dws))
		}
	})
	for _, p := range bf16Precisions {
		for _, size := range []headSize{{5, 3, 7, 11, 3, false}, {4, 4, 80, 100, 16, false}, {5, 3, 7, 11, 3, true}} {
			add(fmt.Sprintf("head %v/%+v", p, size), testHead(t, p, size, w))
		}
		for kind := range 12 {
			c := addCase{p, kind / 4, kind&1 > 0, kind&2 > 0}
			add("add "+c.String(), testAdd(t, c, w))
		}
		add(fmt.Sprintf("max %v", p), testMax(t, maxCase{p, 7, 5, 16, false}, w))
	}
	var a kernel.Arena
	t.Cleanup(a.Free)
	r := rand.New(rand.NewPCG(20, 21))
	weights, velocities, g := f32(&a, uniform(r, 1000, 1)), f32(&a, uniform(r, 1000, 1)), f32(&a, uniform(r, 1000, 1))
	kernel.Nesterov(weights, velocities, g, 0.1, 0.9, 1e-4)
	add("update", raw(weights), raw(velocities))
	return lines
}
