// Package analysis says what the accuracies of a study show: which network is the best, which
// networks are significantly worse, and how probable it is of each that it is the best.
//
// A Sample holds the scores of one network, one score for each seed. From the samples of a study,
// Analyze makes Findings by tests, and NewPosterior a Posterior by a Bayesian model. Accuracies are
// in percent and differences in percentage points. Intervals have a confidence of 95 %.
// docs/analysis.md compares the methods on simulated studies.
package analysis

import (
	"math"
	"slices"

	"gonum.org/v1/gonum/stat"

	"igcsearch/space"
)

// Alpha is the level of significance at which a sample counts as worse than the best.
const Alpha = 1 - confidence

const (
	// SpreadAlpha is the level of the test that the samples have the same spread. Only if this test
	// does not reject it, one common spread is used for all. The level is high because it does more
	// harm to overlook unequal spreads than to leave equal ones unused; docs/analysis.md has the
	// simulations.
	SpreadAlpha = 0.2
	// Power is the probability with which a test finds a difference of Comparison.Detectable.
	Power = 0.8
	// Telling is a share of the best sample's errors. A comparison that can find only larger
	// differences is TooLittle. On the recorded real study this is more than the difference between
	// the best and the worst of nine pairs.
	Telling = 0.1
)

// Score is the accuracy of one trial.
type Score struct {
	Seed    int
	Percent float64
}

// Costs are the costs of a network. 0 means that a cost is not known.
type Costs struct {
	Params       float64 // parameters of the network
	MultiplyAdds float64 // multiply–adds in the forward pass of one picture
}

// Sample holds what a study has measured of one of its networks.
type Sample struct {
	// Pair is zero if the study does not compare networks by their M.
	Pair     space.Pair
	Scores   []Score // by rising seed, each seed once
	Diverged int     // the number of trials that have no score because they diverged
	Pictures int     // the number of pictures that gave each score; 0 means unknown
	Costs    Costs
}

// MostDiverged reports whether at least as many trials of the sample diverged as have a score. Those
// that have one are the trials that went well, so they say little about its mean.
func (s Sample) MostDiverged() bool { return s.Diverged >= len(s.Scores) }

// Summary describes the N scores of a sample, in percent. Std is the standard deviation with n − 1
// in the denominator, and Low and High are the ends of the 95 % interval of the mean. A value that
// cannot be computed from so few scores is NaN.
type Summary struct {
	N                    int
	Mean, Std, Low, High float64
}

// Summarize describes values that need not be scores. Low and High are the interval of TInterval.
func Summarize(values []float64) Summary {
	mean, half := TInterval(values)
	s := Summary{N: len(values), Mean: mean, Std: math.NaN(), Low: mean - half, High: mean + half}
	if len(values) > 1 {
		s.Std = stat.StdDev(values, nil)
	}
	return s
}

// Test is the way in which two samples were compared.
type Test string

const (
	Untested     Test = ""
	AdditiveTest Test = "additive" // t test with the residual of the additive model
	PairedTest   Test = "paired"   // t test over common seeds
	WelchTest    Test = "welch"    // t test of independent samples: fewer than two common seeds
)

// Comparison says how much more accurate sample A is than sample B.
type Comparison struct {
	A, B int // the indices of the samples
	Test Test
	// Difference is in percentage points. Half is the half width of its 95 % interval, P the
	// two-sided p of the test, and Degrees its degrees of freedom. These three are NaN without a
	// test.
	Difference, Half, P, Degrees float64
	// Holm is P corrected for the number of comparisons that were made together.
	Holm float64
	// Detectable is the smallest difference, in points, that the test finds with the probability
	// Power, if its P is the smallest of the comparisons made together.
	Detectable float64
	// Common is the number of seeds that both samples have.
	Common int
}

// Verdict is the result of comparing a sample with the best one.
type Verdict string

const (
	NoScore      Verdict = ""
	TheBest      Verdict = "best"
	Better       Verdict = "better"             // the sample is significantly better than the chosen one
	Separated    Verdict = "separated"          // the sample is significantly worse than the best
	NotSeparated Verdict = "not separated"      // no difference was found; it may still exist
	TooLittle    Verdict = "too little to tell" // the scores are too few to find a difference that matters
)

// Findings is the result of Analyze. Summaries, Against, Verdicts and Front have one element for
// each sample.
type Findings struct {
	Samples   []Sample
	Summaries []Summary
	// Model is the additive model of all scores. Pooled says that its residual is used as the
	// spread of all samples, because the test Spreads does not reject equal spreads.
	Model   Additive
	Spreads Spreads
	Pooled  bool
	// Spread is the standard deviation of a sample's scores over seeds, pooled over all samples,
	// and Degrees its degrees of freedom. It includes the effects of the seeds that all samples
	// share. Both are NaN if no sample has two scores.
	Spread, Degrees float64
	// Best is the index of the sample with the largest lead over every other, or −1 if there is no
	// score. A sample of one seed, or most of whose trials diverged, is the best only if there is
	// no other sample. Of AnalyzeChosen it is the sample that was chosen.
	Best int
	// Against compares the best with each sample. Its Holm is corrected for their number.
	Against  []Comparison
	Verdicts []Verdict
	// Tells is the largest Detectable, in points, with which a comparison can be NotSeparated.
	Tells float64
	// Front marks the samples on the Pareto front of mean accuracy and multiply–adds: no other
	// sample is at least as good in both, and better in one of them. It is false for all if the
	// multiply–adds of a sample are not known.
	Front []bool
	// Paper compares M = 2 with M = 1, and M = 2 with L = 1. If several samples have this M or L,
	// it takes the one with the highest mean. It leaves out comparisons without such samples.
	Paper []Comparison
}

// Analyze compares the samples of one study. Its results depend only on the samples: the random
// numbers that it uses are always the same.
func Analyze(samples []Sample) Findings { return analyze(samples, -1) }

// AnalyzeChosen is Analyze with a best sample that was chosen by other scores than these, so that
// some sample may be better.
func AnalyzeChosen(samples []Sample, best int) Findings { return analyze(samples, best) }

func analyze(samples []Sample, chosen int) Findings {
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
		a.Summaries[i] = a.summary(i)
	}
	if a.Best = chosen; chosen < 0 {
		a.Best = a.best()
	}
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
	return a
}

// pool returns the standard deviation of a sample's scores over seeds, pooled over all samples, and
// its degrees of freedom. The variance is the sum of that of the seeds and that of the noise. All
// samples share the seeds, so the variance of the seeds is known less well. Satterthwaite's formula
// combines the degrees of freedom of the two ("An approximate distribution of estimates of variance
// components", Biometrics Bulletin 2, 1946).
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

// summary returns the summary of sample i.
func (a Findings) summary(i int) Summary {
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

// reliable reports whether the scores of a sample can be judged by tests. A single score has no
// spread.
func (a Findings) reliable(i int) bool { return a.Summaries[i].N > 1 && !a.Samples[i].MostDiverged() }

// verdict returns the verdict of a comparison of the best sample with another.
func (a Findings) verdict(c Comparison) Verdict {
	switch {
	case a.Summaries[c.B].N == 0:
		return NoScore
	case c.B == a.Best:
		return TheBest
	case c.Difference > 0 && c.Holm <= Alpha:
		return Separated // the trials that diverged would only increase the difference
	case c.Difference < 0 && c.Holm <= Alpha:
		return Better
	case a.reliable(c.A) && a.reliable(c.B) && c.Detectable <= a.Tells:
		return NotSeparated
	}
	return TooLittle
}

// percents returns the scores without their seeds.
func percents(scores []Score) []float64 {
	var v []float64
	for _, s := range scores {
		v = append(v, s.Percent)
	}
	return v
}

// Compare tests sample i against sample j. If the spreads may be pooled, it uses the additive
// model. Otherwise it tests the differences at common seeds, because the effect of a seed cancels
// in them. With fewer than two common seeds it uses Welch's test. It does not test a sample of one
// seed, whose spread is not known.
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

// modelled reports whether Compare uses the additive model for two samples.
func (a Findings) modelled(i, j int) bool { return a.Pooled && a.Model.table.connected(i, j) }

// ahead returns the lead of sample i over sample j, in points, as Compare measures it: by the
// additive model, over common seeds, or by the means.
func (a Findings) ahead(i, j int) float64 {
	if a.modelled(i, j) {
		return a.Model.Effects[i] - a.Model.Effects[j]
	}
	if d := a.differences(i, j); len(d) > 0 {
		return stat.Mean(d, nil)
	}
	return a.Summaries[i].Mean - a.Summaries[j].Mean
}

// differences returns the scores of sample i minus those of sample j at common seeds.
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

// Correct sets Holm and Detectable of comparisons that are made together.
func Correct(list []Comparison) {
	var p []float64
	tests := 0.
	for _, c := range list {
		if p = append(p, c.P); !math.IsNaN(c.P) {
			tests++
		}
	}
	errors := map[float64]float64{} // the detectable number of standard errors, by degrees of freedom
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

// best returns the index of the sample with the largest lead over every other. It uses ahead and
// not the means, because a race drops samples after few seeds, and these seeds may have been good
// for all samples.
func (a Findings) best() int {
	candidates := a.those(a.reliable)
	if len(candidates) == 0 {
		candidates = a.those(func(i int) bool { return a.Summaries[i].N > 0 })
	}
	best, most := -1, math.Inf(-1)
	for _, i := range candidates {
		least := math.MaxFloat64 // a single candidate is the best
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

// those lists the samples for which holds is true.
func (a Findings) those(holds func(sample int) bool) (list []int) {
	for i := range a.Samples {
		if holds(i) {
			list = append(list, i)
		}
	}
	return list
}

// highest returns the sample with the highest mean among those whose pair satisfies of, or −1 if
// there is none.
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

// KnowsMultiplyAdds reports whether the multiply–adds are known of every sample with a score.
func (a Findings) KnowsMultiplyAdds() bool {
	for i, sample := range a.Samples {
		if a.Summaries[i].N > 0 && sample.Costs.MultiplyAdds == 0 {
			return false
		}
	}
	return true
}

// front marks the samples on the Pareto front.
func (a Findings) front() []bool {
	values := make([][]float64, len(a.Samples)) // a smaller value is better; nil without a score
	for i, sample := range a.Samples {
		if a.Summaries[i].N > 0 && a.KnowsMultiplyAdds() {
			values[i] = []float64{-a.Summaries[i].Mean, sample.Costs.MultiplyAdds}
		}
	}
	return Front(values)
}

// Front marks the members of the Pareto front: those that no other dominates, by being at least as
// small in every value and smaller in one. A member without values is not on the front.
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
