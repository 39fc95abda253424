package analysis

import (
	"math"
	"slices"

	"igcsearch/search/posterior"
)

// Posterior is what a model of package posterior says of the true mean of each sample. Best, Mean,
// Pointwise and Simultaneous have one element for each sample, which is NaN if it has no score.
type Posterior struct {
	// Curve says that the model expects a concave or smooth curve over log2 M. Without it the model
	// expects nothing of how the means are related.
	Curve bool
	// Best is the probability that no other sample has a larger mean, in [0, 1]. It is NaN also for
	// a sample that Sample.MostDiverged: it cannot be the best.
	Best []float64
	// Set is the smallest set of samples that has 95 % of Best, the most probable first.
	Set []int
	// Mean is the expected mean, in percent.
	Mean []float64
	// Pointwise are intervals that hold one mean each with a probability of 95 %. Simultaneous are
	// intervals that hold all means at once with 95 %.
	Pointwise, Simultaneous []posterior.Band
	// Concave is the probability that the curve is concave: posterior.Posterior.Concave. It is NaN
	// without Curve.
	Concave float64
}

// NewPosterior returns nil if the scores say too little: fewer than two samples may be the best, or
// no sample has two scores, so that nothing is known of their spread. sameSize says that the samples
// are pairs of one budget. Then the model is a curve, if they have three different M.
func NewPosterior(samples []Sample, sameSize bool) *Posterior {
	var results []posterior.Result
	var scored []int   // the samples of the model
	var may []bool     // which of them may be the best
	var logs []float64 // their log2 M
	candidates, repeated := 0, false
	for i, sample := range samples {
		if len(sample.Scores) == 0 {
			continue
		}
		for _, s := range sample.Scores {
			results = append(results, posterior.Result{Network: len(scored), Seed: s.Seed, Score: s.Percent})
		}
		scored = append(scored, i)
		logs = append(logs, math.Log2(float64(sample.Pair.M)))
		if may = append(may, !sample.MostDiverged()); !sample.MostDiverged() {
			candidates++
		}
		repeated = repeated || len(sample.Scores) > 1
	}
	if candidates < 2 || !repeated {
		return nil
	}
	p := emptyPosterior(len(samples))
	distinct := slices.Clone(logs)
	slices.Sort(distinct)
	model := posterior.NewFree(len(scored), posterior.Fine)
	if p.Curve = sameSize && len(slices.Compact(distinct)) > 2; p.Curve {
		model = posterior.NewCurve(logs, posterior.Fine)
	}
	given := model.Given(results)
	p.Concave = given.Concave
	best, mean := given.Best(may), given.Mean()
	pointwise, simultaneous := given.Bands(confidence)
	for k, i := range scored {
		if p.Mean[i] = percentage(mean[k]); may[k] {
			p.Best[i] = best[k]
		}
		p.Pointwise[i] = posterior.Band{Low: percentage(pointwise[k].Low), High: percentage(pointwise[k].High)}
		p.Simultaneous[i] = posterior.Band{Low: percentage(simultaneous[k].Low), High: percentage(simultaneous[k].High)}
	}
	for _, k := range posterior.Set(best, confidence) {
		p.Set = append(p.Set, scored[k])
	}
	return p
}

// percentage moves an accuracy that the model expects outside of 0 to 100 % to the nearest end.
func percentage(v float64) float64 { return min(100, max(0, v)) }

// emptyPosterior returns a Posterior of so many samples without a score.
func emptyPosterior(samples int) *Posterior {
	nan := math.NaN()
	return &Posterior{
		Best: slices.Repeat([]float64{nan}, samples), Mean: slices.Repeat([]float64{nan}, samples),
		Pointwise:    slices.Repeat([]posterior.Band{{Low: nan, High: nan}}, samples),
		Simultaneous: slices.Repeat([]posterior.Band{{Low: nan, High: nan}}, samples),
	}
}
