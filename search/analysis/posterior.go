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
	// Concave is the weight of the concave curves in the model, posterior.Posterior.Concave. A small
	// weight does not show that the true curve is not concave: one with a kink, or one that falls by
	// many times the spread, is often fitted better by the other curves of the model. It is NaN
	// without Curve.
	Concave float64
}

// MostNetworks is the largest number of samples with a score that NewPosterior has a model for. The
// time that the model takes grows with the third power of their number.
const MostNetworks = 200

// NewPosterior returns nil if the scores say too little: fewer than two samples may be the best, or
// no sample has two scores, so that nothing is known of their spread. It also returns nil if more
// than MostNetworks have a score. sameSize says that the samples are pairs of one budget. Then the
// model is a curve, if they have three different M.
func NewPosterior(samples []Sample, sameSize bool) *Posterior {
	x := newScoredSamples(samples)
	if !x.enough {
		return nil
	}
	if distinct := slices.Compact(slices.Sorted(slices.Values(x.logs))); sameSize && len(distinct) > 2 {
		return x.posterior(posterior.NewCurve(x.logs, posterior.Fine), true)
	}
	return x.posterior(posterior.NewFree(len(x.logs), posterior.Fine), false)
}

// scoredSamples are the samples that have a score, as a model is given them: as its networks.
type scoredSamples struct {
	samples int // also those without a score
	results []posterior.Result
	scored  []int     // the sample of each network
	logs    []float64 // log2 M of each network
	may     []bool    // which networks may be the best
	enough  bool      // for NewPosterior
}

func newScoredSamples(samples []Sample) scoredSamples {
	x := scoredSamples{samples: len(samples)}
	candidates, repeated := 0, false
	for i, sample := range samples {
		if len(sample.Scores) == 0 {
			continue
		}
		for _, s := range sample.Scores {
			x.results = append(x.results, posterior.Result{Network: len(x.scored), Seed: s.Seed, Score: s.Percent})
		}
		x.scored = append(x.scored, i)
		x.logs = append(x.logs, math.Log2(float64(sample.Pair.M)))
		x.may = append(x.may, !sample.MostDiverged())
		if !sample.MostDiverged() {
			candidates++
		}
		repeated = repeated || len(sample.Scores) > 1
	}
	x.enough = candidates > 1 && repeated && len(x.scored) <= MostNetworks
	return x
}

// posterior returns what a model says of the samples.
func (x scoredSamples) posterior(model posterior.Model, curve bool) *Posterior {
	p := emptyPosterior(x.samples)
	given := model.Given(x.results)
	p.Curve, p.Concave = curve, given.Concave
	best, mean := given.Best(x.may), given.Mean()
	pointwise, simultaneous := given.Bands(confidence)
	for k, i := range x.scored {
		if p.Mean[i] = percentage(mean[k]); x.may[k] {
			p.Best[i] = best[k]
		}
		p.Pointwise[i], p.Simultaneous[i] = percentages(pointwise[k]), percentages(simultaneous[k])
	}
	for _, k := range posterior.Set(best, confidence) {
		p.Set = append(p.Set, x.scored[k])
	}
	return p
}

func percentages(b posterior.Band) posterior.Band {
	return posterior.Band{Low: percentage(b.Low), High: percentage(b.High)}
}

// percentage moves an accuracy that the model expects outside of 0 to 100 % to the nearest end.
func percentage(v float64) float64 { return min(100, max(0, v)) }

// HardlyConcave reports whether the concave curves of the model hardly fit.
func (p *Posterior) HardlyConcave() bool { return p.Concave < posterior.HardlyConcave }

// emptyPosterior returns a Posterior of so many samples without a score.
func emptyPosterior(samples int) *Posterior {
	nan := math.NaN()
	return &Posterior{
		Best: slices.Repeat([]float64{nan}, samples), Mean: slices.Repeat([]float64{nan}, samples),
		Pointwise:    slices.Repeat([]posterior.Band{{Low: nan, High: nan}}, samples),
		Simultaneous: slices.Repeat([]posterior.Band{{Low: nan, High: nan}}, samples),
	}
}
