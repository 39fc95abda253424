package report_test

import (
	"strings"
	"testing"

	"igcsearch/cmd/igcsearch/report"
	"igcsearch/search"
	"igcsearch/store"
)

// precisionResults are those of a study of three pairs from three seeds. correct are the right ones of 1,000 test pictures,
// by pair and seed; 0 is a trial that diverged.
func precisionResults(t *testing.T, precision string, correct [3][3]int, change func(*search.Study)) report.Results {
	t.Helper()
	s := search.Default()
	s.Name, s.Dataset, s.Pairs, s.Seeds, s.Precision = precision, "synthetic", []string{"9x2", "3x4", "2x6"}, search.FirstSeeds(3), precision
	if change != nil {
		change(&s)
	}
	s, err := s.Normalize()
	if err != nil {
		t.Fatal(err)
	}
	stored := store.Results{Study: s}
	for _, trial := range s.Trials(s.Shape()) {
		n := correct[map[int]int{2: 0, 4: 1, 6: 2}[trial.System.Pair().M]][trial.Seed%3]
		trial.Status, trial.Epoch = search.Done, trial.Epochs
		if n == 0 {
			trial.Status = search.Diverged
		}
		trial.Last = search.Epoch{Number: trial.Epochs, TestCorrect: n, TestTotal: 1000}
		stored.Trials = append(stored.Trials, search.TrialState{Trial: trial})
	}
	return report.From(stored)
}

var ofFloat32 = [3][3]int{{800, 810, 805}, {830, 842, 838}, {600, 613, 604}}

func against(t *testing.T, a, b report.Results) (text string, warnings []string) {
	t.Helper()
	c, err := report.CompareStudies(a, b)
	if err != nil {
		t.Fatal(err)
	}
	var out strings.Builder
	if err := c.Print(&out, "table"); err != nil {
		t.Fatal(err)
	}
	return out.String(), c.Warnings
}

func TestAgainst(t *testing.T) {
	t.Parallel()
	f32 := precisionResults(t, "f32", ofFloat32, nil)
	for _, c := range []struct {
		name     string
		with     [3][3]int
		change   func(*search.Study)
		want     []string
		warnings string
	}{
		{"a difference that all share", [3][3]int{{850, 861, 854}, {881, 892, 889}, {650, 662, 655}}, nil, []string{
			"f32 and bf16 differ in precision (f32, bf16); 3 networks and 3 seeds in both, 9 trainings of each study; ",
			"; the difference was shown (p < 0.001, t test of the model difference = network + error, 6 degrees of freedom); ",
			"that the difference depends on the network was not shown (F(2, 6) = ",
			"; shown of L9M2, L3M4, L2M6 by the paired t tests of the table",
			"that they differ was not shown (F(4, 4) = ",
			"order               the same in both; of all couples 3 are separated in f32 and 3 in bf16 ",
		}, ""},
		{"two networks that change places", [3][3]int{{830, 842, 838}, {800, 810, 805}, {600, 613, 604}}, nil, []string{
			"a difference was not shown, which does not mean that there is none",
			"the difference depends on the network (F(2, 6) = ",
			"1 of 3 couples of networks change places; the neighbours in f32 that do: L3M4 and L9M2 (separated in both); ",
		}, ""},
		{"other settings, and a training that diverged", [3][3]int{{800, 0, 805}, {830, 842, 838}, {600, 613, 604}},
			func(s *search.Study) { s.Epochs = 20 }, []string{
				"f32 and bf16 differ in epochs (400, 20), precision (f32, bf16); 3 networks and 3 seeds in both, 8 trainings of",
				"; not tested: the differences of a network are all equal\n",
			}, "1 trial of f32 left out, because the other study has no accuracy of it|bf16: left out of 9 trials: 1 diverged|" +
				"bf16: diverged trials are left out, so that the means of L9M2 are too high"},
		{"one seed", ofFloat32, func(s *search.Study) { s.Seeds = search.FirstSeeds(1) }, []string{
			"3 networks and 1 seed in both, 3 trainings of each study",
			"+0.00 points, bf16 less f32, the mean over 3 networks; not tested: no network has two common seeds\n",
		}, "6 trials of f32 left out, because the other study has no accuracy of them|one common seed only, which decides nothing"},
	} {
		text, warnings := against(t, f32, precisionResults(t, "bf16", c.with, c.change))
		for _, want := range c.want {
			if !strings.Contains(text, want) {
				t.Errorf("%s: no %q in\n%s", c.name, want, text)
			}
		}
		if got := strings.Join(warnings, "|"); got != c.warnings {
			t.Errorf("%s: the warnings are %q, want %q", c.name, got, c.warnings)
		}
	}
}

func TestAgainstRefuses(t *testing.T) {
	t.Parallel()
	f32 := precisionResults(t, "f32", ofFloat32, nil)
	for _, c := range []struct {
		change func(*search.Study)
		want   string
	}{
		{func(s *search.Study) { s.Dataset = "cifar10" }, "they are of other pictures: dataset is synthetic in f32 and cifar10 in bf16"},
		{func(s *search.Study) { s.TrainPictures = 640 }, "they are of other pictures: train_pictures is 0 in f32 and 640 in bf16"},
		{func(s *search.Study) { s.Validation = 100 }, "they are of other pictures: validation is 0 in f32 and 100 in bf16"},
		{func(s *search.Study) { s.Pairs = []string{"8x2", "3x6"} },
			"they have no network in common: f32 has L9M2, L3M4, L2M6, and bf16 has L8M2, L3M6"},
		{func(s *search.Study) { s.Seeds = search.Seeds{7, 8} },
			"no network has an accuracy from the same seed in both: 9 of 9 trials of f32 are done, and 6 of 6 trials of bf16"},
	} {
		b := precisionResults(t, "bf16", ofFloat32, c.change)
		if _, err := report.CompareStudies(f32, b); err == nil || err.Error() != c.want {
			t.Errorf("the error is %v, want %s", err, c.want)
		}
	}
	other := precisionResults(t, "bf16", ofFloat32, nil)
	other.Study.DataSum = "0a1b"
	if _, err := report.CompareStudies(f32, other); err == nil ||
		err.Error() != "they are of other pictures: the checksums of these differ" {
		t.Errorf("the error is %v", err)
	}
}
