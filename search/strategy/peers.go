package strategy

import (
	"cmp"
	"fmt"
	"math"
	"slices"

	"gonum.org/v1/gonum/stat/distuv"

	"igcsearch/search"
)

// The names of rules by which public tools decide which configurations get more seeds. They have the
// defaults of these tools, but were written anew. They are for replays, to compare strategies with:
// New does not return them, so no study is trained by them.
const (
	// PeerWilcoxon is the rule of Optuna's WilcoxonPruner: one network after the other, each from
	// one seed after the other, until a one-sided signed-rank test against the best network so far
	// has p < 0.1.
	PeerWilcoxon = "wilcoxon-pruner"
	// PeerIrace is one race of irace (López-Ibáñez et al., "The irace package", Operations Research
	// Perspectives 3, 2016): Friedman's test after five seeds and after each further one.
	PeerIrace = "irace"
	// PeerSMAC is the rule of SMAC3's Intensifier (Lindauer et al., "SMAC3", Journal of Machine
	// Learning Research 23, 2022): a challenger is rejected as soon as its mean is not above that
	// of the incumbent over the same seeds.
	PeerSMAC = "smac3"
)

// Peers lists the names that Peer knows.
var Peers = []string{PeerWilcoxon, PeerIrace, PeerSMAC}

// Peer returns the rule of a public tool, or nil if there is none of this name. The networks come
// in the given order, which Shuffle makes random.
func Peer(name string) search.Strategy {
	return map[string]search.Strategy{PeerWilcoxon: wilcoxonPruner{}, PeerIrace: irace{}, PeerSMAC: smac{}}[name]
}

// ledger reads the recorded trials for a rule that runs from its beginning again.
type ledger struct {
	study  search.Study
	trials []search.TrialState
	all    []network
	split  string
	next   []search.Step // the trials that the rule needs to go on
	waits  bool          // for these, or for trials that run
}

func newLedger(s search.Study, trials []search.TrialState) *ledger {
	return &ledger{study: s, trials: trials, all: networks(trials), split: s.DecidingSplit()}
}

// results returns the accuracies of a network's first n seeds, NaN for a failed trial. ok is false
// if they are not all there; then they are part of next.
func (l *ledger) results(network, n int) (accuracies []float64, ok bool) {
	a := l.all[network]
	if _, ok := a.mean(l.trials, l.split, n, l.study.Epochs); !ok {
		l.next, l.waits = append(l.next, a.train(l.trials, n, l.study.Epochs)...), true
		return nil, false
	}
	return a.accuracies(l.trials, l.split, n, l.study.Epochs), true
}

// decision says what a rule needs, or which answer it ends with.
func (l *ledger) decision() search.Decision {
	if l.waits {
		return search.Decision{Next: l.next}
	}
	if best := FindAnswer(l.study, l.trials); best.Trials > 0 {
		return search.Decision{Reason: fmt.Sprintf("the rule ends with %s, which has %d of %d seeds",
			best.System.Label(), best.Trials, len(l.study.Seeds))}
	}
	return search.Decision{Reason: "no network was trained to the end"}
}

type wilcoxonPruner struct{}

func (wilcoxonPruner) Decide(s search.Study, trials []search.TrialState) search.Decision {
	l := newLedger(s, trials)
	var best []float64 // the accuracies of the best network that was not pruned
	for i := range l.all {
		var own []float64
		pruned := false
		for n := 1; n <= len(s.Seeds) && !pruned; n++ {
			var ok bool
			if own, ok = l.results(i, n); !ok {
				return l.decision()
			}
			pruned = mean(own) < mean(best) && signedRankP(differences(best, own)) < quickLevel
		}
		if !pruned && mean(own) > mean(best) {
			best = own
		}
	}
	return l.decision()
}

type smac struct{}

func (smac) Decide(s search.Study, trials []search.TrialState) search.Decision {
	l := newLedger(s, trials)
	incumbent, seeds := 0, 1 // the incumbent has so many seeds, and one more before each challenger
	for i := range l.all {
		if i > 0 {
			seeds = min(seeds+1, len(s.Seeds))
		}
		best, ok := l.results(incumbent, seeds)
		if !ok {
			return l.decision()
		}
		wins := i > 0
		for n := 1; n <= seeds && wins; n++ {
			own, ok := l.results(i, n)
			if !ok {
				return l.decision()
			}
			wins = mean(own) > mean(best[:min(n, len(best))])
		}
		if wins {
			incumbent = i
		}
	}
	return l.decision()
}

type irace struct{}

// These are defaults of irace: firstTest, and 1 − confidence.
const iraceFirst, iraceLevel = 5, 0.05

func (irace) Decide(s search.Study, trials []search.TrialState) search.Decision {
	l := newLedger(s, trials)
	var alive []int
	for i := range l.all {
		alive = append(alive, i)
	}
	for n := min(iraceFirst, len(s.Seeds)); n <= len(s.Seeds) && (len(alive) > 1 || n <= iraceFirst); n++ {
		var complete []int         // a network without some result is not compared, and stays
		var accuracies [][]float64 // of the complete networks
		for _, i := range alive {
			if v, ok := l.results(i, n); ok && len(v) == n && !slices.ContainsFunc(v, math.IsNaN) {
				complete, accuracies = append(complete, i), append(accuracies, v)
			}
		}
		if l.waits {
			break
		}
		if n < iraceFirst || len(complete) < 2 {
			continue
		}
		worse := friedman(accuracies)
		if len(complete) == 2 {
			worse = twoLeft(accuracies[0], accuracies[1])
		}
		alive = slices.DeleteFunc(alive, func(i int) bool {
			at := slices.Index(complete, i)
			return at >= 0 && worse[at]
		})
	}
	slices.SortStableFunc(l.next, func(a, b search.Step) int {
		return cmp.Compare(trials[a.Trial].Seed, trials[b.Trial].Seed)
	})
	return l.decision()
}

// friedman reports which of k networks are worse than the one of the best rank sum, by Friedman's
// test with Conover's comparisons (Conover, Practical Nonparametric Statistics, 1999, pages
// 369–371). Each network has the accuracies of the same n seeds.
func friedman(accuracies [][]float64) []bool {
	k, n := len(accuracies), len(accuracies[0])
	sums, squares := make([]float64, k), 0. // of the ranks: within a seed, k is the best
	row := make([]float64, k)
	for seed := range n {
		for i := range row {
			row[i] = accuracies[i][seed]
		}
		for i, doubled := range doubledRanks(row) {
			rank := float64(doubled) / 2
			sums[i] += rank
			squares += rank * rank
		}
	}
	between, products := 0., 0.
	for _, sum := range sums {
		between += math.Pow(sum-float64(n*(k+1))/2, 2)
		products += sum * sum
	}
	worse := make([]bool, k)
	within := squares - float64(n*k*(k+1)*(k+1))/4 // 0 if all accuracies of each seed are equal
	if within == 0 || (distuv.ChiSquared{K: float64(k - 1)}).Survival(float64(k-1)*between/within) >= iraceLevel {
		return worse
	}
	degrees := float64((n - 1) * (k - 1))
	most := distuv.StudentsT{Mu: 0, Sigma: 1, Nu: degrees}.Quantile(1-iraceLevel/2) *
		math.Sqrt(2*(float64(n)*squares-products)/degrees)
	for i, sum := range sums {
		worse[i] = slices.Max(sums)-sum > most
	}
	return worse
}

// twoLeft reports which of two networks is worse. It is the one that is never better, or else by a
// two-sided signed-rank test, without the seeds at which both are equal.
func twoLeft(a, b []float64) []bool {
	var up, down []float64 // the differences that are not 0, and the same with the other sign
	for _, x := range differences(a, b) {
		if x != 0 {
			up, down = append(up, x), append(down, -x)
		}
	}
	switch {
	case len(up) == 0 || slices.Min(up) > 0 || 2*signedRankP(up) < iraceLevel:
		return []bool{false, true}
	case slices.Min(down) > 0 || 2*signedRankP(down) < iraceLevel:
		return []bool{true, false}
	}
	return []bool{false, false}
}
