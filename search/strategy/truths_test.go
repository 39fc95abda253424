package strategy_test

import (
	"math"
	"math/rand/v2"

	"gonum.org/v1/gonum/floats"
	"gonum.org/v1/gonum/mat"
	"gonum.org/v1/gonum/stat"

	"igcsearch/search"
	"igcsearch/space"
)

// These are the kinds of a truth.
const (
	concave = "concave" // the accuracy is concave in log2 M
	broken  = "broken"  // the truth breaks an assumption of the model "peak"
	worst   = "worst"   // the truth is made to be the worst for a claim
)

// A truth says from which distribution the accuracies of a simulated study are drawn. The networks
// are the nine pairs of quickstart, and all numbers are percents of accuracy.
type truth struct {
	name, kind string
	means      func(r *rand.Rand) []float64
	spread     []float64 // the standard deviation of a trial of each network, without the effect of its seed
	seed       float64   // the standard deviation of the effect of a seed on all networks
	collapse   float64   // the share of the trials that lose 3 to 12 points
	diverge    float64   // the probability with which a trial of the best network diverges
}

var (
	truthM = []float64{1, 2, 3, 6, 9, 10, 13, 16, 23}
	truthX = func() []float64 {
		x := make([]float64, len(truthM))
		for i, m := range truthM {
			x[i] = math.Log2(m)
		}
		return x
	}()
	lowX, highX = truthX[0], truthX[len(truthX)-1]
)

// overM returns the values of a curve at the networks.
func overM(f func(x float64) float64) []float64 {
	y := make([]float64, len(truthX))
	for i, x := range truthX {
		y[i] = f(x)
	}
	return y
}

// hill returns a curve with its top at peak, from which it falls by left to the first network and by
// right to the last one, like the q-th power of the distance.
func hill(peak, top, left, right, q float64) []float64 {
	return overM(func(x float64) float64 {
		if x < peak {
			return top - left*math.Pow((peak-x)/(peak-lowX), q)
		}
		return top - right*math.Pow((x-peak)/max(highX-peak, 1e-9), q)
	})
}

// like returns the curve of the paper's Figure 3 (a): its top lies between M = 2 and M = 3.
func like(*rand.Rand) []float64 {
	return overM(func(x float64) float64 {
		if x < 1.15 {
			return 63.9 - 0.63*(x-1.15)*(x-1.15)
		}
		return 63.9 - 0.60*(x-1.15)*(x-1.15)
	})
}

// anyConcave returns a random concave curve: it falls by 1 to 10 points, with an exponent of 1 to 3.
// Its peak is anywhere, and two in seven curves only rise or only fall.
func anyConcave(r *rand.Rand) []float64 {
	v := -0.2 + 1.4*r.Float64()
	q, drop := 1+2*r.Float64(), math.Exp(r.Float64()*math.Log(10))
	if v < 0 || v > 1 {
		return overM(func(x float64) float64 {
			z := (x - lowX) / (highX - lowX)
			if v > 1 {
				z = 1 - z
			}
			return 60 - drop*math.Pow(z, q)
		})
	}
	skew := math.Exp(-1 + 2*r.Float64())
	return hill(lowX+v*(highX-lowX), 60, drop*min(1, skew)*max(0.05, v), drop*min(1, 1/skew)*max(0.05, 1-v), q)
}

// anyRough returns a draw of a Gaussian process of a short length.
func anyRough(r *rand.Rand) []float64 {
	const length, amplitude = 0.18, 1.5
	n := len(truthX)
	c := mat.NewSymDense(n, nil)
	for i := range n {
		for j := range i + 1 {
			d := (truthX[i] - truthX[j]) / (highX - lowX)
			c.SetSym(i, j, math.Exp(-d*d/(2*length*length)))
		}
		c.SetSym(i, i, 1+1e-9)
	}
	var chol mat.Cholesky
	if !chol.Factorize(c) {
		panic("the covariance is not positive definite")
	}
	var lower mat.TriDense
	chol.LTo(&lower)
	normal := make([]float64, n)
	for i := range normal {
		normal[i] = r.NormFloat64()
	}
	var y mat.VecDense
	y.MulVec(&lower, mat.NewVecDense(n, normal))
	return overM(func(x float64) float64 {
		for i := range truthX {
			if truthX[i] == x {
				return 60 + amplitude*y.AtVec(i)
			}
		}
		panic("no network is there")
	})
}

// always returns the same means for every study.
func always(means []float64) func(*rand.Rand) []float64 {
	return func(*rand.Rand) []float64 { return append([]float64(nil), means...) }
}

// oneAbove returns equal means but for one network, which is 0.31 points better.
func oneAbove(r *rand.Rand) []float64 {
	means := constant(len(truthM), 60)
	means[r.IntN(len(means))] += 0.31
	return means
}

// aKink is the name of a truth whose best network is 1.5 points better than every other.
const aKink = "a kink, sd 0.6"

// truths returns the truths of the simulation. The spreads of a trial are like those of real
// studies.
func truths() []truth {
	jagged := func(r *rand.Rand) []float64 {
		means := like(r)
		for i := range means {
			means[i] += 0.6 * r.NormFloat64()
		}
		return means
	}
	spike := like(nil)
	spike[4] += 3.5
	equal := func(sd float64) []float64 { return constant(len(truthM), sd) }
	rising := make([]float64, len(truthM))
	floats.Span(rising, 0.3, 1.2)
	falling := make([]float64, len(truthM))
	floats.Span(falling, 1.2, 0.3)
	return []truth{
		{"like the paper, sd 0.3", concave, like, equal(0.3), 0.2, 0, 0},
		{"like the paper, sd 0.6", concave, like, equal(0.6), 0.2, 0, 0},
		{"like the paper, sd 1.2", concave, like, equal(1.2), 0.2, 0, 0},
		{"like real pictures, sd 0.8", concave,
			always([]float64{52.9, 53.4, 53.6, 53.4, 52.8, 52.6, 52.0, 51.2, 49.9}), equal(0.8), 0, 0, 0},
		{"flat, 0.3 points, sd 0.6", concave, always(hill(2, 60, 0.15, 0.3, 2)), equal(0.6), 0.2, 0, 0},
		{aKink, concave, always(hill(1, 64, 2, 9, 1)), equal(0.6), 0.2, 0, 0},
		{"it only falls, sd 0.6", concave, always(overM(func(x float64) float64 { return 60 - 0.9*x })), equal(0.6), 0.2, 0, 0},
		{"any concave curve, sd 0.6", concave, anyConcave, equal(0.6), 0.2, 0, 0},
		{"like the paper, sd 0.3 to 1.2", concave, like, rising, 0.2, 0, 0},
		{"like the paper, sd 1.2 to 0.3", concave, like, falling, 0.2, 0, 0},
		{"like the paper, a seed has sd 1.0", concave, like, equal(0.5), 1, 0, 0},
		{"jagged, 0.6 for each network", broken, jagged, equal(0.6), 0.2, 0, 0},
		{"a spike of 1.0 at M = 9", broken, always(spike), equal(0.6), 0.2, 0, 0},
		{"two peaks", broken, always([]float64{62, 63, 62.4, 61.2, 61.6, 62.6, 63.6, 62.8, 60}), equal(0.6), 0.2, 0, 0},
		{"convex: both ends are good", broken,
			always([]float64{63.4, 62.2, 61.6, 61, 61.2, 61.4, 62, 62.8, 64}), equal(0.6), 0.2, 0, 0},
		{"any rough curve, sd 0.6", broken, anyRough, equal(0.6), 0.2, 0, 0},
		{"5 % of the trials collapse", broken, like, equal(0.5), 0.2, 0.05, 0},
		{"neighbours 0.32 apart, sd 0.6", worst,
			always([]float64{63.2, 63.9, 63.58, 62.9, 62.2, 62, 61, 60, 57.5}), equal(0.6), 0.2, 0, 0},
		{"eight equal, one 0.31 above, sd 0.6", worst, oneAbove, equal(0.6), 0.2, 0, 0},
		{"eight equal, one 0.31 above, sd 0.3", worst, oneAbove, equal(0.3), 0.2, 0, 0},
		{"all equal, sd 0.6", worst, always(equal(60)), equal(0.6), 0.2, 0, 0},
	}
}

// At an epoch of simEpochs a trial lacks this many points of its last accuracy, and has a noise of
// its own of this standard deviation. The learning rate drops after 6, 9 and 10 epochs. These are
// guesses, of the size that short trainings have.
const simEpochs = 12

var (
	missing    = []float64{35, 25, 20, 17, 15.5, 14.5, 5, 3.5, 3, 1, 0.5, 0}
	earlyNoise = []float64{3, 2.5, 2.2, 2, 2, 2, 0.6, 0.5, 0.5, 0.2, 0.1, 0}
)

// crossing says how much the points that are missing at an early epoch differ from network to
// network, as the standard deviation of their logarithm.
const crossing = 0.06

// mostSeeds is the largest number of seeds of a simulated study.
const mostSeeds = 10

// draw returns the true means, in percent, and the record of a study of the pairs with the seeds of
// s. Every trial is done. The first seeds of a longer study have the same results.
func (t truth) draw(s search.Study, pairs []space.Pair, r *rand.Rand) ([]float64, []search.TrialState) {
	means := t.means(r)
	late := mat.NewDense(len(pairs), mostSeeds, nil)
	shared := make([]float64, mostSeeds)
	for seed := range shared {
		shared[seed] = t.seed * r.NormFloat64()
	}
	late.Apply(func(i, seed int, _ float64) float64 {
		y := means[i] + shared[seed] + t.spread[i]*r.NormFloat64()
		if lost := 3 + 9*r.Float64(); r.Float64() < t.collapse {
			y -= lost
		}
		return y
	}, late)
	floats.AddConst(-t.collapse*7.5, means)

	trials := t.record(s, pairs, late, r)
	for i := range trials {
		x := &trials[i]
		if x.System == space.PairSystem(pairs[floats.MaxIdx(means)]) && r.Float64() < t.diverge {
			x.Status, x.Epoch, x.History, x.Last = search.Diverged, 1, x.History[:1], x.History[0]
		}
	}
	return means, trials
}

// record returns the trials for accuracies of the last epoch, in percent.
func (t truth) record(s search.Study, pairs []space.Pair, late *mat.Dense, r *rand.Rand) (trials []search.TrialState) {
	const total = 1_000_000 // pictures
	// Half of what differs from network to network at early epochs follows M.
	slope := math.Sqrt(0.5) * (2*float64(r.IntN(2)) - 1)
	mean, std := stat.PopMeanStdDev(truthX, nil)
	for i, p := range pairs {
		slow := math.Exp(crossing * (slope*(truthX[i]-mean)/std + math.Sqrt(0.5)*r.NormFloat64()))
		for seed := range mostSeeds {
			var history []search.Epoch
			for e := range simEpochs {
				a := late.At(i, seed) - missing[e]*slow + earlyNoise[e]*r.NormFloat64()
				history = append(history, search.Epoch{Number: e + 1, ValidationTotal: total,
					ValidationCorrect: int(math.Round(total / 100 * min(100, max(0, a))))})
			}
			if seed < len(s.Seeds) {
				trials = append(trials, search.TrialState{History: history,
					Trial: search.Trial{Key: search.Key{System: space.PairSystem(p), Seed: seed}, Status: search.Done,
						Epoch: simEpochs, Epochs: simEpochs, Last: history[simEpochs-1], Params: p.Params(s.Kernel)}})
			}
		}
	}
	return trials
}
