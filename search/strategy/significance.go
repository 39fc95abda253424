package strategy

import (
	"cmp"
	"maps"
	"math"
	"math/rand/v2"
	"slices"
	"sync"

	"gonum.org/v1/gonum/floats"
	"gonum.org/v1/gonum/stat"
	"gonum.org/v1/gonum/stat/distuv"

	"igcsearch/search"
	"igcsearch/search/analysis"
)

// look is what a race knows after a round.
type look struct {
	accuracies [][]float64 // of each network by seed, as fractions; NaN for a failed trial
	alive      []int       // the networks that remain
	began      int         // the number of networks that took part from the beginning
	seeds      int         // the number of seeds of the whole race
	pictures   int         // an accuracy is a fraction of so many pictures
}

// best returns the network of the highest mean.
func (l look) best() int {
	best := l.alive[0]
	for _, i := range l.alive {
		if mean(l.accuracies[i]) > mean(l.accuracies[best]) {
			best = i
		}
	}
	return best
}

// round returns the best network, those that are dropped, and the test that decided (Round.Test).
func (r race) round(l look) (best int, dropped map[int]bool, test string) {
	best = l.best()
	switch r.Test {
	case search.RaceSignedRank:
		return best, l.signedRank(best), r.Test
	case search.RacePaired:
		return best, r.paired(l, best, r.Alpha), r.Test
	}
	pairedShare := 0.2 // of alpha, since either test may err
	if l.began <= 2 {
		pairedShare = 0 // the pooled test of two networks is a paired one
	}
	dropped = r.paired(l, best, pairedShare*r.Alpha)
	more, equalSpreads := r.pooled(l, best, (1-pairedShare)*r.Alpha)
	maps.DeleteFunc(more, func(i int, _ bool) bool { return dropped[i] })
	if len(more) > 0 && !equalSpreads() {
		return best, dropped, search.RacePaired
	}
	maps.Copy(dropped, more)
	return best, dropped, search.RacePooled
}

// pooled returns the networks that a t test with one spread for all networks drops. The spread is
// the residual of the additive model (analysis.Additive) of all accuracies so far, also of networks
// that were dropped before. equalSpreads reports whether the spreads pass the check of package
// analysis; it is a function because the check takes milliseconds and is seldom needed.
//
// A network of more than two is not part of the model if some of its trials diverged, since a single
// 0 among its accuracies would make all spreads look different.
func (r race) pooled(l look, best int, alpha float64) (dropped map[int]bool, equalSpreads func() bool) {
	samples, pooled := make([]analysis.Sample, len(l.accuracies)), 0
	for i, a := range l.accuracies {
		some := slices.Contains(a, 0) && slices.ContainsFunc(a, func(v float64) bool { return v > 0 })
		if len(a) == 0 || some && l.began > 2 {
			continue
		}
		pooled++
		for seed, v := range a {
			if !math.IsNaN(v) {
				samples[i].Scores = append(samples[i].Scores, analysis.Score{Seed: seed, Percent: 100 * v})
			}
		}
	}
	dropped = map[int]bool{}
	if len(l.alive) == 1 || len(samples[best].Scores) == 0 {
		return dropped, nil
	}
	fit := analysis.FitAdditive(samples)
	if fit.Degrees == 0 {
		return dropped, nil
	}
	wide := fit
	wide.Squares = max(fit.Squares, float64(fit.Degrees)*math.Pow(100*rounding(l.pictures), 2))
	level := raceLevel(l.began, r.MinSeeds, l.seeds, alpha)
	t := distuv.StudentsT{Mu: 0, Sigma: 1, Nu: float64(fit.Degrees)}
	for _, i := range l.alive {
		if d, se, ok := wide.Compare(best, i); ok && i != best && t.Survival(d/se) <= level {
			dropped[i] = true
		}
	}
	// The spread of two networks is that of their differences, whatever their own spreads are.
	return dropped, func() bool { return pooled == 2 || fit.EqualSpreads() }
}

// raceLevel returns the level of a single pooled test of a race. If k networks are equally good, the
// pooled tests drop one of them, after any of the rounds, with the probability alpha or less. The
// level is a quantile of drawn races, as in group sequential tests with a constant level (Pocock,
// "Group sequential methods in the design and analysis of clinical trials", Biometrika 64, 1977). It
// also covers that the data choose the best of the k networks.
//
// The check of the spreads often overlooks that they differ, most of all after two and three seeds.
// So races are drawn twice, with equal spreads and with spreads that differ up to nine-fold, of
// which only those rounds count that pass the check. The level is the smaller of the two.
func raceLevel(k, first, seeds int, alpha float64) float64 {
	type race struct {
		k, first, seeds int
		alpha           float64
	}
	key := race{k, first, seeds, alpha}
	if level, known := raceLevels.Load(key); known {
		return level.(float64)
	}
	d := drawnRaces{first: first, seeds: seeds, spreads: slices.Repeat([]float64{1}, k)}
	lowest, shares := d.draw()
	level := quantile(lowest, alpha)
	if k > 2 { // the spread of two networks is not checked
		for _, of := range shares {
			d.limits = append(d.limits, quantile(of, 1-analysis.SpreadAlpha))
		}
		for i := range d.spreads {
			d.spreads[i] = math.Pow(9, float64(i)/float64(k-1))
		}
		lowest, _ = d.draw()
		level = min(level, quantile(lowest, alpha))
	}
	raceLevels.Store(key, level)
	return level
}

// raceLevels has the results of raceLevel.
var raceLevels sync.Map

// quantile sorts values and returns one that is at least as large as a share of them.
func quantile(values []float64, share float64) float64 {
	slices.Sort(values)
	return values[max(0, int(share*float64(len(values)+1))-1)]
}

// drawnRaces draws races of networks with the same mean.
type drawnRaces struct {
	first, seeds int
	spreads      []float64 // of each network
	limits       []float64 // by round: with a larger share of the largest variance it does not count
}

// draw returns the lowest p of the pooled tests of each race, and of each round the share of the
// largest variance in each race (analysis.Spreads).
func (d drawnRaces) draw() (lowest []float64, shares [][]float64) {
	const races = 9999
	k := len(d.spreads)
	lowest, shares = make([]float64, races), make([][]float64, d.seeds-d.first+1)
	random := rand.New(rand.NewPCG(7, 7)) // a fixed seed, so that every process has the same level
	means, steps, rests := make([]float64, k), make([]float64, k), make([]float64, k)
	for race := range lowest {
		lowest[race] = 1
		clear(means)
		clear(rests)
		for n := 1; n <= d.seeds; n++ {
			// The squared residuals of a complete table grow by those of the steps from the mean of
			// n − 1 seeds to the n-th (Helmert's transformation).
			for i := range means {
				steps[i] = d.spreads[i]*random.NormFloat64() - means[i]
				means[i] += steps[i] / float64(n)
			}
			common := stat.Mean(steps, nil)
			for i := range rests {
				rests[i] += (steps[i] - common) * (steps[i] - common) * float64(n-1) / float64(n)
			}
			if n < d.first {
				continue
			}
			sum, round := floats.Sum(rests), n-d.first
			share := slices.Max(rests) / sum
			shares[round] = append(shares[round], share)
			if d.limits == nil || share <= d.limits[round] {
				degrees := float64((k - 1) * (n - 1))
				t := (slices.Max(means) - slices.Min(means)) / math.Sqrt(2*sum/degrees/float64(n))
				lowest[race] = min(lowest[race], distuv.StudentsT{Mu: 0, Sigma: 1, Nu: degrees}.Survival(t))
			}
		}
	}
	return lowest, shares
}

// paired returns the networks that paired t tests over common seeds drop. The same data have chosen
// the best out of the k − 1 rivals of a network j, and the test is repeated in R rounds. So by
// Bonferroni
//
//	p_j = (k − 1) · R · P(T_{n−1} ≥ d̄·√n / s_d),  d = accuracy of the best − accuracy of j
//
// is a valid p for H_j over the whole race: P(p_j ≤ x in any round) ≤ x. Holm's procedure over the
// k hypotheses counts networks that were dropped before as rejected. It limits the probability that
// the race rejects any true H_j to alpha, for every dependence between networks, seeds and rounds
// (Holm, 1979). The t test is exact for normally distributed differences; the variances of the
// networks may differ.
func (r race) paired(l look, best int, alpha float64) map[int]bool {
	type comparison struct {
		network int
		p       float64
	}
	var tests []comparison
	rounds := l.seeds - r.MinSeeds + 1
	for _, i := range l.alive {
		if i != best {
			p := pairedP(differences(l.accuracies[best], l.accuracies[i]), l.pictures)
			tests = append(tests, comparison{i, p * float64(l.began-1) * float64(rounds)})
		}
	}
	slices.SortStableFunc(tests, func(a, b comparison) int { return cmp.Compare(a.p, b.p) })
	dropped := map[int]bool{}
	for k, t := range tests {
		if !(t.p <= alpha/float64(len(l.alive)-k)) { // Holm's limit, after k networks were dropped
			break
		}
		dropped[t.network] = true
	}
	return dropped
}

// pairedP returns the one-sided p of a paired t test for the claim that the mean of the differences
// is above 0. It returns 1 if there are fewer than two. An accuracy is a fraction of a number of
// pictures.
func pairedP(d []float64, pictures int) float64 {
	if len(d) < 2 {
		return 1
	}
	m, sd := stat.MeanStdDev(d, nil)
	if m <= 0 {
		return 1
	}
	sd = max(sd, math.Sqrt2*rounding(pictures))
	t := m * math.Sqrt(float64(len(d))) / sd
	return distuv.StudentsT{Mu: 0, Sigma: 1, Nu: float64(len(d) - 1)}.Survival(t)
}

// rounding returns the smallest spread of an accuracy that a test may use. Accuracies are counts of
// pictures, and rounding alone has a spread of √(1/12) pictures. A smaller spread is chance, and
// would make any difference significant.
func rounding(pictures int) float64 { return math.Sqrt(1.0/12) / float64(pictures) }

// quickLevel is that of the quick tests, as in Optuna's WilcoxonPruner.
const quickLevel = 0.1

// signedRank returns the networks that are worse than the best by a one-sided signed-rank test. p is
// not corrected for the number of networks and rounds.
func (l look) signedRank(best int) map[int]bool {
	dropped := map[int]bool{}
	for _, i := range l.alive {
		if i != best && signedRankP(differences(l.accuracies[best], l.accuracies[i])) < quickLevel {
			dropped[i] = true
		}
	}
	return dropped
}

// differences returns a − b of the seeds at which neither is NaN.
func differences(a, b []float64) (d []float64) {
	for i := range min(len(a), len(b)) {
		if x := a[i] - b[i]; !math.IsNaN(x) {
			d = append(d, x)
		}
	}
	return d
}

// signedRankP returns the one-sided p of Wilcoxon's signed-rank test for the claim that the
// differences are above 0 (Wilcoxon, "Individual comparisons by ranking methods", Biometrics
// Bulletin 1, 1945). It is exact, also with equal differences, whose ranks are averaged: the sign of
// each rank is as likely + as −. A difference of 0 keeps its rank, and half of it counts.
func signedRankP(d []float64) float64 {
	size := make([]float64, len(d))
	for i, x := range d {
		size[i] = math.Abs(x)
	}
	ranks := doubledRanks(size)
	sum, most := 0, 0 // of the doubled ranks
	for i, x := range d {
		switch {
		case x > 0:
			sum += ranks[i]
			most += ranks[i]
		case x < 0:
			most += ranks[i]
		}
	}
	// chance[w] is the probability that the positive ranks have the sum w. What zeros add is the
	// same on both sides of the comparison with sum, so it can be left out.
	chance := make([]float64, most+1)
	chance[0] = 1
	for i, x := range d {
		if x == 0 {
			continue
		}
		for w := most; w >= 0; w-- {
			chance[w] /= 2
			if w >= ranks[i] {
				chance[w] += chance[w-ranks[i]] / 2
			}
		}
	}
	p := 0.
	for _, c := range chance[sum:] {
		p += c
	}
	return p
}

// doubledRanks returns twice the rank of each value, from 1 for the smallest. Equal values share
// the mean of their ranks.
func doubledRanks(values []float64) []int {
	ranks := make([]int, len(values))
	for i, x := range values {
		ranks[i] = 1
		for _, y := range values {
			switch {
			case y < x:
				ranks[i] += 2
			case y == x:
				ranks[i]++
			}
		}
	}
	return ranks
}
