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
}

// Validate says which field is out of its range, and what the range is.
func (b Budget) Validate() error {
	switch {
	case b.Params < 1 || b.Params > maxBudget:
		return fmt.Errorf("budget %d: want 1 to %d parameters", b.Params, maxBudget)
	case b.Kernel < 1 || b.Kernel > maxKernel:
		return fmt.Errorf("kernel %d: want 1 to %d positions, 9 is 3×3", b.Kernel, maxKernel)
	case !(b.Tolerance >= 0 && b.Tolerance < 1): // NaN too
		return fmt.Errorf("tolerance %g: want a fraction in [0, 1), 0.024 is 2.4 %%", b.Tolerance)
	}
	return nil
}

// Error is how far p is from the budget, params/T − 1; 0.024 is 2.4 % above.
func (b Budget) Error(p Pair) float64 {
	return float64(p.Params(b.Kernel))/float64(b.Params) - 1
}

// Nearest returns, for each M, the L whose parameters are nearest the budget,
// kept if within the tolerance; of two equally near the smaller L. The order
// is that of ComparePairs. It is nil if Validate fails or no pair fits.
//
// T = 4672, S = 9, 2.4 % gives the nine pairs of Table 1 (i).
func (b Budget) Nearest() []Pair {
	var pairs []Pair
	for m := 1; b.reaches(m); m++ {
		p := Pair{L: max(b.floor(m), 1), M: m}
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
		middle := b.floor(m)
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
	d := p.Params(b.Kernel) - b.Params
	return max(d, -d)
}

// reaches reports whether the cheapest pair of this M, L = 1, is not above
// the tolerance. It is false for every M of an invalid budget.
func (b Budget) reaches(m int) bool {
	return b.Validate() == nil && b.Error(Pair{L: 1, M: m}) <= b.Tolerance
}

// floor is the largest L ≥ 0 whose parameters do not exceed the budget: the
// positive root of M·L² + S·M²·L − T = 0, rounded down.
func (b Budget) floor(m int) int {
	sm := float64(b.Kernel) * float64(m)
	// The usual (−SM + √…)/2 cancels where S·M is large; this form does not.
	c := float64(b.Params) / float64(m)
	l := int(2 * c / (sm + math.Sqrt(sm*sm+4*c)))
	// The root is within an ulp or so; integers settle which side it is on.
	for l > 0 && (Pair{L: l, M: m}).Params(b.Kernel) > b.Params {
		l--
	}
	for (Pair{L: l + 1, M: m}).Params(b.Kernel) <= b.Params {
		l++
	}
	return l
}
