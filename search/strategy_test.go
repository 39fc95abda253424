package search_test

import (
	"slices"
	"testing"

	"pgregory.net/rapid"

	"igcsearch/search"
)

// halvingStudy returns a normalised study of halving, or the error of its settings.
func halvingStudy(epochs, reduction, minEpochs, evaluateEvery int) (search.Study, error) {
	s := budgetStudy()
	s.Strategy, s.Epochs, s.EvaluateEvery = search.StrategyHalving, epochs, evaluateEvery
	s.Halving.Reduction, s.Halving.MinEpochs = reduction, minEpochs
	return s.Normalize()
}

func TestRungs(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		epochs, reduction, minEpochs, evaluateEvery int
		want                                        []int
	}{
		// the default
		{2, 3, 0, 1, []int{1, 2}},
		{4, 3, 0, 1, []int{1, 4}},
		{5, 3, 0, 1, []int{2, 5}},
		{12, 3, 0, 1, []int{4, 12}},
		{40, 3, 0, 1, []int{13, 40}},
		{400, 3, 0, 1, []int{133, 400}},
		// from the end: 12/3, 12/9; 12/2, 12/4, 12/8, 12/16; 400/2, 400/4
		{12, 3, 1, 1, []int{1, 4, 12}},
		{12, 3, 3, 1, []int{4, 12}}, // 3 is too close to 4
		{12, 3, 6, 1, []int{6, 12}},
		{12, 2, 1, 1, []int{1, 2, 3, 6, 12}},
		{12, 2, 4, 1, []int{4, 6, 12}},
		{400, 2, 100, 1, []int{100, 200, 400}},
		// the next evaluation, unless that is too close to the next rung
		{12, 3, 0, 5, []int{5, 12}},
		{12, 3, 0, 8, []int{8, 12}},
		{12, 3, 0, 9, []int{4, 12}},
		{12, 3, 0, 100, []int{4, 12}},
		{12, 2, 3, 6, []int{3, 6, 12}},
	} {
		s, err := halvingStudy(c.epochs, c.reduction, c.minEpochs, c.evaluateEvery)
		if got := s.Halving.Rungs(s); err != nil || !slices.Equal(got, c.want) {
			t.Errorf("%d epochs, η %d, min_epochs %d, evaluate_every %d: got %v, %v, want %v", c.epochs, c.reduction,
				c.minEpochs, c.evaluateEvery, got, err, c.want)
		}
	}
}

func TestRungsProperties(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		epochs := rapid.IntRange(1, 500).Draw(t, "epochs")
		reduction := rapid.IntRange(2, 10).Draw(t, "reduction")
		every := rapid.IntRange(1, epochs+1).Draw(t, "evaluate_every")
		minEpochs := rapid.IntRange(0, epochs).Draw(t, "min_epochs")
		s, err := halvingStudy(epochs, reduction, minEpochs, every)
		if wrong := epochs == 1 || 3*minEpochs > 2*epochs; wrong != (err != nil) {
			t.Fatalf("%v", err)
		} else if wrong {
			return
		}
		rungs := s.Halving.Rungs(s)
		if len(rungs) < 2 || rungs[len(rungs)-1] != epochs || rungs[0] < max(1, minEpochs) {
			t.Fatalf("rungs %v", rungs)
		}
		for i, rung := range rungs[:len(rungs)-1] {
			next := rungs[i+1]
			if 3*rung > 2*next {
				t.Errorf("rungs %v: %d has less than one and a half times the epochs of %d", rungs, next, rung)
			}
			want := search.SplitTest
			if rung%every != 0 {
				want = search.SplitTrain
				if evaluated := rung + every - rung%every; 3*evaluated <= 2*next {
					t.Errorf("rungs %v: %d could be evaluated at %d", rungs, rung, evaluated)
				}
			}
			if got := s.DecidingSplitAt(rung); got != want {
				t.Errorf("rungs %v: %s decides at %d, want %s", rungs, got, rung, want)
			}
		}
	})
}
