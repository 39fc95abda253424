package search

import (
	"cmp"
	"fmt"
	"slices"

	"igcsearch/space"
)

// Strategy decides what a study trains next. It is a pure function of the study and of what is recorded: any process, now or later, decides the same.
type Strategy interface {
	// Decide returns the trials worth training now, the best first, each up to an epoch. None while trials run means: wait for them. None while none runs means that the study has its answer, or all that can be had; Reason says which.
	Decide(s Study, trials []TrialState) Decision
}

// TrialState is a trial with its recorded epochs, in their order.
type TrialState struct {
	Trial
	Curve []Epoch
	// ISA is Attempt.ISA of the last epoch, whose checkpoint no other arithmetic
	// goes on with; "" if there is none.
	ISA string
}

// Decision is what a Strategy wants done.
type Decision struct {
	Next   []Step
	Reason string // one line, where Next is empty
}

// Step is one trial to be trained until an epoch, from wherever it stands.
type Step struct {
	Trial int // index into trials
	Until int
}

// The values of Study.Strategy; "" is StrategyGrid.
const (
	StrategyGrid    = "grid"
	StrategyHalving = "halving"
	StrategyRace    = "race"
)

// Strategies lists the values of Study.Strategy.
var Strategies = []string{StrategyGrid, StrategyHalving, StrategyRace}

// NewStrategy returns the strategy that a normalised study names.
func NewStrategy(s Study) (Strategy, error) {
	switch cmp.Or(s.Strategy, StrategyGrid) {
	case StrategyGrid:
		return grid{}, nil
	case StrategyHalving:
		return halving{s.Halving}, nil
	case StrategyRace:
		return race{s.Race}, nil
	}
	return nil, fmt.Errorf("strategy %q: want grid, halving or race", s.Strategy)
}

// grid trains every trial to its end, in the order given.
type grid struct{}

func (grid) Decide(_ Study, trials []TrialState) Decision {
	var d Decision
	d.Next = make([]Step, 0, len(trials))
	for i := range trials {
		if t := &trials[i]; t.Status == Pending {
			d.Next = append(d.Next, Step{i, t.Epochs})
		}
	}
	if len(d.Next) == 0 {
		d.Reason = fmt.Sprintf("all %d trials have ended", len(trials))
	}
	return d
}

// DecidingSplit is the split that strategies decide by, CurveValidation
// wherever pictures are held out: a test set that has chosen a network no
// longer measures it. Without held-out pictures it is CurveTest.
func (s Study) DecidingSplit() string {
	if s.Validation > 0 {
		return CurveValidation
	}
	return CurveTest
}

// final reports whether a strategy may not train the trial any further.
func (t *TrialState) final() bool { return t.Status.Finished() || t.Status == Failed }

// reached reports whether the trial stands at an epoch or never will. The last
// epoch is reached when the trial has ended: one that was killed in between
// needs a worker once more.
func (t *TrialState) reached(epoch int) bool {
	return t.final() || t.Epoch >= epoch && epoch < t.Epochs
}

// accuracy is the fraction, in [0, 1], of the split's pictures that the trial
// got right when it was last evaluated up to an epoch. A diverged trial counts
// as 0, the worst there is; a failed one, which says nothing of its network,
// has none.
func (t *TrialState) accuracy(split string, until int) (a float64, ok bool) {
	if t.Status == Diverged {
		return 0, true
	}
	if t.Status == Failed || t.Epoch < until {
		return 0, false
	}
	for _, e := range slices.Backward(t.Curve) {
		if e.Number > until {
			continue
		}
		if correct, total := e.Correct(split); total > 0 {
			return float64(correct) / float64(total), true
		}
	}
	return 0, false
}

// arm is a system with its trials: indices by rising seed.
type arm struct {
	system space.System
	trials []int
}

// arms groups trials in the order in which their systems appear.
func arms(trials []TrialState) []arm {
	var list []arm
	at := map[space.System]int{}
	for i := range trials {
		k, known := at[trials[i].System]
		if !known {
			k = len(list)
			at[trials[i].System] = k
			list = append(list, arm{system: trials[i].System})
		}
		list[k].trials = append(list[k].trials, i)
	}
	for _, a := range list {
		slices.SortStableFunc(a.trials, func(i, j int) int { return cmp.Compare(trials[i].Seed, trials[j].Seed) })
	}
	return list
}

// started reports whether a trial of the arm was ever begun.
func (a arm) started(trials []TrialState) bool {
	return slices.ContainsFunc(a.trials, func(i int) bool { return trials[i].Status != Pending || trials[i].Epoch > 0 })
}

// mean is the mean accuracy of the arm's first seeds at an epoch, over those
// that have one; ok is false until all of them have reached it.
func (a arm) mean(trials []TrialState, split string, seeds, until int) (mean float64, ok bool) {
	n := 0
	for _, i := range a.trials[:min(seeds, len(a.trials))] {
		t := &trials[i]
		if !t.reached(until) {
			return 0, false
		}
		if v, has := t.accuracy(split, until); has {
			mean += v
			n++
		}
	}
	if n == 0 {
		return 0, true // all have failed: nothing speaks for it
	}
	return mean / float64(n), true
}

// train returns the steps that take the arm's first seeds to an epoch.
func (a arm) train(trials []TrialState, seeds, until int) (steps []Step) {
	for _, i := range a.trials[:min(seeds, len(a.trials))] {
		if t := &trials[i]; t.Status == Pending && !t.reached(until) {
			steps = append(steps, Step{i, until})
		}
	}
	return steps
}

// Answer is the network that the ended trials of a study speak for: of those
// with the most trials, so that nobody wins by one lucky seed after being
// dropped, the one of the highest mean accuracy on Study.DecidingSplit.
type Answer struct {
	System   space.System
	Accuracy float64 // mean over the trials, in [0, 1]
	Trials   int     // that the mean is of; 0: there is no answer yet
}

// FindAnswer returns the answer of what is recorded.
func FindAnswer(s Study, trials []TrialState) Answer {
	var best Answer
	most := 0
	for _, a := range arms(trials) {
		sum, n, ended := 0.0, 0, 0
		for _, i := range a.trials {
			if trials[i].final() {
				ended++ // also one that failed: that is not the network's fault
			}
			if v, ok := trials[i].accuracy(s.DecidingSplit(), s.Epochs); ok {
				sum += v
				n++
			}
		}
		if n == 0 {
			continue
		}
		if mean := sum / float64(n); ended > most || ended == most && mean > best.Accuracy {
			best, most = Answer{a.system, mean, n}, ended
		}
	}
	return best
}
