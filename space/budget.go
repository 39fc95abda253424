package space

import (
	"fmt"
	"math"
)

// Limits of a Budget. With them every product below stays under 2⁶³.
const (
	maxBudget = 1_000_000_000
	maxKernel = 1_000
)

// Budget asks for the pairs whose blocks have roughly the same number of
// parameters.
type Budget struct {
	// Params is the parameters wanted of one block, T, from 1 to 10⁹.
	Params int
	// Kernel is the spatial positions of the primary kernel, S, from 1 to
	// 1,000; 9 is 3×3.
	Kernel int
	// Tolerance is the largest |params/T − 1| of a pair, in [0, 1); 0.024 is
	// 2.4 %.
	Tolerance float64
	// Variant of the block; "" is the paper's.
	Variant Variant
}

// BlockParams is the parameters of a pair's block, 0 if the variant does not exist
// for it.
func (b Budget) BlockParams(p Pair) int { return b.Variant.Params(p, b.Kernel) }

// Validate says which field is out of its range, and what the range is.
func (b Budget) Validate() error {
	switch {
	case b.Params < 1 || b.Params > maxBudget:
		return fmt.Errorf("budget %d: want 1 to %d parameters", b.Params, maxBudget)
	case b.Kernel < 1 || b.Kernel > maxKernel:
		return fmt.Errorf("kernel %d: want 1 to %d positions, 9 is 3×3", b.Kernel, maxKernel)
	case b.Variant.Validate() != nil:
		return b.Variant.Validate()
	case !(b.Tolerance >= 0 && b.Tolerance < 1): // NaN too
		return fmt.Errorf("tolerance %g: want a fraction in [0, 1), 0.024 is 2.4 %%", b.Tolerance)
	}
	return nil
}

// Error is how far p is from the budget, params/T − 1; 0.024 is 2.4 % above.
func (b Budget) Error(p Pair) float64 {
	return float64(b.BlockParams(p))/float64(b.Params) - 1
}

// Nearest returns, for each M, the L whose parameters are nearest the budget,
// kept if within the tolerance; of two equally near the smaller L. The order
// is that of ComparePairs. It is nil if Validate fails or no pair fits.
//
// T = 4672, S = 9, 2.4 % gives the nine pairs of Table 1 (i).
func (b Budget) Nearest() []Pair {
	var pairs []Pair
	for m := 1; b.reaches(m); m++ {
		middle, ok := b.floor(m)
		if !ok {
			continue
		}
		p := Pair{L: max(middle, 1), M: m}
		if up := (Pair{L: p.L + 1, M: m}); b.distance(up) < b.distance(p) {
			p = up
		}
		if b.within(p) {
			pairs = append(pairs, p)
		}
	}
	return pairs
}

// All returns every pair within the tolerance, in the order of ComparePairs.
// It is nil if Validate fails or no pair fits.
//
// The number of pairs grows as tolerance·T^(2/3), 16 bytes each: with S = 9
// and 2.4 %, 9 for T = 4672 and 39,297 (0.6 MB) for T = 10⁹.
func (b Budget) All() []Pair {
	var pairs []Pair
	for m := 1; b.reaches(m); m++ {
		// Params rise with L, so the pairs of one M are a run of L around
		// the crossing of the budget.
		middle, ok := b.floor(m)
		if !ok {
			continue
		}
		first := middle + 1
		for first > 1 && b.within(Pair{L: first - 1, M: m}) {
			first--
		}
		for p := (Pair{L: first, M: m}); p.L <= middle || b.within(p); p.L++ {
			pairs = append(pairs, p)
		}
	}
	return pairs
}

func (b Budget) within(p Pair) bool { return math.Abs(b.Error(p)) <= b.Tolerance }

// distance is |params − T|, exact, so that ties are ties.
func (b Budget) distance(p Pair) int {
	d := b.BlockParams(p) - b.Params
	return max(d, -d)
}

// reaches reports whether the cheapest pair of this M, L = 1, is not above
// the tolerance; if the variant has no such M, whether a larger one could be.
// It is false for every M of an invalid budget.
func (b Budget) reaches(m int) bool {
	if b.Validate() != nil {
		return false
	}
	one, square, _ := b.Variant.cost(b.Kernel, m)
	return float64(one+square)/float64(b.Params)-1 <= b.Tolerance
}

// floor is the largest L ≥ 0 whose parameters do not exceed the budget: the
// positive root of b·L² + a·L − T = 0, rounded down. It is false if the variant
// does not exist for this M.
func (b Budget) floor(m int) (l int, ok bool) {
	one, square, ok := b.Variant.cost(b.Kernel, m)
	if !ok {
		return 0, false
	}
	// The usual (−a + √…)/2b cancels where a is large; this form does not.
	a, c := float64(one), float64(square)
	l = int(2 * float64(b.Params) / (a + math.Sqrt(a*a+4*c*float64(b.Params))))
	// The root is within an ulp or so; integers settle which side it is on.
	for l > 0 && b.BlockParams(Pair{L: l, M: m}) > b.Params {
		l--
	}
	for b.BlockParams(Pair{L: l + 1, M: m}) <= b.Params {
		l++
	}
	return l, true
}
