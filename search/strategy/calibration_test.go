package strategy_test

import (
	"encoding/json"
	"flag"
	"fmt"
	"math"
	"os"
	"testing"
)

var update = flag.Bool("update", false, "rewrite testdata/calibration.json from a long simulation, and docs/calibration.png")

// calibrationFile holds the calibration of the strategy "peak" as the simulation has measured it.
const calibrationFile = "testdata/calibration.json"

// calibration compares probabilities with how often they were true. Its keys are the kinds of
// truths. Rounds counts the beliefs after every round, and Ends those after the last one.
type calibration struct{ Rounds, Ends map[string][]bin }

// edges are the ends of the bins of a probability.
var edges = []float64{0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.98, 1}

// bin counts the beliefs with a probability between two edges. The beliefs of one study depend on
// each other, so the squares are of the sums over a study.
type bin struct {
	N, Sum, True      float64 // the beliefs, the sum of their probabilities, how many are true
	NN, NTrue, TrueSq float64 // over the studies: the sums of n², n·true, true²
}

// expected and share return the mean of the probabilities and the share that is true, with its
// standard error.
func (b bin) share() (expected, share, se float64) {
	p := b.True / b.N
	return b.Sum / b.N, p, math.Sqrt(max(0, b.TrueSq-2*p*b.NTrue+p*p*b.NN)) / b.N
}

func newCalibration() calibration {
	return calibration{Rounds: map[string][]bin{}, Ends: map[string][]bin{}}
}

// add counts the beliefs of one study of a kind of truth.
func (c calibration) add(kind string, rounds []judged) {
	if len(rounds) > 0 {
		count(c.Rounds, kind, rounds)
		count(c.Ends, kind, rounds[len(rounds)-1:])
	}
}

func count(to map[string][]bin, kind string, list []judged) {
	if to[kind] == nil {
		to[kind] = make([]bin, len(edges)-1)
	}
	study := make([]bin, len(edges)-1)
	for _, j := range list {
		at := 0
		for at < len(study)-1 && j.within >= edges[at+1]-1e-9 {
			at++
		}
		study[at].N++
		study[at].Sum += j.within
		if j.true {
			study[at].True++
		}
	}
	for i, s := range study {
		b := &to[kind][i]
		b.N, b.Sum, b.True = b.N+s.N, b.Sum+s.Sum, b.True+s.True
		b.NN, b.NTrue, b.TrueSq = b.NN+s.N*s.N, b.NTrue+s.N*s.True, b.TrueSq+s.True*s.True
	}
}

// table returns the rows of a table, a bin in each.
func (c calibration) table() (rows []string) {
	for i := range len(edges) - 1 {
		text := fmt.Sprintf("| %g to %g |", edges[i], edges[i+1])
		for _, of := range []map[string][]bin{c.Rounds, c.Ends} {
			for _, kind := range []string{concave, broken, worst} {
				if of[kind] == nil || of[kind][i].N == 0 {
					text += " – |"
					continue
				}
				expected, share, se := of[kind][i].share()
				text += fmt.Sprintf(" %.1f: %.1f ± %.1f, n %.0f |", 100*expected, 100*share, 100*se, of[kind][i].N)
			}
		}
		rows = append(rows, text)
	}
	return rows
}

// save puts the calibration of studies of a number of seeds into the file.
func (c calibration) save(t *testing.T, seeds int) {
	t.Helper()
	all := map[int]calibration{}
	if text, err := os.ReadFile(calibrationFile); err == nil {
		if err := json.Unmarshal(text, &all); err != nil {
			t.Fatal(err)
		}
	}
	all[seeds] = c
	text, err := json.MarshalIndent(all, "", " ")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(calibrationFile, append(text, '\n'), 0o666); err != nil {
		t.Fatal(err)
	}
}
