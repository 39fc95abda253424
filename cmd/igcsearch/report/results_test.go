package report_test

import (
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
