package strategy_test

import (
	"cmp"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"testing"

	"gonum.org/v1/gonum/floats"

	"igcsearch/search"
	"igcsearch/search/strategy"
	"igcsearch/space"
)

// contender is a strategy of the simulation.
type contender struct {
	name     string
	change   func(*search.Study)
	peer     string // the name of strategy.Peer, or "" for the strategy of the study
	shuffled bool   // whether the order of the networks matters, so that each study has a random one
	seeds    int    // how many seeds it uses; 0 means all
	studies  int    // of each truth in a long simulation; 0 means 2,000
}

func contenders() []contender {
	peak := func(structure bool, atOnce int) func(*search.Study) {
		return func(s *search.Study) {
			s.Strategy, s.Peak.Structure, s.Peak.AtOnce = search.StrategyPeak, structure, atOnce
		}
	}
	race := func(test string) func(*search.Study) {
		return func(s *search.Study) { s.Strategy, s.Race.Test = search.StrategyRace, test }
	}
	grid := func(s *search.Study) { s.Strategy = search.StrategyGrid }
	return []contender{
		{name: "peak", change: peak(true, 2)},
		{name: "peak, 4 at once", change: peak(true, 4), studies: 200},
		{name: "peak, no structure", change: peak(false, 2), studies: 200},
		{name: "peak, no structure, 4 at once", change: peak(false, 4), studies: 200},
		{name: "grid", change: grid},
		{name: "grid of 3 seeds", change: grid, seeds: 3},
		{name: "halving", change: func(s *search.Study) { s.Strategy = search.StrategyHalving }, shuffled: true},
		{name: "race", change: race(""), studies: 300},
		{name: "race, paired", change: race(search.RacePaired), studies: 500},
		{name: "race, signed-rank", change: race(search.RaceSignedRank), studies: 500},
		{name: "rule of WilcoxonPruner", change: grid, peer: strategy.PeerWilcoxon, shuffled: true, studies: 500},
		{name: "rule of irace", change: grid, peer: strategy.PeerIrace, shuffled: true, studies: 100},
		{name: "rule of SMAC3", change: grid, peer: strategy.PeerSMAC, shuffled: true, studies: 500},
	}
}

// outcome says how one simulated study ended.
type outcome struct {
	cost           float64 // the epochs that were trained, as a share of those of grid
	regret         float64 // how far the answer's true mean is below the best, in points
	claimed, wrong bool    // whether the answer is a claim, and whether this is wrong
	bounded        bool    // peak: whether the regret is at most the bound
	rounds         []judged
	// out says whether the best network is out of the search of "peak" because its trials diverged,
	// and wrongLeft whether a claim is wrong if it is of the networks that are not out.
	out, wrongLeft bool
}

// judged is a belief of "peak" after a round, beside the truth.
type judged struct {
	within float64
	true   bool
}

// simulate runs one study of a truth. decides keeps its model from study to study.
func (c contender) simulate(t *testing.T, decides search.Strategy, s search.Study, x truth, r *rand.Rand) (o outcome) {
	t.Helper()
	pairs := s.PairList()
	means, trials := x.draw(s, pairs, r)
	full := float64(len(trials) * s.Epochs)
	if c.shuffled {
		trials = strategy.Shuffle(trials, r)
	}
	if c.seeds > 0 {
		s.Seeds = s.Seeds[:c.seeds]
	}
	workers := len(trials)
	if c.shuffled {
		workers = 4
	}
	end, err := strategy.Replay(decides, s, trials, strategy.ReplayOptions{Workers: workers})
	if err != nil {
		t.Fatal(err)
	}
	regret := func(system space.System) float64 {
		return floats.Max(means) - means[slices.Index(pairs, system.Pair())]
	}
	o.cost, o.regret = float64(end.Epochs)/full, regret(end.System)
	switch s.Strategy {
	case search.StrategyPeak:
		beliefs := strategy.Beliefs(decides)
		for _, b := range beliefs {
			o.rounds = append(o.rounds, judged{b.Within, regret(b.Systems[b.Leader]) <= s.Peak.Margin})
		}
		b := beliefs[len(beliefs)-1]
		o.claimed, o.bounded = b.Sure, o.regret <= b.Bound+1e-9
		o.wrong = o.claimed && o.regret > s.Peak.Margin
		o.out, o.wrongLeft = diverged(s, b, means, o.claimed)
	case search.StrategyRace:
		rounds := strategy.Rounds(s, end.State)
		left := rounds[len(rounds)-1].Left
		o.claimed = len(left) == 1
		for i, p := range pairs {
			best := means[i] == floats.Max(means)
			o.wrong = o.wrong || best && !slices.Contains(left, space.PairSystem(p))
		}
	}
	return o
}

// diverged returns outcome.out and outcome.wrongLeft for the last belief of "peak".
func diverged(s search.Study, b strategy.Belief, means []float64, claimed bool) (out, wrongLeft bool) {
	best := math.Inf(-1)
	for i, m := range means {
		if b.Diverged[i] <= b.Seeds[i] {
			best = max(best, m)
		}
	}
	at := floats.MaxIdx(means)
	return b.Diverged[at] > b.Seeds[at], claimed && best-means[b.Leader] > s.Peak.Margin
}

// tally adds up the outcomes of the studies of one truth.
type tally struct {
	n                                               float64
	cost, best, regret, square, far, claimed, wrong float64
	bounded                                         float64
	by                                              float64 // the points by which the wrong claims are wrong
}

func (t *tally) add(o outcome) {
	one := func(yes bool) float64 {
		if yes {
			return 1
		}
		return 0
	}
	t.n++
	t.cost += o.cost
	t.regret += o.regret
	t.square += o.regret * o.regret
	t.best += one(o.regret < 1e-9)
	t.far += one(o.regret > 0.3)
	t.claimed += one(o.claimed)
	t.wrong += one(o.wrong)
	t.by += one(o.wrong) * (o.regret - 0.3)
	t.bounded += one(o.bounded)
}

// row returns a row of a table: the means over several truths, and standard errors of the studies.
func row(name string, s search.Study, list []tally) string {
	k := float64(len(list))
	over := func(of func(t tally) float64) (mean, highest float64) {
		for _, t := range list {
			mean += of(t) / t.n / k
			highest = max(highest, of(t)/t.n)
		}
		return mean, highest
	}
	cost, _ := over(func(t tally) float64 { return t.cost })
	best, _ := over(func(t tally) float64 { return t.best })
	regret, _ := over(func(t tally) float64 { return t.regret })
	far, _ := over(func(t tally) float64 { return t.far })
	claimed, _ := over(func(t tally) float64 { return t.claimed })
	wrong, highest := over(func(t tally) float64 { return t.wrong })
	bounded, _ := over(func(t tally) float64 { return t.bounded })
	var ofRegret, ofWrong float64 // variances of the means
	for _, t := range list {
		m, p := t.regret/t.n, t.wrong/t.n
		ofRegret += (t.square/t.n - m*m) / t.n / (k * k)
		ofWrong += p * (1 - p) / t.n / (k * k)
	}
	text := fmt.Sprintf("| %s | %.1f | %.1f | %.3f ± %.3f | %.1f |", name, 100*cost, 100*best, regret,
		math.Sqrt(ofRegret), 100*far)
	if s.Strategy == search.StrategyPeak || s.Strategy == search.StrategyRace {
		text += fmt.Sprintf(" %.1f | %.2f ± %.2f | %.1f |", 100*claimed, 100*wrong, 100*math.Sqrt(ofWrong), 100*highest)
	} else {
		text += " – | – | – |"
	}
	if s.Strategy == search.StrategyPeak {
		by, _ := over(func(t tally) float64 { return t.by })
		return text + fmt.Sprintf(" %.3f | %.1f |", by/max(wrong, 1e-9), 100*bounded)
	}
	return text + " – | – |"
}

// check checks what is known of the studies of one truth before they are simulated.
func (c contender) check(t *testing.T, s search.Study, x truth, sum tally) {
	t.Helper()
	if sum.cost > sum.n*(1+1e-9) {
		t.Errorf("%s: it trained %.3f of what grid trains", x.name, sum.cost/sum.n)
	}
	if x.name == aKink && !c.shuffled && sum.best < 0.995*sum.n {
		// Three seeds are enough for 1.5 points.
		t.Errorf("%s: it found the best in %g of %g studies", x.name, sum.best, sum.n)
	}
	if s.Strategy != search.StrategyPeak || x.kind != concave {
		return
	}
	// Three standard errors are allowed. Where the spreads differ, the model is wrong too.
	if limit := 0.05 + 3*math.Sqrt(0.05*0.95/sum.n); sum.wrong > limit*sum.n {
		t.Errorf("%s: %g of %g claims are wrong, more than %.3f", x.name, sum.wrong, sum.n, limit)
	}
	if limit := 0.87 - 3*math.Sqrt(0.05*0.95/sum.n); sum.bounded < limit*sum.n {
		t.Errorf("%s: the bound holds in %g of %g studies, fewer than %.3f", x.name, sum.bounded, sum.n, limit)
	}
}

// study returns the study of the simulation, and a strategy for it.
func (c contender) study(t *testing.T, seeds int) (search.Study, search.Strategy) {
	t.Helper()
	s := budgetStudy()
	s.Epochs, s.Validation, s.Seeds = simEpochs, 100, search.FirstSeeds(seeds)
	c.change(&s)
	s = normal(t, s)
	if c.peer != "" {
		return s, strategy.Peer(c.peer)
	}
	decides, err := strategy.New(s)
	if err != nil {
		t.Fatal(err)
	}
	return s, decides
}

// TestSearches simulates studies whose true means are known, and says how each strategy ends. All
// strategies get the same studies. With IGC_SIMULATE=long there are 2,000 (or
// contender.studies) of each truth, and -v prints
// the tables of docs/search.md.
func TestSearches(t *testing.T) {
	if testing.Short() {
		t.Skip("a simulation runs in one goroutine: the race detector, for which -short is, finds nothing in it")
	}
	studies, lengths, few := 4, []int{5}, []string{aKink, "like the paper, sd 0.3", "a spike of 1.0 at M = 9"}
	long := os.Getenv("IGC_SIMULATE") == "long"
	if long {
		lengths, few = []int{5, 10}, nil
	}
	for _, c := range contenders() {
		if long {
			studies = cmp.Or(c.studies, 2000)
		}
		for _, seeds := range lengths {
			t.Run(fmt.Sprintf("%d seeds/%s", seeds, c.name), func(t *testing.T) {
				s, decides := c.study(t, seeds)
				kinds, beliefs := map[string][]tally{}, newCalibration()
				for at, x := range truths() {
					if few != nil && !slices.Contains(few, x.name) {
						continue
					}
					var sum tally
					for i := range studies {
						o := c.simulate(t, decides, s, x, rand.New(rand.NewPCG(uint64(at), uint64(i))))
						sum.add(o)
						beliefs.add(x.kind, o.rounds)
					}
					kinds[x.kind] = append(kinds[x.kind], sum)
					c.check(t, s, x, sum)
					t.Log(row(x.name, s, []tally{sum}))
				}
				for _, kind := range []string{concave, broken, worst} {
					if list := kinds[kind]; len(list) > 0 {
						t.Logf("%s: %s", strings.ToUpper(kind), row(c.name, s, list))
					}
				}
				if len(beliefs.Ends) > 0 {
					t.Log("calibration:\n" + strings.Join(beliefs.table(), "\n"))
				}
				if long && *update && c.name == "peak" {
					beliefs.save(t, seeds)
				}
			})
		}
	}
}

// TestSearchesDiverge simulates studies in which trials of the best network diverge. IGC_SIMULATE=long
// runs 100 of each truth, and -v prints a table of docs/search.md.
func TestSearchesDiverge(t *testing.T) {
	if testing.Short() {
		t.Skip("a simulation runs in one goroutine: the race detector, for which -short is, finds nothing in it")
	}
	studies, few := 2, 3
	if os.Getenv("IGC_SIMULATE") == "long" {
		studies, few = 100, len(truths())
	}
	c := contenders()[0]
	for _, share := range []float64{0.1, 0.3, 1} {
		t.Run(fmt.Sprintf("%.0f %%", 100*share), func(t *testing.T) {
			s, decides := c.study(t, mostSeeds)
			for _, kind := range []string{concave, broken, worst} {
				var sum tally
				var out, wrongLeft float64
				for at, x := range truths()[:few] {
					if x.kind != kind {
						continue
					}
					x.diverge = share
					for i := range studies {
						o := c.simulate(t, decides, s, x, rand.New(rand.NewPCG(uint64(at), uint64(i))))
						sum.add(o)
						if o.out {
							out++
						} else if share == 1 {
							t.Errorf("%s: the best network always diverges and is not out", x.name)
						}
						if o.wrongLeft {
							wrongLeft++
						}
					}
				}
				if sum.n > 0 {
					t.Logf("| %s | %.0f | %.1f | %.3f | %.1f | %.1f | %.2f | %.2f |", kind, 100*share, 100*sum.cost/sum.n,
						sum.regret/sum.n, 100*out/sum.n, 100*sum.claimed/sum.n, 100*sum.wrong/sum.n, 100*wrongLeft/sum.n)
				}
			}
		})
	}
}
