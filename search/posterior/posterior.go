// Package posterior says what scores show of the true mean accuracies of networks, by a Bayesian
// model of these means.
//
// The score of network i from seed s is, in points,
//
//	y_is = θ_i + u_s + e_is,  e_is ~ N(0, σ²),  u_s ~ N(0, U·σ²)
//
// where θ_i is the true mean of the network and u_s the effect that a seed has on all networks. The
// models differ in what they expect of θ before any score is seen:
//
//   - NewCurve is for the pairs of one budget. Half of its weight has a concave curve over log2 M,
//     the other half any smooth or rough curve.
//   - NewField is for a few networks of any kind. It expects networks that are alike to have a
//     similar mean.
//   - NewSurface is for spaces of hundreds of networks, most of which are never trained.
//
// Every model averages over a small grid of its hyper-parameters, each weighted by its marginal
// likelihood. Nothing is optimised, and all random numbers are fixed, so a Posterior is a function
// of the scores. docs/search.md has simulations that say how far its probabilities can be trusted.
package posterior

import (
	"cmp"
	"math"
	"slices"

	"gonum.org/v1/gonum/stat"
)

// Result is the score of one trial. Network is an index into the networks of the model, and Score
// an accuracy in percent.
type Result struct {
	Network, Seed int
	Score         float64
}

// Model is what is expected of the true means before any score is seen.
type Model interface {
	// Given returns what is expected after the results were seen. It returns nil if there are none.
	Given(results []Result) *Posterior
}

// Posterior is the distribution of the true means, given the scores.
type Posterior struct {
	// Draws are joint draws of the true means of all networks, in percent. All have the same
	// probability.
	Draws [][]float64
	// Sigma is the mean of σ, in points.
	Sigma float64
	// Concave is the weight of the concave curves, with deviations of single networks below 0.3 σ, in
	// the model. It is no probability that the true curve is concave: other curves of the model often
	// fit one with a kink better. It is NaN if the model has no concave curves.
	Concave float64
}

// HardlyConcave is the weight of the concave curves below which they hardly fit.
const HardlyConcave = 0.2

// Mean returns the expected mean of each network, in percent.
func (p *Posterior) Mean() []float64 {
	mean := make([]float64, len(p.Draws[0]))
	for _, draw := range p.Draws {
		for i, v := range draw {
			mean[i] += v / float64(len(p.Draws))
		}
	}
	return mean
}

// Best returns for each network the probability that it is the best of those that may be: that no
// other of them has a larger mean. may is nil if all may.
func (p *Posterior) Best(may []bool) []float64 {
	best := make([]float64, len(p.Draws[0]))
	for _, draw := range p.Draws {
		best[top(draw, may)] += 1 / float64(len(p.Draws))
	}
	return best
}

// top returns the index of the largest mean among the networks that may be the best.
func top(draw []float64, may []bool) int {
	at := -1
	for i, v := range draw {
		if (may == nil || may[i]) && (at < 0 || v > draw[at]) {
			at = i
		}
	}
	return at
}

// Within returns for each network the probability that its mean is at most margin points below that
// of the best of those that may be.
func (p *Posterior) Within(margin float64, may []bool) []float64 {
	within := make([]float64, len(p.Draws[0]))
	for _, draw := range p.Draws {
		limit := draw[top(draw, may)] - margin
		for i, v := range draw {
			if v >= limit {
				within[i] += 1 / float64(len(p.Draws))
			}
		}
	}
	return within
}

// Regret returns how far, in points, the mean of a network is below that of the best of those that
// may be: the expected value, and the value that it exceeds with the probability tail.
func (p *Posterior) Regret(network int, may []bool, tail float64) (expected, bound float64) {
	regret := make([]float64, len(p.Draws))
	for x, draw := range p.Draws {
		regret[x] = max(0, draw[top(draw, may)]-draw[network])
	}
	slices.Sort(regret)
	return stat.Mean(regret, nil), stat.Quantile(1-tail, stat.Empirical, regret, nil)
}

// Improvement returns for each network the expected value of max(0, θ_j − θ_leader), in points.
func (p *Posterior) Improvement(leader int) []float64 {
	gain := make([]float64, len(p.Draws[0]))
	for _, draw := range p.Draws {
		for j, v := range draw {
			gain[j] += max(0, v-draw[leader]) / float64(len(p.Draws))
		}
	}
	return gain
}

// Set returns the smallest set of networks that holds the best with a probability of at least
// confidence. The most probable network comes first.
func Set(best []float64, confidence float64) []int {
	order := make([]int, len(best))
	for i := range order {
		order[i] = i
	}
	slices.SortStableFunc(order, func(a, b int) int { return cmp.Compare(best[b], best[a]) })
	sum := 0.
	for n, i := range order {
		if sum += best[i]; sum >= confidence-1e-9 {
			return order[:n+1]
		}
	}
	return order
}

// Band is an interval for the mean of one network, in percent.
type Band struct{ Low, High float64 }

// Bands returns two intervals for the mean of each network: pointwise, which holds a mean with the
// probability confidence, and simultaneous, which holds all means at once with it.
func (p *Posterior) Bands(confidence float64) (pointwise, simultaneous []Band) {
	k := len(p.Draws[0])
	pointwise, simultaneous = make([]Band, k), make([]Band, k)
	farthest := make([]float64, len(p.Draws)) // of all networks, in standard deviations
	mean, std := make([]float64, k), make([]float64, k)
	for i := range k {
		v := make([]float64, len(p.Draws))
		for x, draw := range p.Draws {
			v[x] = draw[i]
		}
		mean[i], std[i] = stat.MeanStdDev(v, nil)
		for x := range v {
			farthest[x] = max(farthest[x], math.Abs(v[x]-mean[i])/max(std[i], 1e-12))
		}
		slices.Sort(v)
		tail := (1 - confidence) / 2
		pointwise[i] = Band{stat.Quantile(tail, stat.LinInterp, v, nil), stat.Quantile(1-tail, stat.LinInterp, v, nil)}
	}
	slices.Sort(farthest)
	z := stat.Quantile(confidence, stat.LinInterp, farthest, nil)
	for i := range k {
		simultaneous[i] = Band{mean[i] - z*std[i], mean[i] + z*std[i]}
	}
	return pointwise, simultaneous
}
