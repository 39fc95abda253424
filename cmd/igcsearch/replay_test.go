package main

import (
	"bytes"
	"encoding/json"
	"testing"
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
