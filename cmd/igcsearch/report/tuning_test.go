package report_test

import (
	"strings"
	"testing"

	"igcsearch/cmd/igcsearch/report"
	"igcsearch/search"
	"igcsearch/store"
)

// tunedResults are those of two pairs at two learning rates from four seeds. correct are the right ones of 1,000 test
// pictures, by pair and rate; the validation pictures say the same.
func tunedResults(t *testing.T, correct [2][2]int) report.Results {
	t.Helper()
	s := search.Default()
	s.Name, s.Dataset, s.Pairs, s.Validation = "tuned", "synthetic", []string{"9x2", "3x4"}, 1000
	s.Seeds, s.Axes = search.FirstSeeds(4), s.Axes.With("learning_rate", []float64{0.1, 0.2})
	s, err := s.Normalize()
	if err != nil {
		t.Fatal(err)
	}
	var stored store.Results
	stored.Study = s
	for _, trial := range s.Trials(s.Shape()) {
		rate, _ := trial.At.Value("learning_rate")
		n := correct[map[int]int{2: 0, 4: 1}[trial.System.Pair().M]][map[float64]int{0.1: 0, 0.2: 1}[rate]]
		n += []int{0, 3, -2, 1, 5, -4, 2}[(trial.Seed*trial.System.Pair().M+n)%7] // differs from seed to seed and from cell to cell
		trial.Status, trial.Epoch = search.Done, trial.Epochs
		trial.Last = search.Epoch{Number: trial.Epochs, TestCorrect: n, TestTotal: 1000, ValidationCorrect: n, ValidationTotal: 1000}
		stored.Trials = append(stored.Trials, search.TrialState{Trial: trial})
	}
	return report.From(stored)
}

func printed(t *testing.T, r report.Results, choose string) string {
	t.Helper()
	tuning, err := report.Tune(r, choose)
	if err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	if err := tuning.Print(&b, "table"); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func TestTuning(t *testing.T) {
	t.Parallel()
	// L3M4 is ahead at 0.1, L9M2 at 0.2; both have about the same mean over the pairs, 0.1 a little more.
	crossed := tunedResults(t, [2][2]int{{800, 891}, {860, 801}})
	for _, want := range []string{
		"common              learning_rate 0.2 is the best on average over the networks, by the 1000 validation pictures\n",
		"own                 1 of 2 networks: it is the best of the network too; the others: L3M4 at 0.1\n",
		"curves              L9M2 has the highest mean in both, each network at its own value and all at the common one; " +
			"couples of networks that change places between both, by their means: 0 of 1\n",
		"interaction         the differences between the networks depend on learning_rate (F(1, 9) = ",
		"order               it depends on learning_rate: L3M4 is ahead of L9M2 by 6.00",
		" points at 0.1, and behind by 8.98",
		"(the larger p < 0.001; p corrected by Holm for 2 comparisons, of all networks at all values)\n",
	} {
		if got := printed(t, crossed, ""); !strings.Contains(got, want) {
			t.Errorf("it lacks %q:\n%s", want, got)
		}
	}

	// The best pair at the common value is another one than with each at its own.
	for _, want := range []string{
		"common              learning_rate 0.1 ",
		"curves              L3M4 has the highest mean with each network at its own value, 1.87",
		" points above L9M2; L9M2 has it at the common value, 0.83",
		"couples of networks that change places between both, by their means: 1 of 1\n",
	} {
		if got := printed(t, tunedResults(t, [2][2]int{{860, 800}, {850, 880}}), ""); !strings.Contains(got, want) {
			t.Errorf("it lacks %q:\n%s", want, got)
		}
	}
}

func TestSlices(t *testing.T) {
	t.Parallel()
	r := tunedResults(t, [2][2]int{{800, 890}, {860, 800}})
	slices := r.Slices()
	if len(slices) != 2 || slices[1].Slice != "learning_rate 0.2" || slices[1].Study.LearningRate != 0.2 ||
		len(slices[1].Study.Axes) > 0 || len(slices[1].Trials) != 8 || slices[1].Trials[0].At != "" {
		t.Errorf("slices %+v", slices)
	}
	if n := slices[1].Networks(); len(n) != 2 || n[0].Label() != "L9M2" || n[0].Accuracies[0] < 88 {
		t.Errorf("networks of a slice: %+v", n)
	}
	own, common, err := r.AtOwn("")
	if err != nil {
		t.Fatal(err)
	}
	if n := own.Networks(); len(n) != 2 || n[0].Accuracies[0] < 88 || n[1].Accuracies[0] < 85 ||
		own.Slice != "each network at its best" {
		t.Errorf("at their own values: %+v, %s", n, own.Slice)
	}
	if common.Slice != "learning_rate 0.2, the best on average" || common.Study.LearningRate != 0.2 {
		t.Errorf("the common value is %s, %g", common.Slice, common.Study.LearningRate)
	}
	r.Study.Validation = 0
	if _, _, err := r.AtOwn(""); err == nil || !strings.Contains(err.Error(), "tuned holds out no validation pictures") {
		t.Errorf("without validation pictures: %v", err)
	}
}
