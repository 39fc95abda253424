package space_test

import (
	"math"
	"slices"
	"testing"
	"time"

	"igcsearch/space"

	"pgregory.net/rapid"
)

// budgets draws budgets that are small enough for brute force.
var budgets = rapid.Custom(func(t *rapid.T) space.Budget {
	return space.Budget{
		Params:    rapid.IntRange(1, 4000).Draw(t, "T"),
		Kernel:    rapid.SampledFrom([]int{1, 9, 25, 1000}).Draw(t, "S"),
		Tolerance: rapid.SampledFrom([]float64{0, 0.001, 0.024, 0.1, 0.5, 0.999}).Draw(t, "tolerance"),
		Variant:   rapid.SampledFrom(variants).Draw(t, "variant"),
	}
})

// everyPair lists all pairs with at most twice the parameters of the budget, by trying each.
func everyPair(b space.Budget) []space.Pair {
	var all []space.Pair
	// A block of width G has at least G/4 parameters. The primary convolution of a bottleneck
	// has the fewest.
	for m := 1; m*m <= 8*b.Params; m++ {
		for l := 1; l*m*m <= 8*b.Params; l++ {
			if n := b.BlockParams(space.Pair{L: l, M: m}); n > 0 && n <= 2*b.Params {
				all = append(all, space.Pair{L: l, M: m})
			}
		}
	}
	return all
}

func TestNearest(t *testing.T) {
	t.Parallel()
	t.Run("T = 4672 at 2.4 % is Table 1 (i)", func(t *testing.T) {
		got := space.Budget{Params: 4672, Kernel: 9, Tolerance: 0.024}.Nearest()
		want := []space.Pair{{64, 1}, {40, 2}, {28, 3}, {12, 6}, {6, 9}, {5, 10}, {3, 13}, {2, 16}, {1, 23}}
		if !slices.Equal(got, want) {
			t.Errorf("got %v, want %v", got, want)
		}
	})
	t.Run("of two equally near the smaller L", func(t *testing.T) {
		// With S = 1 and M = 1, T = L + L² is 6 for L = 2 and 12 for L = 3. The budget is 9.
		got := space.Budget{Params: 9, Kernel: 1, Tolerance: 0.34}.Nearest()
		if len(got) == 0 || got[0] != (space.Pair{L: 2, M: 1}) {
			t.Errorf("got %v, want L2M1 first", got)
		}
	})
	t.Run("agrees with brute force", rapid.MakeCheck(func(t *rapid.T) {
		b := budgets.Draw(t, "budget")
		best := map[int]space.Pair{}
		for _, p := range everyPair(b) {
			q, ok := best[p.M]
			if !ok || math.Abs(float64(b.BlockParams(p)-b.Params)) < math.Abs(float64(b.BlockParams(q)-b.Params)) {
				best[p.M] = p
			}
		}
		var want []space.Pair
		for _, p := range best {
			if math.Abs(float64(b.BlockParams(p))/float64(b.Params)-1) <= b.Tolerance {
				want = append(want, p)
			}
		}
		slices.SortFunc(want, space.ComparePairs)
		if got := b.Nearest(); !slices.Equal(got, want) {
			t.Fatalf("%+v: got %v, want %v", b, got, want)
		}
	}))
}

func TestAll(t *testing.T) {
	t.Parallel()
	t.Run("agrees with brute force", rapid.MakeCheck(func(t *rapid.T) {
		b := budgets.Draw(t, "budget")
		var want []space.Pair
		for _, p := range everyPair(b) {
			if math.Abs(float64(b.BlockParams(p))/float64(b.Params)-1) <= b.Tolerance {
				want = append(want, p)
			}
		}
		if got := b.All(); !slices.Equal(got, want) {
			t.Fatalf("%+v: got %v, want %v", b, got, want)
		}
	}))
	t.Run("contains Nearest", rapid.MakeCheck(func(t *rapid.T) {
		b := budgets.Draw(t, "budget")
		all := b.All()
		for _, p := range b.Nearest() {
			if !slices.Contains(all, p) {
				t.Fatalf("%+v: %s is missing from %v", b, p, all)
			}
		}
	}))
}

func TestLargeBudgets(t *testing.T) {
	t.Parallel()
	b := space.Budget{Params: 1_000_000_000, Kernel: 9, Tolerance: 0.024}
	var nearest, all []space.Pair
	best := time.Hour // of several, because this machine may have other work
	for range 5 {
		start := time.Now()
		nearest, all = b.Nearest(), b.All()
		best = min(best, time.Since(start))
	}
	if best > time.Second { // measured: 1 ms
		t.Errorf("a budget of 10⁹ took %v", best)
	}
	if len(all) != 39_297 {
		t.Errorf("All gives %d pairs, its comment says 39,297", len(all))
	}
	for _, p := range nearest {
		distance := func(p space.Pair) float64 { return math.Abs(float64(b.Params - p.Params(9))) }
		for _, l := range []int{p.L - 1, p.L + 1} {
			if q := (space.Pair{L: l, M: p.M}); l >= 1 && distance(q) < distance(p) {
				t.Fatalf("%s is nearer to 10⁹ than %s", q, p)
			}
		}
	}
	if len(nearest) < 1000 || !slices.IsSortedFunc(all, space.ComparePairs) {
		t.Errorf("%d nearest pairs; All sorted: %v", len(nearest), slices.IsSortedFunc(all, space.ComparePairs))
	}
}

func TestValidate(t *testing.T) {
	t.Parallel()
	good := space.Budget{Params: 4672, Kernel: 9, Tolerance: 0.024}
	if err := good.Validate(); err != nil {
		t.Errorf("%+v: %v", good, err)
	}
	for name, spoil := range map[string]func(*space.Budget){
		"no parameters":         func(b *space.Budget) { b.Params = 0 },
		"too many parameters":   func(b *space.Budget) { b.Params = math.MaxInt },
		"no kernel":             func(b *space.Budget) { b.Kernel = 0 },
		"a huge kernel":         func(b *space.Budget) { b.Kernel = math.MaxInt },
		"a negative tolerance":  func(b *space.Budget) { b.Tolerance = -0.1 },
		"a tolerance of 100 %":  func(b *space.Budget) { b.Tolerance = 1 },
		"an infinite tolerance": func(b *space.Budget) { b.Tolerance = math.Inf(1) },
		"no number":             func(b *space.Budget) { b.Tolerance = math.NaN() },
	} {
		t.Run(name+" is refused and enumerates nothing", func(t *testing.T) {
			b := good
			spoil(&b)
			if b.Validate() == nil || b.Nearest() != nil || b.All() != nil {
				t.Errorf("%+v: error %v, %d pairs", b, b.Validate(), len(b.All()))
			}
		})
	}
}
