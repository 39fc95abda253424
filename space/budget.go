package space

import (
	"fmt"
	"math"
)

// The limits of a Budget keep every product in this file below 2⁶³.
const (
	maxBudget = 1_000_000_000
	maxKernel = 1_000
)

// Budget selects the pairs whose blocks have about the same number of parameters.
type Budget struct {
	// Params is the wanted number of parameters of one block, T, from 1 to 10⁹.
	Params int
	// Kernel is the number of positions of the primary kernel, S, from 1 to 1,000: 9 for 3×3.
	Kernel int
	// Tolerance is the largest |Error| that a pair may have, in [0, 1): 0.024 means 2.4 %.
	Tolerance float64
	// Variant is the variant of the block. "" is the plain block.
	Variant Variant
}

// BlockParams returns the number of parameters of a pair's block. It is 0 if the variant does not
// exist for the pair.
func (b Budget) BlockParams(p Pair) int { return b.Variant.Params(p, b.Kernel) }

// Validate returns an error if a field is out of its range. The error names the field and the
// range.
func (b Budget) Validate() error {
	switch {
	case b.Params < 1 || b.Params > maxBudget:
		return fmt.Errorf("budget %d: want 1 to %d parameters", b.Params, maxBudget)
	case b.Kernel < 1 || b.Kernel > maxKernel:
		return fmt.Errorf("kernel %d: want 1 to %d positions, 9 is 3×3", b.Kernel, maxKernel)
	case b.Variant.Validate() != nil:
		return b.Variant.Validate()
	case !(b.Tolerance >= 0 && b.Tolerance < 1): // refuses NaN too
		return fmt.Errorf("tolerance %g: want a fraction in [0, 1), 0.024 is 2.4 %%", b.Tolerance)
	}
	return nil
}

// SameBudget reports whether networks of these sizes are counted as having one budget: the largest is
// at most 10 % larger than the smallest.
func SameBudget(smallest, largest int) bool { return float64(largest) <= 1.1*float64(smallest) }

// deviation returns how far a cost is from a budget of parameters or, if that is 0, of multiply–adds.
func deviation(budget int, multiplyAddsBudget int64, params int, multiplyAdds int64) float64 {
	if budget > 0 {
		return float64(params)/float64(budget) - 1
	}
	return float64(multiplyAdds)/float64(multiplyAddsBudget) - 1
}

// amount writes a budget of parameters or, if that is 0, of multiply–adds.
func amount(params int, multiplyAdds int64) string {
	n, of := int64(params), "parameter"
	if params == 0 {
		n, of = multiplyAdds, "multiply–add"
	}
	if n != 1 {
		of += "s"
	}
	return fmt.Sprintf("%d %s", n, of)
}

// Error returns how far a pair is from the budget, params/T − 1: 0.024 means 2.4 % above it.
func (b Budget) Error(p Pair) float64 {
	return float64(b.BlockParams(p))/float64(b.Params) - 1
}

// Nearest returns one pair for each M: the pair whose parameters are nearest to the budget, if it
// is within the tolerance. Of two equally near pairs it takes the smaller L. The pairs are in the
// order of ComparePairs. The result is nil if Validate fails or no pair fits.
//
// T = 4672, S = 9 and a tolerance of 2.4 % give the nine pairs of Table 1 (i).
func (b Budget) Nearest() []Pair {
	var pairs []Pair
	for m := 1; b.reaches(m); m++ {
		below, ok := b.largestBelow(m)
		if !ok {
			continue
		}
		p := Pair{L: max(below, 1), M: m}
		if up := (Pair{L: p.L + 1, M: m}); b.distance(up) < b.distance(p) {
			p = up
		}
		if b.within(p) {
			pairs = append(pairs, p)
		}
	}
	return pairs
}

// All returns every pair within the tolerance, in the order of ComparePairs. The result is nil if
// Validate fails or no pair fits.
//
// The number of pairs grows as tolerance·T^(2/3), and a pair takes 16 bytes. With S = 9 and 2.4 %
// there are 9 pairs for T = 4672, and 39,297 (0.6 MB) for T = 10⁹.
func (b Budget) All() []Pair {
	var pairs []Pair
	for m := 1; b.reaches(m); m++ {
		// The parameters grow with L. So the pairs of one M have consecutive L, around the L
		// where the parameters cross the budget.
		below, ok := b.largestBelow(m)
		if !ok {
			continue
		}
		first := below + 1
		for first > 1 && b.within(Pair{L: first - 1, M: m}) {
			first--
		}
		for p := (Pair{L: first, M: m}); p.L <= below || b.within(p); p.L++ {
			pairs = append(pairs, p)
		}
	}
	return pairs
}

func (b Budget) within(p Pair) bool { return math.Abs(b.Error(p)) <= b.Tolerance }

// distance returns |params − T| as a whole number, so that equal distances compare as equal.
func (b Budget) distance(p Pair) int {
	d := b.BlockParams(p) - b.Params
	return max(d, -d)
}

// reaches reports whether the cheapest pair of this M, which has L = 1, is not above the tolerance.
// If the variant does not exist for this M, reaches reports whether a larger M could have such a
// pair. It returns false for every M if the budget is invalid.
func (b Budget) reaches(m int) bool {
	if b.Validate() != nil {
		return false
	}
	one, square, _ := b.Variant.cost(b.Kernel, m)
	return float64(one+square)/float64(b.Params)-1 <= b.Tolerance
}

// largestBelow returns the largest L ≥ 0 whose parameters do not exceed the budget: the positive
// root of c·L² + a·L − T = 0, rounded down. ok is false if the variant does not exist for this M.
func (b Budget) largestBelow(m int) (l int, ok bool) {
	one, square, ok := b.Variant.cost(b.Kernel, m)
	if !ok {
		return 0, false
	}
	// The usual formula (−a + √…)/2c loses digits where a is large. This one does not.
	a, c := float64(one), float64(square)
	l = int(2 * float64(b.Params) / (a + math.Sqrt(a*a+4*c*float64(b.Params))))
	// The root may be wrong in its last digit. Integers decide which L is the right one.
	for l > 0 && b.BlockParams(Pair{L: l, M: m}) > b.Params {
		l--
	}
	for b.BlockParams(Pair{L: l + 1, M: m}) <= b.Params {
		l++
	}
	return l, true
}
