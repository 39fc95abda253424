package search

import (
	"math"
	"math/rand/v2"
	"slices"

	"gonum.org/v1/gonum/mat"
	"gonum.org/v1/gonum/stat"
	"gonum.org/v1/gonum/stat/distuv"

	"igcsearch/space"
)

// Alpha is the level of significance that decides who is not worse than the
// best.
const Alpha = 1 - confidence

// Score is the accuracy of one trial.
type Score struct {
	Seed    int
	Percent float64
}

// Costs are what one picture of a network costs; 0 is unknown.
type Costs struct {
	Params       float64 // of the network
	MultiplyAdds float64 // of the forward pass
	Seconds      float64 // measured, of a training step divided by its pictures
}

// Arm is what a study measured of one of its networks.
type Arm struct {
	// Pair is zero where networks are not compared by their M.
	Pair   space.Pair
	Scores []Score // by rising seed, each once
	Costs  Costs
}

// Mean sums up the scores of an arm, in percent. Std has n − 1 in the
// denominator; Half is the half width of the 95 % t interval. What n does not
// allow is NaN.
type Mean struct {
	N               int
	Mean, Std, Half float64
}

// Comparison is how much more accurate arm A is than arm B.
type Comparison struct {
	A, B int // indices of the arms
	// Difference of the means in percentage points, with the half width of its
	// 95 % interval and the two-sided P, both NaN where there is no test.
	Difference, Half, P float64
	// Holm is P corrected for the comparisons that were made together.
	Holm float64
	// Common is the number of seeds that a paired test is over; 0 if it is
	// Welch's, because fewer than two seeds are common.
	Common int
}

// Curve is a concave parabola through the accuracies: at x = log2 M they are
// At[0] + At[1]·x + At[2]·x² percent, At[2] ≤ 0.
type Curve struct {
	At [3]float64
	// Straight is set if the least squares would bend up: then At[2] is 0 and
	// the peak is an end.
	Straight bool
	// Peak is the M, between the smallest and the largest of the arms, where
	// the curve is highest, and Height its percent there. Low and High are the
	// ends of its 95 % bootstrap interval, NaN if there are fewer than two seeds.
	Peak, Height, Low, High float64
}

// Analysis is what the accuracies of a study say. Slices are as long as Arms.
type Analysis struct {
	Arms  []Arm
	Means []Mean
	// Best is the arm that is ahead of every other by most, of the seeds that
	// both have; where all have the same, it has the highest mean. −1: no arm
	// has a score.
	Best int
	// Against compares the best with each arm, corrected for their number.
	Against []Comparison
	// AsGood are the best and the arms that are not significantly worse.
	AsGood []bool
	// Front are the arms than which none is as accurate and as cheap and better
	// in one of it, by means. Costs that some arm does not know are left out.
	Front []bool
	// Paper compares M = 2 with M = 1, and M = 2 with L = 1, of each the arm
	// with the highest mean; without those that there are no arms of.
	Paper []Comparison
	// Curve is nil for fewer than three M.
	Curve *Curve
}

// Analyze sums up the arms of one study. It is a pure function: the bootstrap
// draws the same numbers each time.
func Analyze(arms []Arm) Analysis {
	a := Analysis{Arms: arms, Best: -1, Means: make([]Mean, len(arms)), Against: make([]Comparison, len(arms)),
		AsGood: make([]bool, len(arms)), Front: make([]bool, len(arms))}
	for i, arm := range arms {
		v := percents(arm.Scores)
		a.Means[i] = Mean{N: len(v), Std: math.NaN()}
		a.Means[i].Mean, a.Means[i].Half = TInterval(v)
		if len(v) > 1 {
			a.Means[i].Std = stat.StdDev(v, nil)
		}
	}
	if a.Best = a.best(); a.Best < 0 {
		return a
	}
	for i := range arms {
		a.Against[i] = a.Compare(a.Best, i)
	}
	correct(a.Against)
	for i, c := range a.Against {
		a.AsGood[i] = a.Means[i].N > 0 && !(c.Difference > 0 && c.Holm <= Alpha)
	}
	a.Front = a.front()
	two := a.highest(func(p space.Pair) bool { return p.M == 2 })
	for _, other := range []int{a.highest(func(p space.Pair) bool { return p.M == 1 }), a.highest(func(p space.Pair) bool { return p.L == 1 })} {
		if two >= 0 && other >= 0 {
			a.Paper = append(a.Paper, a.Compare(two, other))
		}
	}
	correct(a.Paper)
	a.Curve = fitCurve(arms)
	return a
}

func percents(scores []Score) []float64 {
	var v []float64
	for _, s := range scores {
		v = append(v, s.Percent)
	}
	return v
}

// Compare tests arm i against arm j over the seeds that both have, because what a seed
// adds to both falls out of the difference; without two of them by Welch.
func (a Analysis) Compare(i, j int) Comparison {
	c := Comparison{A: i, B: j, P: math.NaN(), Half: math.NaN()}
	if i == j {
		return c
	}
	d := a.differences(i, j)
	if x, y := percents(a.Arms[i].Scores), percents(a.Arms[j].Scores); len(d) < 2 && len(x) > 1 && len(y) > 1 {
		c.Difference, c.Half, c.P = Welch(x, y)
		return c
	}
	if len(d) == 0 {
		c.Difference = a.Means[i].Mean - a.Means[j].Mean
		return c
	}
	c.Common = len(d)
	c.Difference, c.Half, c.P = PairedT(d)
	return c
}

// differences are those of arm i to arm j, of the seeds that both have.
func (a Analysis) differences(i, j int) (d []float64) {
	x, y := a.Arms[i].Scores, a.Arms[j].Scores
	for len(x) > 0 && len(y) > 0 {
		switch {
		case x[0].Seed < y[0].Seed:
			x = x[1:]
		case x[0].Seed > y[0].Seed:
			y = y[1:]
		default:
			d = append(d, x[0].Percent-y[0].Percent)
			x, y = x[1:], y[1:]
		}
	}
	return d
}

func correct(list []Comparison) {
	p := make([]float64, len(list))
	for i, c := range list {
		p[i] = c.P
	}
	for i, v := range Holm(p) {
		list[i].Holm = v
	}
}

// best compares over common seeds: a race drops arms after few seeds, whose
// means may be high because those seeds were good for all.
func (a Analysis) best() int {
	best, most := -1, math.Inf(-1)
	for i := range a.Arms {
		if a.Means[i].N == 0 {
			continue
		}
		least := math.MaxFloat64 // alone it is the best
		for j := 0; j < len(a.Arms) && least > most; j++ {
			if j == i || a.Means[j].N == 0 {
				continue
			}
			ahead := a.Means[i].Mean - a.Means[j].Mean
			if d := a.differences(i, j); len(d) > 0 {
				ahead = stat.Mean(d, nil)
			}
			least = min(least, ahead)
		}
		if least > most {
			best, most = i, least
		}
	}
	return best
}

// highest is the arm of those pairs with the highest mean, −1 if none has one.
func (a Analysis) highest(of func(space.Pair) bool) int {
	found := -1
	for i, arm := range a.Arms {
		if arm.Pair != (space.Pair{}) && a.Means[i].N > 0 && of(arm.Pair) && (found < 0 || a.Means[i].Mean > a.Means[found].Mean) {
			found = i
		}
	}
	return found
}

// Known are the costs that every arm with a score knows.
func (a Analysis) Known() (params, multiplyAdds, seconds bool) {
	params, multiplyAdds, seconds = true, true, true
	for i, arm := range a.Arms {
		if a.Means[i].N > 0 {
			params, multiplyAdds, seconds = params && arm.Costs.Params > 0, multiplyAdds && arm.Costs.MultiplyAdds > 0, seconds && arm.Costs.Seconds > 0
		}
	}
	return params, multiplyAdds, seconds
}

// front marks the arms that no other dominates.
func (a Analysis) front() []bool {
	params, multiplyAdds, seconds := a.Known()
	values := make([][]float64, len(a.Arms)) // smaller is better in each; nil without a score
	for i, arm := range a.Arms {
		if a.Means[i].N == 0 {
			continue
		}
		values[i] = []float64{-a.Means[i].Mean}
		for _, cost := range []struct {
			known bool
			value float64
		}{{params, arm.Costs.Params}, {multiplyAdds, arm.Costs.MultiplyAdds}, {seconds, arm.Costs.Seconds}} {
			if cost.known {
				values[i] = append(values[i], cost.value)
			}
		}
	}
	dominates := func(x, y []float64) bool {
		better := false
		for k := range x {
			if x[k] > y[k] {
				return false
			}
			better = better || x[k] < y[k]
		}
		return better
	}
	front := make([]bool, len(values))
	for i, ours := range values {
		front[i] = ours != nil && !slices.ContainsFunc(values, func(v []float64) bool { return v != nil && dominates(v, ours) })
	}
	return front
}

const bootstraps = 4000

// fitCurve fits a concave parabola to all scores over log2 M by least squares,
// and finds the interval of its peak by the bootstrap. Seeds are drawn as blocks,
// each with its scores of all arms, because those share the seed's share of luck.
// The percentiles are those of the expanded percentile interval, which is
// Student's where the plain one, too narrow for few seeds, is the normal
// distribution's (Hesterberg, "What teachers should know about the bootstrap",
// The American Statistician 69, 2015).
func fitCurve(arms []Arm) *Curve {
	var seeds []int
	for _, arm := range arms {
		for _, s := range arm.Scores {
			if !slices.Contains(seeds, s.Seed) {
				seeds = append(seeds, s.Seed)
			}
		}
	}
	slices.Sort(seeds)
	once := map[int]float64{}
	for _, seed := range seeds {
		once[seed] = 1
	}
	c := parabola(arms, once)
	if c == nil {
		return nil
	}
	c.Low, c.High = math.NaN(), math.NaN()
	if len(seeds) < 2 {
		return c
	}
	random := rand.New(rand.NewPCG(1, 2)) // fixed: the same results, the same interval
	var peaks []float64
	for range bootstraps {
		times := map[int]float64{}
		for range seeds {
			times[seeds[random.IntN(len(seeds))]]++
		}
		if c := parabola(arms, times); c != nil {
			peaks = append(peaks, c.Peak)
		}
	}
	slices.Sort(peaks)
	n := float64(len(seeds))
	tail := distuv.UnitNormal.CDF(-math.Sqrt(n/(n-1)) * quantileT(n-1))
	c.Low, c.High = stat.Quantile(tail, stat.Empirical, peaks, nil), stat.Quantile(1-tail, stat.Empirical, peaks, nil)
	return c
}

// parabola counts the scores of each seed so many times; nil if fewer than
// three M are left.
func parabola(arms []Arm, times map[int]float64) *Curve {
	var xs, ys, weights []float64 // of each arm: log2 M, mean, number of scores
	for _, arm := range arms {
		sum, n := 0., 0.
		for _, s := range arm.Scores {
			sum, n = sum+times[s.Seed]*s.Percent, n+times[s.Seed]
		}
		if n > 0 && arm.Pair.M > 0 {
			xs, ys, weights = append(xs, math.Log2(float64(arm.Pair.M))), append(ys, sum/n), append(weights, n)
		}
	}
	distinct := slices.Clone(xs)
	slices.Sort(distinct)
	if distinct = slices.Compact(distinct); len(distinct) < 3 {
		return nil
	}
	first, last := distinct[0], distinct[len(distinct)-1]
	var c Curve
	copy(c.At[:], leastSquares(xs, ys, weights, 2))
	if c.At[2] > 0 {
		// The squares are convex in the coefficients: with the constraint the
		// least are where it binds.
		c.At = [3]float64{}
		copy(c.At[:], leastSquares(xs, ys, weights, 1))
		c.Straight = true
	}
	at := first
	switch {
	case c.At[2] < 0:
		at = max(first, min(last, -c.At[1]/(2*c.At[2])))
	case c.At[1] > 0:
		at = last
	}
	c.Peak, c.Height = math.Exp2(at), c.At[0]+at*(c.At[1]+at*c.At[2])
	return &c
}

// leastSquares returns the coefficients of a weighted polynomial, the constant
// first. There are more than degree distinct xs.
func leastSquares(xs, ys, weights []float64, degree int) []float64 {
	a, b := mat.NewDense(len(xs), degree+1, nil), mat.NewVecDense(len(xs), nil)
	for i, x := range xs {
		w := math.Sqrt(weights[i])
		b.SetVec(i, w*ys[i])
		for k := range degree + 1 {
			a.Set(i, k, w)
			w *= x
		}
	}
	var out mat.VecDense
	if err := out.SolveVec(a, b); err != nil {
		panic(err) // distinct xs of so low a degree are far from singular
	}
	return out.RawVector().Data
}
