package progress

import (
	"slices"
	"strings"
	"testing"
	"time"

	"igcsearch/search"
	"igcsearch/space"
	"igcsearch/trainer"
)

// planOf plans a study without its pictures.
func planOf(t *testing.T, train int, set func(*search.Study)) Plan {
	t.Helper()
	s := search.Default()
	s.Name, s.Dataset, s.Pairs, s.Epochs, s.Batch = "study", "synthetic", []string{"3x2", "2x3"}, 10, 16
	s.Seeds = search.FirstSeeds(2)
	set(&s)
	s, err := s.Normalize()
	if err != nil {
		t.Fatal(err)
	}
	in, n := s.Shape()
	data := trainer.Data{Shape: in, Classes: make([]string, n), Train: train, Test: 50}
	return Plan{Study: s, Data: data, Trials: s.Trials(in, n), Workers: 2}
}

// TestFewSteps: 0.99^298 is 0.05003 and 0.99^299 is 0.0495; 0.9^28 is 0.052 and 0.9^29
// is 0.047.
func TestFewSteps(t *testing.T) {
	t.Parallel()
	ident := func(s *search.Study) { s.Pairs, s.Systems = nil, []string{"IGC-L3M2+Ident."} }
	for _, c := range []struct {
		steps int
		set   func(*search.Study)
		want  string // "": no warning
	}{
		{298, func(*search.Study) {}, "a training has only 298 steps, after which 5 % of"},
		{299, func(*search.Study) {}, ""},
		{30, func(*search.Study) {}, "a training has only 30 steps, after which 74 % of"},
		{30, func(s *search.Study) { s.BNStatistics = search.BNPrecise }, ""},
		{28, ident, "a training has only 28 steps, after which 5 % of"},
		{29, ident, ""},
	} {
		p := planOf(t, 16*c.steps+15, func(s *search.Study) {
			s.Epochs = 1
			c.set(s)
		})
		got := p.FewSteps()
		if (got == "") != (c.want == "") || !strings.HasPrefix(got, c.want) {
			t.Errorf("%d steps: %q, want %q", c.steps, got, c.want)
		}
		if got != "" && !strings.Contains(got, `bn_statistics = "precise"`) {
			t.Errorf("%d steps: %q does not say what to do", c.steps, got)
		}
	}
}

// TestEstimate: what a run takes follows from what its steps take.
func TestEstimate(t *testing.T) {
	t.Parallel()
	p := planOf(t, 1000, func(s *search.Study) { s.EvaluateEvery, s.KeepCheckpoints = 4, true })
	for epochs, want := range []int{0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 3} { // the last epoch is evaluated too
		if got := p.evaluationsAfter(epochs, 10); got != want {
			t.Errorf("%d evaluations after %d epochs, want %d", got, epochs, want)
		}
	}
	p.Trials[0].Status, p.Trials[0].Epoch = search.Done, 10
	p.Trials[1].Epoch = 6
	c := &Estimate{Plan: p}
	c.count()
	if c.Left != 3 || c.epochs != 24 || c.evaluations != 2+3+3 || c.done != 16 {
		t.Errorf("%d trials, %d epochs, %d evaluations left, %d epochs done", c.Left, c.epochs, c.evaluations, c.done)
	}
	for _, system := range p.Study.SystemList() {
		c.Measured = append(c.Measured, trainer.Cost{System: system, Epoch: 10, Evaluation: 20, StateBytes: 1e6})
	}
	c.predict()
	// A training takes 10 epochs and 3 evaluations, 160 s; 4 of 10 epochs, 64 s. Two
	// workers share 384 s.
	if f := c.forecast; !f.Known || f.Seconds < 191.999 || f.Seconds > 192.001 {
		t.Errorf("%+v, want 192 s", f)
	}
	// 40 epochs, a checkpoint of each of four trials and two of two that train.
	if got, want := c.databaseBytes(), 102_400+40*82+8e6; got != want {
		t.Errorf("%.0f bytes, want %.0f", got, want)
	}
	c.Study.CheckpointQuota = 3e6
	if got, want := c.databaseBytes(), 102_400+40*82+3e6; got != want {
		t.Errorf("%.0f bytes with a quota, want %.0f", got, want)
	}
	most := *c
	most.epochs, most.evaluations, most.Left, most.done = 0, 0, 0, 0
	most.Study.MaxEpochs = 22 // 6 more, a quarter of the rest
	most.count()
	most.predict()
	if f := most.forecast; most.epochs != 6 || most.evaluations != 2 || f.Seconds < 47.999 || f.Seconds > 48.001 {
		t.Errorf("of at most 22 epochs: %d epochs, %d evaluations, %+v, want 6, 2 and 48 s",
			most.epochs, most.evaluations, f)
	}
	const want = "study: 3 trials, 24 epochs, 23808 training pictures to go: roughly 3m12s " +
		"(by a few steps of 2 of its networks, 2 at once); the database gets about 3.1 MB"
	if line := c.Line(); line != want {
		t.Errorf("%q, want %q", line, want)
	}
	c.Study.Strategy = search.StrategyRace
	if line := c.Line(); !strings.HasPrefix(line, "study: at most 3 trials,") {
		t.Errorf("of a race: %q", line)
	}
}

// TestChoose: where time is short, networks of all sizes are measured.
func TestChoose(t *testing.T) {
	t.Parallel()
	p := planOf(t, 1000, func(s *search.Study) { s.Pairs, s.Budget = nil, 4672 })
	p.Workers = 1
	all := p.choose(10 * time.Second)
	if len(all) != 9 || len(slices.Compact(slices.Clone(all))) != 9 {
		t.Errorf("%v", all)
	}
	if got := p.choose(time.Second); !slices.Equal(got, []space.System{all[0], all[8]}) {
		t.Errorf("of a second: %v, want the smallest and the largest of %v", got, all)
	}
	p.Workers = 3
	if got := p.choose(time.Second); !slices.Equal(got, []space.System{all[0], all[4], all[8]}) {
		t.Errorf("by three workers: %v", got)
	}
}
