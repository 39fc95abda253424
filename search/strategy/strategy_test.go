package strategy_test

import (
	"math"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"testing"

	"igcsearch/search"
	"igcsearch/search/strategy"
	"igcsearch/space"
)

// record returns trials that are done. at returns the accuracy of network i with a seed at an
// epoch.
func record(s search.Study, pairs []space.Pair, at func(network, seed, epoch int) float64) []search.TrialState {
	const total = 10000
	var trials []search.TrialState
	for i, p := range pairs {
		for _, seed := range s.Seeds {
			t := search.TrialState{Trial: search.Trial{Key: search.Key{System: space.PairSystem(p), Seed: seed},
				Status: search.Done, Epochs: s.Epochs, Params: p.Params(9)}}
			for e := 1; e <= s.Epochs; e++ {
				// On the test split the networks have the opposite order.
				last := search.Epoch{Number: e, TestCorrect: total - i, TestTotal: total}
				correct := int(math.Round(total * at(i, seed, e)))
				last.TrainCorrect, last.TrainTotal = correct, total
				if s.Evaluates(e) {
					last.ValidationCorrect, last.ValidationTotal = correct, total
				}
				t.History, t.Last, t.Epoch = append(t.History, last), last, e
			}
			trials = append(trials, t)
		}
	}
	return trials
}

// line returns n pairs with rising M.
func line(n int) (pairs []space.Pair) {
	for i := range n {
		pairs = append(pairs, space.Pair{L: 100 - i, M: i + 1})
	}
	return pairs
}

// strategyStudy returns a study with a strategy, after change, which may be nil.
func strategyStudy(t *testing.T, name string, change func(*search.Study)) (search.Study, search.Strategy) {
	t.Helper()
	s := budgetStudy()
	s.Strategy, s.Validation, s.Seeds, s.Epochs = name, 100, search.FirstSeeds(3), 9
	s.Halving.MinEpochs = 1
	if change != nil {
		change(&s)
	}
	s = normal(t, s)
	decides, err := strategy.New(s)
	if err != nil {
		t.Fatal(err)
	}
	return s, decides
}

// counted checks the rules that every decision of any strategy must keep.
type counted struct {
	search.Strategy
	t *testing.T
}

func (c *counted) Decide(s search.Study, trials []search.TrialState) search.Decision {
	before := slices.Clone(trials)
	d := c.Strategy.Decide(s, trials)
	if !reflect.DeepEqual(before, trials) {
		c.t.Error("Decide changed what is recorded")
	}
	if again := c.Strategy.Decide(s, trials); !reflect.DeepEqual(d, again) {
		c.t.Errorf("two answers to one question: %v, %v", d, again)
	}
	seen := map[int]bool{}
	for _, step := range d.Next {
		if seen[step.Trial] {
			c.t.Errorf("trial %d is there twice: %v", step.Trial, d.Next)
		}
		seen[step.Trial] = true
	}
	running := slices.ContainsFunc(trials, func(t search.TrialState) bool { return t.Status == search.Running })
	if len(d.Next) == 0 && !running && d.Reason == "" {
		c.t.Error("it ends without a reason")
	}
	return d
}

func TestHalving(t *testing.T) {
	t.Parallel()
	rising := func(network, seed, epoch int) float64 { // the last network is the best at every epoch
		return 0.3 + 0.01*float64(network) + 0.02*float64(epoch) + 0.001*float64(seed)
	}
	t.Run("a third of the networks are promoted from each rung, with all seeds", func(t *testing.T) {
		s, decides := strategyStudy(t, search.StrategyHalving, nil)
		recorded := record(s, line(9), rising)
		// The rungs are 1, 3 and 9, and there are three seeds. All 9 networks train 1 epoch at
		// once, the best 3 train 2 more, and the best 1 trains 6 more.
		r, err := strategy.Replay(&counted{Strategy: decides, t: t}, s, recorded, strategy.ReplayOptions{Workers: 27})
		if err != nil {
			t.Fatal(err)
		}
		if r.Epochs != 3*(9+3*2+6) || r.Begun != 27 || r.System != recorded[26].System || r.Answer.Trials != 3 ||
			r.Regret != 0 {
			t.Errorf("%d epochs of %d trials, %v", r.Epochs, r.Begun, r.Answer)
		}
		want := "L92M9 is the best of 1 that were trained to the end, of 9 begun; too few networks (1) reached the end " +
			"to compare their order with that at epoch 1 (validation accuracy) and epoch 3 (validation accuracy)"
		if r.Reason != want {
			t.Errorf("it ends because %q, want %q", r.Reason, want)
		}
	})
	t.Run("training accuracy decides at a rung that is not evaluated", func(t *testing.T) {
		s, decides := strategyStudy(t, search.StrategyHalving, func(s *search.Study) {
			s.EvaluateEvery, s.Halving.MinEpochs = s.Epochs, 0
		})
		r, err := strategy.Replay(&counted{Strategy: decides, t: t}, s, record(s, line(9), rising),
			strategy.ReplayOptions{Workers: 27})
		if err != nil || r.Epochs != 3*(9*3+3*6) || r.Regret != 0 {
			t.Errorf("%d epochs, %v, regret %g, %v", r.Epochs, r.Answer, r.Regret, err)
		}
		want := "of the 3 couples of 3 networks, 3 had the order of the end at epoch 3 (training accuracy)"
		if !strings.HasSuffix(r.Reason, want) {
			t.Errorf("it ends because %q, want %q", r.Reason, want)
		}
	})
	t.Run("validation decides, not the test set", func(t *testing.T) {
		s, decides := strategyStudy(t, search.StrategyHalving, func(s *search.Study) { s.Split = search.SplitTest })
		if r, err := strategy.Replay(decides, s, record(s, line(9), rising), strategy.ReplayOptions{}); err != nil ||
			r.Regret != 0 {
			t.Errorf("%+v, %v", r.Answer, err)
		}
	})
	t.Run("a trial that was interrupted between two rungs is trained up to its rung", func(t *testing.T) {
		s, decides := strategyStudy(t, search.StrategyHalving, nil)
		recorded := record(s, line(1), rising)
		for i := range recorded {
			recorded[i].Status, recorded[i].Epoch, recorded[i].History = search.Pending, 2, recorded[i].History[:2]
		}
		recorded[1].Status = search.Running
		d := decides.Decide(s, recorded)
		if want := []search.Step{{Trial: 0, Until: 3}, {Trial: 2, Until: 3}}; !slices.Equal(d.Next, want) {
			t.Errorf("got %v, want %v", d.Next, want)
		}
	})
	t.Run("a trial that has just reached its rung does not promote its network", func(t *testing.T) {
		s, decides := strategyStudy(t, search.StrategyHalving, nil)
		recorded := record(s, line(3), rising)
		for i := range recorded {
			recorded[i].Status, recorded[i].Epoch, recorded[i].History = search.Pending, 3, recorded[i].History[:3]
		}
		recorded[0].Status, recorded[0].Until = search.Running, 3 // its worker has not given it back yet
		best := []search.Step{{Trial: 6, Until: 9}, {Trial: 7, Until: 9}, {Trial: 8, Until: 9}}
		if d := decides.Decide(s, recorded); !slices.Equal(d.Next, best) {
			t.Errorf("got %v, want only those of the best network, %v", d.Next, best)
		}
		recorded[0].Until = 9 // its network was promoted, when it was the best
		also := append([]search.Step{{Trial: 1, Until: 9}, {Trial: 2, Until: 9}}, best...)
		if d := decides.Decide(s, recorded); !slices.Equal(d.Next, also) {
			t.Errorf("got %v, want those of the promoted network too, %v", d.Next, also)
		}
	})
	t.Run("a trial whose process was killed after its last epoch is ended", func(t *testing.T) {
		for _, name := range search.Strategies {
			s, decides := strategyStudy(t, name, nil)
			recorded := record(s, line(2), rising)
			recorded[4].Status = search.Pending
			if d := decides.Decide(s, recorded); !slices.Equal(d.Next, []search.Step{{Trial: 4, Until: 9}}) {
				t.Errorf("%s: got %+v", name, d)
			}
		}
	})
	t.Run("networks that fail do not stop the others", func(t *testing.T) {
		s, decides := strategyStudy(t, search.StrategyHalving, nil)
		recorded := record(s, line(3), rising)
		for i := range recorded {
			recorded[i].Status, recorded[i].Epoch, recorded[i].History = search.Failed, 0, nil
		}
		if d := decides.Decide(s, recorded); len(d.Next) > 0 || d.Reason != "no network was trained to the end" {
			t.Errorf("got %+v", d)
		}
	})
}

// TestHalvingTrainsNothingTwice checks halving for several numbers of workers and networks, and
// several rungs.
func TestHalvingTrainsNothingTwice(t *testing.T) {
	t.Parallel()
	for _, n := range []int{1, 2, 5, 9, 30} {
		for _, workers := range []int{1, 2, 7, 1000} {
			for _, every := range []int{1, 2, 4} {
				s, decides := strategyStudy(t, search.StrategyHalving,
					func(s *search.Study) { s.EvaluateEvery, s.Halving.Reduction = every, 2 })
				rng := rand.New(rand.NewPCG(1, uint64(n)))
				recorded := record(s, line(n), func(int, int, int) float64 { return rng.Float64() })
				recorded[0].Status, recorded[0].Epoch, recorded[0].History = search.Diverged, 2,
					recorded[0].History[:2]
				r, err := strategy.Replay(&counted{Strategy: decides, t: t}, s, recorded,
					strategy.ReplayOptions{Workers: workers})
				if err != nil {
					t.Fatalf("%d networks, %d workers: %v", n, workers, err)
				}
				if r.Answer.Trials == 0 || r.Begun != n*len(s.Seeds) {
					t.Errorf("%d networks, %d workers, every %d: %d begun, %+v: %s", n, workers, every, r.Begun,
						r.Answer, r.Reason)
				}
			}
		}
	}
}

func TestRace(t *testing.T) {
	t.Parallel()
	// One of three networks is much worse.
	far := func(network, seed, _ int) float64 {
		return []float64{0.5, 0.501, 0.2}[network] + 0.003*float64((network+2*seed)%3)
	}
	t.Run("a much worse network is dropped, and the others use all seeds", func(t *testing.T) {
		s, decides := strategyStudy(t, search.StrategyRace, func(s *search.Study) { s.Seeds = search.FirstSeeds(6) })
		r, err := strategy.Replay(&counted{Strategy: decides, t: t}, s, record(s, line(3), far),
			strategy.ReplayOptions{Workers: 2})
		if err != nil {
			t.Fatal(err)
		}
		// After 2 seeds the residuals of the networks are as 2 : 1 : 1, and the share of the largest
		// variance, 4/6, is refused. The paired tests have 1 degree of freedom and find nothing. After
		// 3 seeds the residuals are ±0.003 and 0 everywhere, which is 6·0.003² with 4 degrees of
		// freedom. The standard error is 0.003, and t = 100.
		if r.Begun != 3+2*6 {
			t.Errorf("%d trials, want 3 of the dropped and 6 of two others", r.Begun)
		}
		rounds := strategy.Rounds(s, r.State)
		if len(rounds) != 5 || rounds[1].Seeds != 3 || len(rounds[1].Dropped) != 1 || len(rounds[4].Left) != 2 ||
			rounds[0].Test != search.RacePaired || rounds[1].Test != search.RacePooled {
			t.Errorf("rounds %+v", rounds)
		}
		if !strings.HasPrefix(r.Reason, "all 6 seeds are used: 2 of 3 networks are not separated by pooled t tests "+
			"at alpha 0.05 (only paired after 2 seeds, since the spreads may differ), the best first: ") {
			t.Errorf("it ends because %q", r.Reason)
		}
	})
	t.Run("by paired tests, it ends when one is left", func(t *testing.T) {
		s, decides := strategyStudy(t, search.StrategyRace, func(s *search.Study) {
			s.Seeds, s.Race.Test = search.FirstSeeds(6), search.RacePaired
		})
		r, err := strategy.Replay(decides, s, record(s, line(3), func(network, seed, epoch int) float64 {
			return far(network, seed, epoch) + []float64{0.3, 0, 0}[network]
		}), strategy.ReplayOptions{})
		// Seeds 0 to 2 give d̄ = 0.3, s of about 0.003, and t = 170 with 2 degrees of freedom. So p
		// is 1.7e-5, and (3 − 1) · 4 times that is below 0.05/3.
		if err != nil || r.Begun != 9 ||
			r.Reason != "L100M1 is better than every other of 3 by paired t tests at alpha 0.05, after 3 of 6 seeds" {
			t.Errorf("%d trials, %q, %v", r.Begun, r.Reason, err)
		}
	})
	t.Run("the level of one look at two networks is alpha/2", func(t *testing.T) {
		s, decides := strategyStudy(t, search.StrategyRace, func(s *search.Study) { s.Race.MinSeeds = 3 })
		// The differences are m and m ± 0.003, so t = m·√3/0.003 with 2 degrees of freedom. Its
		// one-sided p is 0.031 for m = 0.0066 and 0.018 for m = 0.009.
		for m, left := range map[float64]string{0.0066: "2 of 2 networks are not separated", 0.009: "is better"} {
			trials := record(s, line(2), func(network, seed, _ int) float64 {
				return 0.5 + float64(network)*(m+0.003*float64(seed-1))
			})
			if d := decides.Decide(s, trials); !strings.Contains(d.Reason, left) {
				t.Errorf("m = %g: %s", m, d.Reason)
			}
		}
	})
	t.Run("signed-rank tests are quick, and say so", func(t *testing.T) {
		s, decides := strategyStudy(t, search.StrategyRace, func(s *search.Study) {
			s.Seeds, s.Race.Test = search.FirstSeeds(8), search.RaceSignedRank
		})
		// The rank of the negative difference is 1. After 4 seeds, p is 2/16; after 5, it is 2/32.
		r, err := strategy.Replay(decides, s, record(s, line(2), func(network, seed, _ int) float64 {
			return 0.5 + float64(network)*[]float64{0.02, 0.03, -0.01, 0.04, 0.05, 0, 0, 0}[seed]
		}), strategy.ReplayOptions{})
		if err != nil || r.Begun != 10 || r.Reason != "L99M2 is better than every other of 2 by signed-rank tests at "+
			"p < 0.1 (quick: no bound on the error), after 5 of 8 seeds" {
			t.Errorf("%d trials, %q, %v", r.Begun, r.Reason, err)
		}
	})
	t.Run("a network that always diverges is dropped, one that fails is not", func(t *testing.T) {
		s, decides := strategyStudy(t, search.StrategyRace, func(s *search.Study) { s.Seeds = search.FirstSeeds(6) })
		recorded := record(s, line(2), far)
		for i := range 6 {
			recorded[i].Status, recorded[i].Epoch, recorded[i].History = search.Diverged, 0, nil
		}
		r, err := strategy.Replay(decides, s, recorded, strategy.ReplayOptions{})
		// The differences of two seeds are 0.504 and 0.501: t = 335 with 1 degree of freedom, p = 0.001.
		if err != nil || r.Begun != 4 || r.System != recorded[6].System {
			t.Errorf("%d trials, %+v, %v", r.Begun, r.Answer, err)
		}
		for i := range 6 {
			recorded[i].Status = search.Failed
		}
		if d := decides.Decide(s, recorded); len(d.Next) > 0 ||
			!strings.Contains(d.Reason, "2 of 2 networks are not separated") {
			t.Errorf("got %+v", d)
		}
	})
	t.Run("one diverged trial of a network does not keep the pooled test from the others", func(t *testing.T) {
		s, _ := strategyStudy(t, search.StrategyRace, func(s *search.Study) { s.Seeds = search.FirstSeeds(6) })
		recorded := record(s, line(5), func(network, seed, _ int) float64 {
			return []float64{0.5, 0.5, 0.5, 0.2, 0.3}[network] + 0.003*float64(network*seed%5)
		})
		recorded[0].Status, recorded[0].Epoch, recorded[0].History = search.Diverged, 0, nil
		rounds := strategy.Rounds(s, recorded)
		if rounds[0].Seeds != 2 || rounds[0].Test != search.RacePooled || len(rounds[0].Dropped) != 2 {
			t.Errorf("the first round is %+v", rounds[0])
		}
	})
	t.Run("the same difference of one picture in two seeds is no proof", func(t *testing.T) {
		s, decides := strategyStudy(t, search.StrategyRace, func(s *search.Study) { s.Seeds = search.FirstSeeds(2) })
		recorded := record(s, line(2), far)
		for i := range recorded {
			x := &recorded[i]
			x.History = []search.Epoch{{Number: s.Epochs, ValidationCorrect: 5 + i/2 + i%2, ValidationTotal: 10}}
		}
		if d := decides.Decide(s, recorded); !strings.Contains(d.Reason, "2 of 2 networks are not separated") {
			t.Errorf("got %+v", d)
		}
	})
	t.Run("networks with equal accuracies are not dropped", func(t *testing.T) {
		s, decides := strategyStudy(t, search.StrategyRace, nil)
		r, err := strategy.Replay(decides, s, record(s, line(4), func(int, int, int) float64 { return 0.5 }),
			strategy.ReplayOptions{})
		if err != nil || r.Begun != 12 {
			t.Errorf("%d trials, %v", r.Begun, err)
		}
	})
}

func TestReplay(t *testing.T) {
	t.Parallel()
	s, decides := strategyStudy(t, search.StrategyGrid, nil)
	recorded := record(s, line(4), func(network, _, _ int) float64 { return 0.1 * float64(network) })
	t.Run("grid trains everything", func(t *testing.T) {
		r, err := strategy.Replay(&counted{Strategy: decides, t: t}, s, recorded, strategy.ReplayOptions{})
		if err != nil || r.Begun != 12 || r.Epochs != 108 || r.Truth != 0.3 || r.Regret != 0 {
			t.Errorf("%+v, %v", r, err)
		}
	})
	t.Run("a replay keeps its bound, and regret is a difference of accuracies", func(t *testing.T) {
		r, err := strategy.Replay(strategy.Random(), s, recorded, strategy.ReplayOptions{Epochs: 60, Workers: 5})
		if err != nil || r.Epochs != 54 || r.System != recorded[3].System || math.Abs(r.Regret-0.2) > 1e-9 {
			t.Errorf("%d epochs, %+v, regret %g, %v", r.Epochs, r.Answer, r.Regret, err)
		}
	})
	t.Run("Shuffle keeps the results", func(t *testing.T) {
		r, err := strategy.Replay(decides, s, strategy.Shuffle(recorded, rand.New(rand.NewPCG(1, 1))),
			strategy.ReplayOptions{})
		if err != nil || r.Begun != 12 || r.System != recorded[9].System {
			t.Errorf("%+v, %v", r, err)
		}
	})
	t.Run("a strategy cannot ask for an epoch that is not recorded", func(t *testing.T) {
		s, decides := strategyStudy(t, search.StrategyHalving, nil)
		last := slices.Clone(recorded)
		for i := range last {
			last[i].History = last[i].History[s.Epochs-1:]
		}
		_, err := strategy.Replay(decides, s, last, strategy.ReplayOptions{})
		if err == nil || err.Error() != "L100M1 seed 0: epoch 1 is not recorded" {
			t.Errorf("got %v", err)
		}
	})
	t.Run("a study that is not complete cannot be replayed", func(t *testing.T) {
		half := slices.Clone(recorded)
		half[3].Status = search.Pending
		if _, err := strategy.Replay(decides, s, half, strategy.ReplayOptions{}); err == nil ||
			!strings.Contains(err.Error(), "L99M2 seed 0 has no result (pending)") {
			t.Errorf("got %v", err)
		}
	})
}

// TestDecideAnyState asks for decisions in random states. No run leaves such states behind, but a
// damaged or merged database may have them. A worker must be able to take every step.
func TestDecideAnyState(t *testing.T) {
	t.Parallel()
	rng := rand.New(rand.NewPCG(5, 5))
	statuses := []search.Status{search.Pending, search.Pending, search.Running, search.Done, search.Diverged,
		search.Failed}
	for _, name := range slices.Concat(search.Strategies, strategy.Peers) {
		decides := strategy.Peer(name)
		s, _ := strategyStudy(t, "", nil)
		if decides == nil {
			s, decides = strategyStudy(t, name,
				func(s *search.Study) { s.Halving.Systems, s.Race.Systems, s.Peak.Systems = 10, 10, 10 })
		}
		states := 2000
		if name == search.StrategyPeak {
			states = 200 // it makes a model for each
		}
		for range states {
			n := 1 + rng.IntN(20)
			trials := record(s, line(n), func(int, int, int) float64 { return rng.Float64() })
			for i := range trials {
				x := &trials[i]
				x.Status = statuses[rng.IntN(len(statuses))]
				if x.Status != search.Done {
					x.Epoch = rng.IntN(s.Epochs + 1)
					x.History = x.History[:x.Epoch]
				}
				if rng.IntN(10) == 0 {
					x.History = nil
				}
			}
			rng.Shuffle(len(trials), func(i, j int) { trials[i], trials[j] = trials[j], trials[i] })
			for _, step := range decides.Decide(s, trials[:rng.IntN(len(trials)+1)]).Next {
				if x := trials[step.Trial]; x.Status != search.Pending || step.Until <= x.Epoch && x.Epoch < s.Epochs ||
					step.Until > s.Epochs {
					t.Fatalf("%s: trial %d, %s at epoch %d, until %d", name, step.Trial, x.Status, x.Epoch, step.Until)
				}
			}
		}
	}
}

// BenchmarkDecide measures one decision in a study of 10,000 trials, in which 40 networks have
// results.
func BenchmarkDecide(b *testing.B) {
	var pairs []space.Pair
	for i := range 2000 {
		pairs = append(pairs, space.Pair{L: 1 + i/40, M: 1 + i%40})
	}
	for _, name := range search.Strategies {
		s := budgetStudy()
		s.Strategy, s.Validation, s.Seeds, s.Epochs = name, 100, search.FirstSeeds(5), 9
		s, err := s.Normalize()
		if err != nil {
			b.Fatal(err)
		}
		decides, _ := strategy.New(s)
		trials := record(s, pairs, func(network, _, epoch int) float64 { return float64(network%97+epoch) / 200 })
		for i := range trials {
			if i%250 >= 5 {
				trials[i].Status, trials[i].Epoch, trials[i].History = search.Pending, 0, nil
			}
		}
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				decides.Decide(s, trials)
			}
		})
	}
}

// TestNoAnswer: halving and race say that nothing was trained where all trials diverged, and a race
// of one network compares nothing.
func TestNoAnswer(t *testing.T) {
	t.Parallel()
	for _, name := range []string{search.StrategyHalving, search.StrategyRace, search.StrategyPeak} {
		s, decides := strategyStudy(t, name, nil)
		trials := record(s, line(3), func(_, _, _ int) float64 { return 0.5 })
		for i := range trials {
			trials[i].Status, trials[i].Epoch, trials[i].History = search.Diverged, 0, nil
		}
		if d := decides.Decide(s, trials); len(d.Next) > 0 || d.Reason != "no network was trained to the end" {
			t.Errorf("%s, all trials diverged: %+v", name, d)
		}
	}
	s, decides := strategyStudy(t, search.StrategyRace, nil)
	d := decides.Decide(s, record(s, line(1), func(_, _, _ int) float64 { return 0.5 }))
	if want := "L100M1 is the only network, after 2 of 3 seeds"; d.Reason != want {
		t.Errorf("a race of one network ends because %q, want %q", d.Reason, want)
	}
}
