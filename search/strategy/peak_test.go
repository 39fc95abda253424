package strategy_test

import (
	"fmt"
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

// table1 are the pairs of the paper's Table 1 (i), with mean accuracies like those of its Figure 3.
var (
	table1 = []space.Pair{{L: 64, M: 1}, {L: 40, M: 2}, {L: 28, M: 3}, {L: 12, M: 6}, {L: 6, M: 9}, {L: 5, M: 10},
		{L: 3, M: 13}, {L: 2, M: 16}, {L: 1, M: 23}}
	table1Means = []float64{63.1, 63.9, 63.7, 62.5, 61.6, 61.2, 60.2, 59.1, 57.0}
)

// curveOf draws a record of the pairs of Table 1 with a deviation of 0.6 points over seeds.
func curveOf(s search.Study, draw uint64) []search.TrialState {
	rng := rand.New(rand.NewPCG(draw, 3))
	return record(s, table1, func(network, _, _ int) float64 {
		return (table1Means[network] + 0.6*rng.NormFloat64()) / 100
	})
}

// peakStudy returns a study of ten seeds with the strategy peak.
func peakStudy(t *testing.T, change func(*search.Study)) (search.Study, search.Strategy) {
	t.Helper()
	return strategyStudy(t, search.StrategyPeak, func(s *search.Study) {
		s.Epochs, s.Seeds = 1, search.FirstSeeds(10)
		if change != nil {
			change(s)
		}
	})
}

// trained counts the trials that have ended, by network.
func trained(trials []search.TrialState) map[space.System]int {
	n := map[space.System]int{}
	for _, t := range trials {
		if t.Status != search.Pending {
			n[t.System]++
		}
	}
	return n
}

func TestPeakEndsWithAClaim(t *testing.T) {
	t.Parallel()
	s, decides := peakStudy(t, nil)
	recorded := curveOf(s, 1)
	r, err := strategy.Replay(&counted{Strategy: decides, t: t}, s, recorded, strategy.ReplayOptions{Workers: 3})
	if err != nil {
		t.Fatal(err)
	}
	b, ok := strategy.Believe(decides, s, r.State)
	if !ok || b.Within < 0.95 || b.Seeds[b.Leader] < 3 || b.Repeats < 9 || b.Trials != r.Begun {
		t.Errorf("it ended with %+v after %d trials", b, r.Begun)
	}
	if m := b.Systems[b.Leader].Pair().M; m != 2 && m != 3 {
		t.Errorf("the answer is M = %d, want 2 or 3", m)
	}
	if r.Begun > 30 {
		t.Errorf("%d of 90 trials were trained, want a third at most", r.Begun)
	}
	for system, n := range trained(r.State) {
		if n == 0 {
			t.Errorf("%s was not trained", system.Label())
		}
	}
	const want = " points of the best of 9 with probability "
	if !strings.Contains(r.Reason, want) || !strings.Contains(r.Reason, "under the model") {
		t.Errorf("the reason is %q, want it to have %q", r.Reason, want)
	}
}

// The answer and the trials that are trained do not depend on the number of workers, on the order in
// which trials end, or on trials that nobody asked for.
func TestPeakDependsOnResultsOnly(t *testing.T) {
	t.Parallel()
	s, decides := peakStudy(t, nil)
	for draw := range uint64(5) {
		recorded := curveOf(s, draw)
		one, err := strategy.Replay(decides, s, recorded, strategy.ReplayOptions{Workers: 1})
		if err != nil {
			t.Fatal(err)
		}
		for _, workers := range []int{2, 5, 90} {
			fresh, err := strategy.New(s)
			if err != nil {
				t.Fatal(err)
			}
			r, err := strategy.Replay(fresh, s, recorded, strategy.ReplayOptions{Workers: workers})
			if err != nil {
				t.Fatal(err)
			}
			if r.Answer != one.Answer || r.Reason != one.Reason || !reflect.DeepEqual(trained(r.State), trained(one.State)) {
				t.Errorf("%d workers: %q of %d trials, want %q of %d", workers, r.Reason, r.Begun, one.Reason, one.Begun)
			}
		}
		if d := decides.Decide(s, recorded); d.Reason != one.Reason {
			t.Errorf("with all trials trained: %q, want %q", d.Reason, one.Reason)
		}
	}
}

func TestPeakDivergedAndFailed(t *testing.T) {
	t.Parallel()
	s, decides := peakStudy(t, nil)
	status := func(trials []search.TrialState, of func(pair space.Pair, seed int) search.Status) {
		for i := range trials {
			if x := of(trials[i].System.Pair(), trials[i].Seed); x != "" {
				trials[i].Status = x
			}
		}
	}
	t.Run("a network whose first trial diverged gets no other, and is not the answer", func(t *testing.T) {
		recorded := curveOf(s, 2)
		status(recorded, func(p space.Pair, _ int) search.Status {
			if p.M == 2 {
				return search.Diverged
			}
			return ""
		})
		r, err := strategy.Replay(decides, s, recorded, strategy.ReplayOptions{})
		if err != nil || trained(r.State)[space.PairSystem(table1[1])] != 1 || r.System.Pair().M == 2 ||
			!strings.Contains(r.Reason, " of the best of 8 ") ||
			!strings.Contains(r.Reason, "; left out of the search because their trials diverged: L40M2") {
			t.Errorf("%v, %q, %v", trained(r.State), r.Reason, err)
		}
	})
	t.Run("a network of which fewer than half diverged may be the answer", func(t *testing.T) {
		recorded := curveOf(s, 2)
		for i := range recorded {
			if recorded[i].System.Pair().M == 3 && recorded[i].Status == search.Done {
				recorded[i].History[0].ValidationCorrect = 7000 + i // the best by far
			}
		}
		status(recorded, func(p space.Pair, seed int) search.Status {
			if p.M == 3 && seed == 1 {
				return search.Diverged
			}
			return ""
		})
		r, err := strategy.Replay(decides, s, recorded, strategy.ReplayOptions{})
		if err != nil || r.System.Pair().M != 3 || !strings.Contains(r.Reason, "1 of its trials diverged") {
			t.Errorf("%q, %v", r.Reason, err)
		}
	})
	t.Run("if every trial diverges, each network is tried once", func(t *testing.T) {
		recorded := curveOf(s, 2)
		status(recorded, func(space.Pair, int) search.Status { return search.Diverged })
		r, err := strategy.Replay(decides, s, recorded, strategy.ReplayOptions{})
		if err != nil || r.Begun != 9 || r.Reason != "no network was trained to the end" || r.Answer.Trials != 0 {
			t.Errorf("%d trials, %q, %v", r.Begun, r.Reason, err)
		}
	})
	t.Run("a network without an accuracy gets its next seed before all others", func(t *testing.T) {
		for i, pair := range table1 { // also those that the model takes for much worse than the best
			trials := curveOf(s, 2)
			status(trials, func(p space.Pair, seed int) search.Status {
				switch {
				case seed > 3:
					return search.Pending
				case p == pair:
					return []search.Status{search.Failed, search.Pending}[min(1, seed)]
				}
				return ""
			})
			if d := decides.Decide(s, trials); !slices.Equal(d.Next, []search.Step{{Trial: 10*i + 1, Until: 1}}) {
				t.Errorf("%v: %v, %q", pair, d.Next, d.Reason)
			}
		}
	})
	t.Run("a network of which all trials failed is named", func(t *testing.T) {
		trials := curveOf(s, 2)
		status(trials, func(p space.Pair, _ int) search.Status {
			if p.M == 23 {
				return search.Failed
			}
			return ""
		})
		const want = "; nothing is known of L1M23, whose trials failed"
		if d := decides.Decide(s, trials); len(d.Next) > 0 || !strings.Contains(d.Reason, want) {
			t.Errorf("%v, %q", d.Next, d.Reason)
		}
	})
}

func TestPeakSettings(t *testing.T) {
	t.Parallel()
	t.Run("it ends undecided when the seeds of the likely best are used", func(t *testing.T) {
		s, decides := peakStudy(t, func(s *search.Study) { s.Seeds = search.FirstSeeds(3) })
		recorded := record(s, table1, func(network, seed, _ int) float64 { return 0.6 + 0.01*float64((network+seed)%3) })
		r, err := strategy.Replay(decides, s, recorded, strategy.ReplayOptions{})
		if err != nil || !strings.HasPrefix(r.Reason, "no trial is left that could decide: ") ||
			!strings.HasSuffix(r.Reason, "; 0.95 was asked for") {
			t.Errorf("%q, %v", r.Reason, err)
		}
	})
	t.Run("a few trainings are not enough for a claim, however clear they are", func(t *testing.T) {
		s, decides := peakStudy(t, func(s *search.Study) { s.Seeds = search.FirstSeeds(3) })
		recorded := record(s, table1[:3], func(network, _, _ int) float64 { return 0.5 + 0.1*float64(network) })
		r, err := strategy.Replay(decides, s, recorded, strategy.ReplayOptions{})
		if err != nil || r.Begun != 9 || !strings.HasPrefix(r.Reason, "too few trainings for a claim: L28M3 ") ||
			!strings.Contains(r.Reason, "; 6 repeat a network, 9 are needed") {
			t.Errorf("%d trials, %q, %v", r.Begun, r.Reason, err)
		}
	})
	t.Run("nothing is claimed of a network of which as many trials diverged as have an accuracy", func(t *testing.T) {
		s, decides := peakStudy(t, func(s *search.Study) { s.Seeds = search.FirstSeeds(6) })
		recorded := record(s, table1[:3], func(network, _, _ int) float64 { return 0.5 + 0.1*float64(network) })
		for i := range recorded[15:] {
			recorded[15+i].Status = search.Diverged
		}
		r, err := strategy.Replay(decides, s, recorded, strategy.ReplayOptions{})
		if err != nil || !strings.HasPrefix(r.Reason, "too few trainings for a claim: L28M3 ") ||
			!strings.Contains(r.Reason, "; as many of its trials diverged as have an accuracy") {
			t.Errorf("%d trials, %q, %v", r.Begun, r.Reason, err)
		}
	})
	t.Run("a clear leader whose seeds are used waits for enough repeated trainings", func(t *testing.T) {
		s, decides := peakStudy(t, func(s *search.Study) { s.Seeds = search.FirstSeeds(5) })
		recorded := record(s, table1, func(network, _, _ int) float64 { return 0.5 - 0.02*float64(network) })
		r, err := strategy.Replay(decides, s, recorded, strategy.ReplayOptions{})
		if b, _ := strategy.Believe(decides, s, r.State); err != nil || b.Repeats < 9 || b.Repeats > 10 || b.Seeds[0] != 5 {
			t.Errorf("%q, %+v, %v", r.Reason, b, err)
		}
	})
	t.Run("a wider margin and less confidence take fewer trials", func(t *testing.T) {
		begun := func(change func(*search.Study)) (n int) {
			s, decides := peakStudy(t, change)
			for draw := range uint64(10) {
				r, err := strategy.Replay(decides, s, curveOf(s, draw), strategy.ReplayOptions{})
				if err != nil {
					t.Fatal(err)
				}
				n += r.Begun
			}
			return n
		}
		usual := begun(nil)
		if n := begun(func(s *search.Study) { s.Peak.Margin = 0.1 }); n <= usual {
			t.Errorf("a margin of 0.1 points takes %d trials, 0.3 takes %d", n, usual)
		}
		if n := begun(func(s *search.Study) { s.Peak.Confidence = 0.99 }); n <= usual {
			t.Errorf("a confidence of 0.99 takes %d trials, 0.95 takes %d", n, usual)
		}
		if n := begun(func(s *search.Study) { s.Peak.Structure = false }); n <= usual {
			t.Errorf("without structure it takes %d trials, with it %d", n, usual)
		}
	})
	t.Run("a round has at_once trials", func(t *testing.T) {
		s, decides := peakStudy(t, func(s *search.Study) { s.Peak.AtOnce = 4 })
		trials := curveOf(s, 1)
		for i := range trials {
			if trials[i].Seed > 0 {
				trials[i].Status, trials[i].Epoch, trials[i].History = search.Pending, 0, nil
			}
		}
		if d := decides.Decide(s, trials); len(d.Next) != 4 {
			t.Errorf("%d trials are wanted, want 4: %v", len(d.Next), d.Next)
		}
	})
	t.Run("settings out of range are refused", func(t *testing.T) {
		s := budgetStudy()
		s.Strategy, s.Seeds = search.StrategyPeak, search.FirstSeeds(2)
		s.Peak = search.Peak{Margin: 0, Confidence: 1, AtOnce: -1, Systems: 201, Trainings: 1}
		_, err := s.Normalize()
		for _, want := range []string{"peak.margin 0", "peak.confidence 1", "peak.at_once -1", "peak.systems 201: want 10 to 200",
			"peak.trainings 1: want 20 to 500", "seeds 2: want 3 or more"} {
			if err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("got %v, want it to have %q", err, want)
			}
		}
	})
}

func TestPeakOfALargeSpace(t *testing.T) {
	t.Parallel()
	l := pairsOfManyBudgets()
	s, decides := peakStudy(t, func(s *search.Study) { s.Peak.Trainings = 42 })
	rng := rand.New(rand.NewPCG(1, 1))
	theta := l.draw(rng)
	r, err := strategy.Replay(&counted{Strategy: decides, t: t}, s, l.record(s, theta, rng),
		strategy.ReplayOptions{Workers: 4})
	if err != nil {
		t.Fatal(err)
	}
	if r.Begun != 42 || !strings.HasSuffix(r.Reason, "nothing is claimed of a space this large") {
		t.Errorf("%d trials, %q", r.Begun, r.Reason)
	}
	if lost := slices.Max(theta) - theta[slices.Index(l.systems, r.System)]; lost > 1 {
		t.Errorf("the answer is %.2f points below the best", lost)
	}
}

// BenchmarkPeak measures a whole search of "peak", and the time of each of its rounds: for the nine
// pairs of a budget, and for 505 pairs of many budgets, of which it trains 120.
func BenchmarkPeak(b *testing.B) {
	for _, c := range []struct {
		name   string
		change func(*search.Study)
	}{
		{"9 pairs", func(*search.Study) {}},
		{"505 pairs", func(s *search.Study) { s.Budget, s.Tolerance, s.All = 11500, 0.739, true }},
	} {
		b.Run(c.name, func(b *testing.B) {
			s := budgetStudy()
			s.Strategy, s.Epochs, s.Validation, s.Seeds = search.StrategyPeak, 1, 100, search.FirstSeeds(10)
			c.change(&s)
			s, err := s.Normalize()
			if err != nil {
				b.Fatal(err)
			}
			random := rand.New(rand.NewPCG(1, 2))
			trials := record(s, s.PairList(), func(network, _, _ int) float64 {
				return 0.6 - 0.003*math.Pow(float64(network%9-2), 2) + 0.006*random.NormFloat64()
			})
			rounds := 0
			for b.Loop() {
				decides, err := strategy.New(s)
				if err != nil {
					b.Fatal(err)
				}
				if _, err := strategy.Replay(decides, s, trials, strategy.ReplayOptions{Workers: len(trials)}); err != nil {
					b.Fatal(err)
				}
				rounds += len(strategy.Beliefs(decides))
			}
			b.ReportMetric(b.Elapsed().Seconds()*1000/float64(rounds), "ms/round")
			b.ReportMetric(float64(rounds)/float64(b.N), "rounds")
		})
	}
}

// TestPeakOfAnyOrder: run, status and replay have the trials in orders of their own.
func TestPeakOfAnyOrder(t *testing.T) {
	t.Parallel()
	for _, structure := range []bool{true, false} {
		name := fmt.Sprintf("structure = %v", structure)
		s, decides := peakStudy(t, func(s *search.Study) { s.Peak.Structure = structure })
		trials := curveOf(s, 4)
		for i := range trials {
			if trials[i].Seed > 2 {
				trials[i].Status, trials[i].Epoch, trials[i].History = search.Pending, 0, nil
			}
		}
		believe := func() (strategy.Belief, bool) { // without the memory of earlier rounds
			fresh, err := strategy.New(s)
			if err != nil {
				t.Fatal(err)
			}
			return strategy.Believe(fresh, s, trials)
		}
		want, ok := believe()
		if !ok {
			t.Fatalf("%s: nothing is believed", name)
		}
		rng := rand.New(rand.NewPCG(1, 1))
		for range 5 {
			rng.Shuffle(len(trials), func(i, j int) { trials[i], trials[j] = trials[j], trials[i] })
			got, _ := believe()
			if !structure { // NaN equals nothing
				want.Concave, got.Concave = 0, 0
			}
			if !reflect.DeepEqual(got, want) {
				t.Errorf("%s: in another order of the trials peak believes %+v, not %+v", name, got, want)
			}
			for _, step := range decides.Decide(s, trials).Next {
				if trials[step.Trial].Status != search.Pending {
					t.Errorf("%s: %v is wanted again", name, trials[step.Trial].Key)
				}
			}
		}
	}
}

// TestPeakBeginsWithEight: the pairs of many budgets differ in M and in parameters, so that
// 2·(2 + 1) networks would cover them, and there are at least eight.
func TestPeakBeginsWithEight(t *testing.T) {
	t.Parallel()
	s, decides := peakStudy(t, func(s *search.Study) { s.Peak.Systems = 10 })
	var pairs []space.Pair
	for m := 1; m <= 6; m++ {
		for _, l := range []int{4, 9, 20} {
			pairs = append(pairs, space.Pair{L: l, M: m})
		}
	}
	trials := record(s, pairs, func(_, _, _ int) float64 { return 0.5 })
	for i := range trials {
		trials[i].Params = trials[i].System.Pair().Params(9)
		trials[i].Status, trials[i].Epoch, trials[i].History = search.Pending, 0, nil
	}
	first := decides.Decide(s, trials).Next
	if len(first) != 8 {
		t.Errorf("peak begins with %d networks of a large space of two dimensions, want 8", len(first))
	}
	// A pair is a product of two factors, and has the same M under this name.
	for i := range trials {
		p := trials[i].System.Pair()
		trials[i].System = space.System{Family: space.FamilyIGCV2, Numbers: space.Numbers{p.M, p.L}}
	}
	_, decides = peakStudy(t, func(s *search.Study) { s.Peak.Systems = 10 })
	if got := decides.Decide(s, trials).Next; !slices.Equal(got, first) {
		t.Errorf("with names of IGCV2 peak begins with %v, want %v", got, first)
	}
}
