package report_test

import (
	"math"
	"strings"
	"testing"

	"igcsearch/cmd/igcsearch/report"
	"igcsearch/search"
	"igcsearch/space"
)

// TestAtChance: of 1000 pictures in 10 classes 100 are guessed, ± 9.487; three
// standard deviations end at 128.46.
func TestAtChance(t *testing.T) {
	t.Parallel()
	var r report.Results
	r.Study.Split = search.SplitTest
	add := func(m, seed, correct, total int, status search.Status) {
		r.Trials = append(r.Trials, search.TrialState{Trial: search.Trial{
			Key: search.Key{System: space.PairSystem(space.Pair{L: 3, M: m}), Seed: seed}, Status: status,
			Last: search.Epoch{TestCorrect: correct, TestTotal: total, ValidationCorrect: 0, ValidationTotal: 10}}})
	}
	add(2, 0, 129, 1000, search.Done)
	add(2, 1, 10, 1000, search.Diverged) // warned of in other words
	add(2, 2, 10, 1000, search.Running)
	if got := r.AtChance(10); got != nil {
		t.Errorf("%v", got)
	}
	add(2, 3, 128, 1000, search.Done)
	add(4, 0, 10, 1000, search.Done)
	want := "2 trainings of 5 ended at chance, 10 % with 10 classes: L3M2 seed 3, L3M4 seed 0: try more epochs or" +
		" pictures, or another learning rate"
	if got := r.AtChance(10); len(got) != 1 || got[0] != want {
		t.Errorf("%q, want %q", got, want)
	}
	for seed := range 10 {
		add(5, seed, 0, 1000, search.Done)
	}
	if got := r.AtChance(10); len(got) != 1 || !strings.Contains(got[0], "12 trainings of 15") ||
		!strings.Contains(got[0], "L3M5 seed 2, …:") {
		t.Errorf("many: %q", got)
	}
}

// TestHalvingOrder: three networks have the order of their ends at epoch 1, or the opposite one.
func TestHalvingOrder(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		early []int // the correct test pictures of the networks at epoch 1
		warns bool
	}{{[]int{300, 400, 500}, false}, {[]int{500, 400, 300}, true}} {
		r := report.Results{Study: search.Default().WithStrategy(search.StrategyHalving)}
		r.Study.Epochs, r.Study.Halving.MinEpochs, r.Study.Seeds = 3, 1, search.FirstSeeds(2)
		for i, correct := range c.early {
			for _, seed := range r.Study.Seeds {
				first := search.Epoch{Number: 1, TestCorrect: correct + seed, TestTotal: 1000}
				last := search.Epoch{Number: 3, TestCorrect: 600 + 50*i - seed, TestTotal: 1000}
				r.Planned = append(r.Planned, search.TrialState{Trial: search.Trial{Key: search.Key{
					System: space.PairSystem(space.Pair{L: 9, M: 1 + i}), Seed: seed}, Status: search.Done, Epoch: 3, Epochs: 3,
					Last: last}, History: []search.Epoch{first, last}})
			}
		}
		r.Trials = r.Planned
		list := r.Warnings()
		if got := len(list) == 1 && strings.HasPrefix(list[0], "the order of the networks at epoch 1 (test accuracy) "+
			"clearly differs from that at the end"); got != c.warns || len(list) > 1 {
			t.Errorf("%v at epoch 1: warnings %q", c.early, list)
		}
		// With another trial to train, status says the order so far.
		r.Trials = append(r.Trials, search.TrialState{Trial: search.Trial{Key: search.Key{
			System: space.PairSystem(space.Pair{L: 9, M: 9})}, Status: search.Pending, Epochs: 3}})
		var text strings.Builder
		if err := (report.Status{Results: r}).Print(&text, "table"); err != nil || !strings.Contains(text.String(),
			"strategy halving: 1 trial to be trained on now; others may follow, or never; so far, of the 3 couples of 3 ") {
			t.Errorf("%v: %s", err, text.String())
		}
	}
}

// TestSaved runs a halving of six networks by hand: after two of six epochs two of them go on.
func TestSaved(t *testing.T) {
	t.Parallel()
	study := search.Default()
	study.Name, study.Dataset, study.Epochs, study.Seeds = "six", "synthetic", 6, search.FirstSeeds(1)
	study.Pairs = []string{"8x1", "7x1", "6x1", "5x1", "4x1", "3x1"}
	study.Selection = search.Selection{Strategy: search.StrategyHalving}
	study, err := study.Normalize()
	if err != nil {
		t.Fatal(err)
	}
	r := report.Results{Study: study}
	epochs := func(i, n int) {
		s := &r.Trials[i]
		for e := s.Epoch + 1; e <= n; e++ {
			s.Last = search.Epoch{Number: e, TestCorrect: 90 - 10*i, TestTotal: 100}
			s.History = append(s.History, s.Last)
		}
		if s.Epoch = n; n == s.Epochs {
			s.Status = search.Done
		}
	}
	for _, system := range study.SystemList() {
		r.Trials = append(r.Trials, search.TrialState{Trial: search.Trial{Key: search.Key{System: system}, Epochs: 6,
			Status: search.Pending}})
	}
	says := func(want string) {
		t.Helper()
		if got := r.Saved(); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
	says("0 of at most 6 trainings so far")
	for i := range r.Trials {
		epochs(i, 2)
	}
	epochs(0, 6)
	r.Trials[1].Status = search.Running
	says("1 of at most 6 trainings so far")
	r.Trials[1].Status = report.Interrupted
	says("1 of at most 6 trainings so far")
	epochs(1, 6)
	says("all 6 trainings were begun, and 4 ended early: 56 % of the epochs of grid were trained")
	for i := range r.Trials {
		epochs(i, 6)
	}
	says("all 6 trainings were done")
	r.Study.Strategy = ""
	says("")
}

// TestPosteriorFacts has a curve with a peak, and one that is high at both ends.
func TestPosteriorFacts(t *testing.T) {
	t.Parallel()
	study := search.Default()
	study.Name, study.Dataset, study.Seeds = "five", "synthetic", search.FirstSeeds(4)
	study.Pairs = []string{"64x1", "40x2", "28x3", "12x6", "6x9"}
	study, err := study.Normalize()
	if err != nil {
		t.Fatal(err)
	}
	says := func(correct []int, want ...string) {
		t.Helper()
		r := report.Results{Study: study}
		for i, system := range study.SystemList() {
			for seed := range 4 {
				r.Trials = append(r.Trials, search.TrialState{Trial: search.Trial{Status: search.Done,
					Key:  search.Key{System: system, Seed: seed},
					Last: search.Epoch{TestCorrect: correct[i] + 2*seed, TestTotal: 1000}}})
			}
		}
		a, err := report.Analyze(r, "")
		if err != nil {
			t.Fatal(err)
		}
		var out strings.Builder
		if err := a.Print(&out, "table"); err != nil {
			t.Fatal(err)
		}
		for _, w := range want {
			if !strings.Contains(out.String(), w) {
				t.Errorf("%q is not in\n%s", w, out.String())
			}
		}
	}
	says([]int{595, 612, 620, 612, 602},
		"P(best)             the best of 5 networks is L28M3 with >99 %; under a model of concave",
		"curve               the concave curves of the model have ")
	says([]int{630, 550, 500, 550, 600},
		"curve               the concave curves of the model hardly fit: they have <1 % of its weight")
}

func TestWholePercent(t *testing.T) {
	t.Parallel()
	for p, want := range map[float64]string{0: "<1 %", 0.0049: "<1 %", 0.0051: "1 %", 0.514: "51 %", 0.9949: "99 %",
		0.9951: ">99 %", 1: ">99 %"} {
		if got := report.WholePercent(p); got != want {
			t.Errorf("%g is %q, want %q", p, got, want)
		}
	}
	if got := report.WholePercent(math.NaN()); got != "–" {
		t.Errorf("NaN is %q", got)
	}
}
