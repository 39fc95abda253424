// Package strategy decides which trials of a study are trained next, and how
// far: grid, halving and race, and a model of accuracy for spaces that are too
// large to train. Replay shows what a strategy would have spent on a study that
// is recorded.
package strategy

import (
	"cmp"
	"fmt"
	"slices"

	"igcsearch/search"
	"igcsearch/space"
)

// New returns the strategy that a normalised study names.
func New(s search.Study) (search.Strategy, error) {
	switch cmp.Or(s.Strategy, search.StrategyGrid) {
	case search.StrategyGrid:
		return grid{}, nil
	case search.StrategyHalving:
		return halving{s.Halving}, nil
	case search.StrategyRace:
		return race{s.Race}, nil
	}
	return nil, fmt.Errorf("strategy %q: want grid, halving or race", s.Strategy)
}

// Grid returns the strategy that trains every trial.
func Grid() search.Strategy { return grid{} }

// grid trains every trial to its end, in the order given.
type grid struct{}

func (grid) Decide(_ search.Study, trials []search.TrialState) search.Decision {
	var d search.Decision
	d.Next = make([]search.Step, 0, len(trials))
	for i := range trials {
		if t := &trials[i]; t.Status == search.Pending {
			d.Next = append(d.Next, search.Step{Trial: i, Until: t.Epochs})
		}
	}
	if len(d.Next) == 0 {
		d.Reason = fmt.Sprintf("all %d trials have ended", len(trials))
	}
	return d
}

// final reports whether a strategy may not train the trial any further.
func final(t *search.TrialState) bool { return t.Status.Finished() || t.Status == search.Failed }

// reached reports whether the trial stands at an epoch or never will. The last
// epoch is reached when the trial has ended: one that was killed in between
// needs a worker once more.
func reached(t *search.TrialState, epoch int) bool {
	return final(t) || t.Epoch >= epoch && epoch < t.Epochs
}

// accuracy is the fraction, in [0, 1], of the split's pictures that the trial
// got right when it was last evaluated up to an epoch. A diverged trial counts
// as 0, the worst there is; a failed one, which says nothing of its network,
// has none.
func accuracy(t *search.TrialState, split string, until int) (a float64, ok bool) {
	if t.Status == search.Diverged {
		return 0, true
	}
	if t.Status == search.Failed || t.Epoch < until {
		return 0, false
	}
	for _, e := range slices.Backward(t.History) {
		if e.Number > until {
			continue
		}
		if correct, total := e.Correct(split); total > 0 {
			return float64(correct) / float64(total), true
		}
	}
	return 0, false
}

// network is a system with its trials: indices by rising seed.
type network struct {
	system space.System
	trials []int
}

// networks groups trials in the order in which their systems appear.
func networks(trials []search.TrialState) []network {
	var list []network
	at := map[space.System]int{}
	for i := range trials {
		k, known := at[trials[i].System]
		if !known {
			k = len(list)
			at[trials[i].System] = k
			list = append(list, network{system: trials[i].System})
		}
		list[k].trials = append(list[k].trials, i)
	}
	for _, a := range list {
		slices.SortStableFunc(a.trials, func(i, j int) int { return cmp.Compare(trials[i].Seed, trials[j].Seed) })
	}
	return list
}

// started reports whether a trial of the network was ever begun.
func (a network) started(trials []search.TrialState) bool {
	return slices.ContainsFunc(a.trials, func(i int) bool {
		return trials[i].Status != search.Pending ||
			trials[i].Epoch > 0
	})
}

// mean is the mean accuracy of the network's first seeds at an epoch, over those
// that have one; ok is false until all of them have reached it.
func (a network) mean(trials []search.TrialState, split string, seeds, until int) (mean float64, ok bool) {
	n := 0
	for _, i := range a.trials[:min(seeds, len(a.trials))] {
		t := &trials[i]
		if !reached(t, until) {
			return 0, false
		}
		if v, has := accuracy(t, split, until); has {
			mean += v
			n++
		}
	}
	if n == 0 {
		return 0, true // all have failed: nothing speaks for it
	}
	return mean / float64(n), true
}

// train returns the steps that take the network's first seeds to an epoch.
func (a network) train(trials []search.TrialState, seeds, until int) (steps []search.Step) {
	for _, i := range a.trials[:min(seeds, len(a.trials))] {
		if t := &trials[i]; t.Status == search.Pending && !reached(t, until) {
			steps = append(steps, search.Step{Trial: i, Until: until})
		}
	}
	return steps
}

// Answer is the network that the ended trials of a study speak for: of those
// with the most trials, so that nobody wins by one lucky seed after being
// dropped, the one of the highest mean accuracy on search.Study.DecidingSplit.
type Answer struct {
	System   space.System
	Accuracy float64 // mean over the trials, in [0, 1]
	Trials   int     // that the mean is of; 0: there is no answer yet
}

// FindAnswer returns the answer of what is recorded.
func FindAnswer(s search.Study, trials []search.TrialState) Answer {
	var best Answer
	most := 0
	for _, a := range networks(trials) {
		sum, n, ended := 0.0, 0, 0
		for _, i := range a.trials {
			if final(&trials[i]) {
				ended++ // also one that failed: that is not the network's fault
			}
			if v, ok := accuracy(&trials[i], s.DecidingSplit(), s.Epochs); ok {
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
