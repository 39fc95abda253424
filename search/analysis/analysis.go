package analysis

import (
	"math"
	"math/rand/v2"
	"slices"

	"gonum.org/v1/gonum/mat"
	"gonum.org/v1/gonum/stat"
	"gonum.org/v1/gonum/stat/distuv"

	"igcsearch/space"
)

// Alpha is the level of significance that decides who is worse than the best.
const Alpha = 1 - confidence

const (
	// SpreadAlpha is the level of the check whether the spreads of the samples may be
	// pooled. It is high because an unequal spread that is not found does more harm
	// than an equal one that is not used: docs/analysis.md has the simulations.
	SpreadAlpha = 0.2
	// Power is the probability with which Comparison.Detectable would be found.
	Power = 0.8
	// Telling is the share of the best's errors: a comparison that finds only larger
	// differences tells too little. On the recorded real study it is more than lies
	// between the best and the worst of nine pairs.
	Telling = 0.1
)

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

// Sample is what a study measured of one of its networks.
type Sample struct {
	// Pair is zero where networks are not compared by their M.
	Pair     space.Pair
	Scores   []Score // by rising seed, each once
	Diverged int     // trials that have no score because they diverged
	Pictures int     // that a score is of; 0 is unknown
	Costs    Costs
}

// Summary sums up the scores of a sample, in percent. Std has n − 1 in the
// denominator; Low and High are the 95 % interval. What n does not allow is NaN.
type Summary struct {
	N                    int
	Mean, Std, Low, High float64
}

// Summarize sums up values that no study belongs to. Low and High are those of TInterval.
func Summarize(values []float64) Summary {
	mean, half := TInterval(values)
	s := Summary{N: len(values), Mean: mean, Std: math.NaN(), Low: mean - half, High: mean + half}
	if len(values) > 1 {
		s.Std = stat.StdDev(values, nil)
	}
	return s
}

// Test is how two samples were compared.
type Test string

const (
	Untested     Test = ""
	AdditiveTest Test = "additive" // t test with the residual of the additive model
	PairedTest   Test = "paired"   // t test over common seeds
	WelchTest    Test = "welch"    // fewer than two seeds are common
)

// Comparison is how much more accurate sample A is than sample B.
type Comparison struct {
	A, B int // indices of the samples
	Test Test
	// Difference in percentage points by the model of the test, with the half width
	// of its 95 % interval, the two-sided P and the degrees of freedom; all but the
	// difference are NaN where there is no test.
	Difference, Half, P, Degrees float64
	// Holm is P corrected for the comparisons that were made together.
	Holm float64
	// Detectable is the smallest difference, in points, that the test finds with
	// the probability Power if it is the smallest P of those made together.
	Detectable float64
	// Common is the number of seeds that both samples have.
	Common int
}

// Verdict is what the comparison with the best says of a sample.
type Verdict string

const (
	NoScore      Verdict = ""
	TheBest      Verdict = "best"
	Separated    Verdict = "separated"          // significantly worse than the best
	NotSeparated Verdict = "not separated"      // which does not say that it is equal
	TooLittle    Verdict = "too little to tell" // docs/analysis.md has the rule
)

// Parabola is a concave parabola through the accuracies: at x = log2 M they are
// At[0] + At[1]·x + At[2]·x² percent, At[2] ≤ 0.
type Parabola struct {
	At [3]float64
	// Straight is set if the least squares would bend up: then At[2] is 0 and
	// the peak is an end.
	Straight bool
	// Peak is the M, between the smallest and the largest of the samples, where
	// the curve is highest, and Height its percent there. Low and High are the
	// ends of its 95 % bootstrap interval, NaN if there are fewer than two seeds.
	Peak, Height, Low, High float64
}

// Findings is what the accuracies of a study say. Slices are as long as Samples.
type Findings struct {
	Samples   []Sample
	Summaries []Summary
	// Model is the additive model of all scores. Pooled says that its residual is
	// the spread of all samples, which Spreads allows.
	Model   Additive
	Spreads Spreads
	Pooled  bool
	// Spread is the standard deviation of a sample's scores over seeds, pooled over
	// all samples, with its degrees of freedom: what the seeds share is part of it. NaN
	// if no sample has two scores.
	Spread, Degrees float64
	// Best is the sample that is ahead of every other by most; without a score at all
	// it is −1. Samples of one seed, or most of whose trials diverged, are the best
	// only if there are no others.
	Best int
	// Against compares the best with each sample, corrected for their number.
	Against  []Comparison
	Verdicts []Verdict
	// Tells is the largest Detectable, in points, of a comparison that tells enough
	// to call two samples not separated.
	Tells float64
	// Front are the samples than which none is as accurate and as cheap and better
	// in one of it, by means. Costs that some sample does not know are left out.
	Front []bool
	// Paper compares M = 2 with M = 1, and M = 2 with L = 1, of each the sample
	// with the highest mean; without those that there are no samples of.
	Paper []Comparison
	// Curve is nil for fewer than three M.
	Curve *Parabola
}

// Analyze sums up the samples of one study. It is a pure function: what it draws are
// the same numbers each time.
func Analyze(samples []Sample) Findings {
	a := Findings{Samples: samples, Best: -1, Summaries: make([]Summary, len(samples)),
		Against:  make([]Comparison, len(samples)),
		Verdicts: make([]Verdict, len(samples)), Front: make([]bool, len(samples)), Spread: math.NaN(),
		Degrees: math.NaN(), Tells: math.NaN()}
	if !slices.ContainsFunc(samples, func(sample Sample) bool { return len(sample.Scores) > 0 }) {
		return a
	}
	a.Model = FitAdditive(samples)
	a.Spreads = a.Model.Spreads()
	a.Pooled = a.Spreads.P > SpreadAlpha
	a.Spread, a.Degrees = a.pool()
	for i := range samples {
		a.Summaries[i] = a.mean(i)
	}
	a.Best = a.best()
	for i := range samples {
		a.Against[i] = a.Compare(a.Best, i)
	}
	Correct(a.Against)
	a.Tells = Telling * (100 - a.Summaries[a.Best].Mean)
	for i, c := range a.Against {
		a.Verdicts[i] = a.verdict(c)
	}
	a.Front = a.front()
	two := a.highest(func(p space.Pair) bool { return p.M == 2 })
	for _, other := range []int{a.highest(func(p space.Pair) bool { return p.M == 1 }),
		a.highest(func(p space.Pair) bool { return p.L == 1 })} {
		if two >= 0 && other >= 0 {
			a.Paper = append(a.Paper, a.Compare(two, other))
		}
	}
	Correct(a.Paper)
	a.Curve = fitCurve(samples)
	return a
}

// pool returns the standard deviation of a sample's scores over seeds, and its
// degrees of freedom by Satterthwaite ("An approximate distribution of estimates
// of variance components", Biometrics Bulletin 2, 1946): its square is that of
// the seeds and that of the noise, of which the first is known less well, as all
// samples share the seeds.
func (a Findings) pool() (spread, degrees float64) {
	within, all := 0., 0.
	for _, sample := range a.Samples {
		if v := percents(sample.Scores); len(v) > 1 {
			within += stat.Variance(v, nil) * float64(len(v)-1)
			all += float64(len(v) - 1)
		}
	}
	if all == 0 || isNoise(math.Sqrt(within), 100) {
		return math.NaN(), math.NaN()
	}
	noise := float64(a.Model.Degrees)
	parts := 0.
	if noise > 0 {
		parts += a.Model.Squares * a.Model.Squares / noise
	}
	if seeds := within - a.Model.Squares; all > noise {
		parts += seeds * seeds / (all - noise)
	}
	return math.Sqrt(within / all), within * within / parts
}

func (a Findings) mean(i int) Summary {
	v := percents(a.Samples[i].Scores)
	m := Summarize(v)
	if m.N < 2 {
		return m
	}
	m.Low, m.High = math.NaN(), math.NaN()
	spread, degrees := m.Std, float64(len(v)-1)
	if a.Pooled {
		spread, degrees = a.Spread, a.Degrees
	}
	if !isNoise(spread, 100) {
		m.Low, m.High = boundedInterval(m.Mean, spread/math.Sqrt(float64(len(v))), degrees, a.Samples[i].Pictures)
	}
	return m
}

// reliable reports whether the scores of a sample can be told from luck: one seed
// has no spread, and where most trials diverged the rest are a choice of good ones.
func (a Findings) reliable(i int) bool {
	return a.Summaries[i].N > 1 && a.Samples[i].Diverged < a.Summaries[i].N
}

// verdict is that of a comparison with the best.
func (a Findings) verdict(c Comparison) Verdict {
	switch {
	case a.Summaries[c.B].N == 0:
		return NoScore
	case c.B == a.Best:
		return TheBest
	case c.Difference > 0 && c.Holm <= Alpha:
		return Separated // trials that diverged would make it worse still
	case a.reliable(c.A) && a.reliable(c.B) && c.Detectable <= a.Tells:
		return NotSeparated
	}
	return TooLittle
}

func percents(scores []Score) []float64 {
	var v []float64
	for _, s := range scores {
		v = append(v, s.Percent)
	}
	return v
}

// Compare tests sample i against sample j with the spread of all samples if that may be
// pooled, else over the seeds that both have, because what a seed adds to both
// falls out of the difference; without two of them by Welch. A sample of one seed
// is not tested: nobody knows whether it has the spread of the others.
func (a Findings) Compare(i, j int) Comparison {
	nan := math.NaN()
	c := Comparison{A: i, B: j, Half: nan, P: nan, Degrees: nan, Holm: nan, Detectable: nan}
	if i == j {
		return c
	}
	c.Difference = a.ahead(i, j)
	d := a.differences(i, j)
	c.Common = len(d)
	x, y := percents(a.Samples[i].Scores), percents(a.Samples[j].Scores)
	if a.modelled(i, j) {
		if len(x) > 1 && len(y) > 1 {
			_, se, _ := a.Model.Compare(i, j)
			c.Test, c.Degrees = AdditiveTest, float64(a.Model.Degrees)
			c.Half, c.P = quantileT(c.Degrees)*se, twoSided(c.Difference/se, c.Degrees)
		}
		return c
	}
	switch {
	case len(d) > 1:
		c.Test, c.Degrees = PairedTest, float64(len(d)-1)
		_, c.Half, c.P = PairedT(d)
	case len(x) > 1 && len(y) > 1:
		c.Test = WelchTest
		c.Difference, c.Half, c.P, c.Degrees = Welch(x, y)
	}
	if math.IsNaN(c.P) {
		c.Test, c.Degrees = Untested, nan
	}
	return c
}

// modelled reports whether the additive model compares two samples.
func (a Findings) modelled(i, j int) bool { return a.Pooled && a.Model.table.connected(i, j) }

// ahead is by how much sample i is ahead of sample j, by the model that compares them,
// over common seeds if that is not the additive one.
func (a Findings) ahead(i, j int) float64 {
	if a.modelled(i, j) {
		return a.Model.Effects[i] - a.Model.Effects[j]
	}
	if d := a.differences(i, j); len(d) > 0 {
		return stat.Mean(d, nil)
	}
	return a.Summaries[i].Mean - a.Summaries[j].Mean
}

// differences are those of sample i to sample j, of the seeds that both have.
func (a Findings) differences(i, j int) (d []float64) {
	x, y := a.Samples[i].Scores, a.Samples[j].Scores
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

// Correct corrects the comparisons that are made together, for their number.
func Correct(list []Comparison) {
	var p []float64
	tests := 0.
	for _, c := range list {
		if p = append(p, c.P); !math.IsNaN(c.P) {
			tests++
		}
	}
	errors := map[float64]float64{} // detectable ones, by degrees of freedom
	for i, v := range Holm(p) {
		c := &list[i]
		if c.Holm = v; math.IsNaN(v) {
			continue
		}
		if _, known := errors[c.Degrees]; !known {
			errors[c.Degrees] = Detectable(c.Degrees, Alpha/tests, Power)
		}
		c.Detectable = errors[c.Degrees] * c.Half / quantileT(c.Degrees)
	}
}

// best compares by the model or over common seeds: a race drops samples after few
// seeds, whose means may be high because those seeds were good for all.
func (a Findings) best() int {
	candidates := a.those(a.reliable)
	if len(candidates) == 0 {
		candidates = a.those(func(i int) bool { return a.Summaries[i].N > 0 })
	}
	best, most := -1, math.Inf(-1)
	for _, i := range candidates {
		least := math.MaxFloat64 // alone it is the best
		for _, j := range candidates {
			if least <= most {
				break
			}
			if j != i {
				least = min(least, a.ahead(i, j))
			}
		}
		if least > most {
			best, most = i, least
		}
	}
	return best
}

// those are the samples that something holds for.
func (a Findings) those(holds func(sample int) bool) (list []int) {
	for i := range a.Samples {
		if holds(i) {
			list = append(list, i)
		}
	}
	return list
}

// highest is the sample of those pairs with the highest mean, −1 if none has one.
func (a Findings) highest(of func(space.Pair) bool) int {
	found := -1
	for i, sample := range a.Samples {
		if sample.Pair != (space.Pair{}) && a.Summaries[i].N > 0 && of(sample.Pair) &&
			(found < 0 || a.Summaries[i].Mean > a.Summaries[found].Mean) {
			found = i
		}
	}
	return found
}

// Known are the costs that every sample with a score knows.
func (a Findings) Known() (params, multiplyAdds, seconds bool) {
	params, multiplyAdds, seconds = true, true, true
	for i, sample := range a.Samples {
		if a.Summaries[i].N > 0 {
			params = params && sample.Costs.Params > 0
			multiplyAdds = multiplyAdds && sample.Costs.MultiplyAdds > 0
			seconds = seconds && sample.Costs.Seconds > 0
		}
	}
	return params, multiplyAdds, seconds
}

// front marks the samples that no other dominates.
func (a Findings) front() []bool {
	params, multiplyAdds, seconds := a.Known()
	values := make([][]float64, len(a.Samples)) // smaller is better in each; nil without a score
	for i, sample := range a.Samples {
		if a.Summaries[i].N == 0 {
			continue
		}
		values[i] = []float64{-a.Summaries[i].Mean}
		for _, cost := range []struct {
			known bool
			value float64
		}{{params, sample.Costs.Params}, {multiplyAdds, sample.Costs.MultiplyAdds}, {seconds, sample.Costs.Seconds}} {
			if cost.known {
				values[i] = append(values[i], cost.value)
			}
		}
	}
	return Front(values)
}

// Front marks the members of the Pareto front: those that no other dominates, by being at least as small in every
// value and smaller in one. A member without values is not on the front.
func Front(values [][]float64) []bool {
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
		front[i] = ours != nil && !slices.ContainsFunc(values,
			func(v []float64) bool { return v != nil && dominates(v, ours) })
	}
	return front
}

const bootstraps = 4000

// fitCurve fits a concave parabola to all scores over log2 M by least squares,
// and finds the interval of its peak by the bootstrap. Seeds are drawn as blocks,
// each with its scores of all samples, because those share the seed's share of luck.
// The percentiles are those of the expanded percentile interval, which is
// Student's where the plain one, too narrow for few seeds, is the normal
// distribution's (Hesterberg, "What teachers should know about the bootstrap",
// The American Statistician 69, 2015).
func fitCurve(samples []Sample) *Parabola {
	var seeds []int
	for _, sample := range samples {
		for _, s := range sample.Scores {
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
	c := parabola(samples, once)
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
		if c := parabola(samples, times); c != nil {
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
func parabola(samples []Sample, times map[int]float64) *Parabola {
	var xs, ys, weights []float64 // of each sample: log2 M, mean, number of scores
	for _, sample := range samples {
		sum, n := 0., 0.
		for _, s := range sample.Scores {
			sum, n = sum+times[s.Seed]*s.Percent, n+times[s.Seed]
		}
		if n > 0 && sample.Pair.M > 0 {
			xs, ys, weights = append(xs, math.Log2(float64(sample.Pair.M))), append(ys, sum/n), append(weights, n)
		}
	}
	distinct := slices.Clone(xs)
	slices.Sort(distinct)
	if distinct = slices.Compact(distinct); len(distinct) < 3 {
		return nil
	}
	first, last := distinct[0], distinct[len(distinct)-1]
	var c Parabola
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
