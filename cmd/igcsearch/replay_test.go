package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"testing"

	"gonum.org/v1/gonum/stat"

	"igcsearch/search"
)

// TestRecords holds docs/search.md to the records: both strategies find the best
// of synthetic-sizes, for these shares of grid's epochs.
func TestRecords(t *testing.T) {
	t.Parallel()
	for strategy, want := range map[string][2]float64{"race": {0.65, 0.71}, "halving": {0.56, 0.62}} {
		var stdout, stderr bytes.Buffer
		if code := run(t.Context(), []string{"replay", "../../studies/results/replay/synthetic-sizes.csv", "--strategy",
			strategy, "--repeat", "50", "--format", "json"}, &stdout, &stderr); code != exitOK {
			t.Fatalf("exit code %d: %s", code, stderr.String())
		}
		var got struct {
			Answer string `json:"answer"`
			Rows   []struct {
				Answer      string
				Best, Share float64
			} `json:"strategies"`
		}
		if err := json.Unmarshal(stdout.Bytes(), &got); err != nil {
			t.Fatal(err)
		}
		if r := got.Rows[0]; got.Answer != "L40M2" || r.Answer != got.Answer || r.Best != 1 || r.Share < want[0] ||
			r.Share > want[1] {
			t.Errorf("%s: best of all %s, %+v, want a share from %g to %g", strategy, got.Answer, r, want[0], want[1])
		}
	}
}

// TestTrainingAccuracy holds docs/search.md to the record of real pictures: how the mean training accuracies of the
// pairs agree with the mean test accuracies at the end. -v prints it of each epoch.
func TestTrainingAccuracy(t *testing.T) {
	t.Parallel()
	s, trials, err := readRecorded(t.Context(), "testdata/recorded/epochs.csv", "")
	if err != nil {
		t.Fatal(err)
	}
	share := func(e search.Epoch, split string) float64 {
		correct, total := e.Correct(split)
		return float64(correct) / float64(total)
	}
	for epoch, want := range map[int]string{1: "0.76", 2: "0.93", 3: "0.99", 4: "0.99"} {
		seeds := len(s.Seeds) // the trials of a pair are one after the other
		early, end := make([]float64, len(trials)/seeds), make([]float64, len(trials)/seeds)
		for i, trial := range trials {
			early[i/seeds] += share(trial.History[epoch-1], search.SplitTrain) / float64(seeds)
			end[i/seeds] += share(trial.Last, search.SplitTest) / float64(seeds)
		}
		opposite := 0
		for i := range end {
			for j := range i {
				if (early[i]-early[j])*(end[i]-end[j]) < 0 {
					opposite++
				}
			}
		}
		got := fmt.Sprintf("%.2f", stat.Correlation(early, end, nil))
		t.Logf("epoch %d of %d: correlation %s, %d of %d couples have the opposite order", epoch, s.Epochs, got, opposite,
			len(end)*(len(end)-1)/2)
		if got != want {
			t.Errorf("epoch %d: correlation %s, want %s", epoch, got, want)
		}
	}
}
