// Package strategy decides which trials of a study are trained next, and up to which epoch. It has
// four strategies, of which New returns one:
//
//   - grid trains every trial to its last epoch;
//   - halving trains all networks for a few epochs and then, again and again, the best of them for
//     more;
//   - race trains all networks from one seed after the other, and drops networks that are
//     significantly worse than the best;
//   - peak trains all networks from one seed, and then those from more that a Bayesian model of the
//     curve holds for the best and its nearest rival.
//
// In studies of many networks, halving and race choose those that take part by a model of the
// accuracy. Replay says how much a strategy would have trained in a recorded study, and what it
// would have found. It also runs Random and the rules of public tools (Peer), to compare with.
package strategy

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"strings"

	"igcsearch/search"
	"igcsearch/space"
)

// New returns the strategy that a normalised study names.
func New(s search.Study) (search.Strategy, error) {
	switch cmp.Or(s.Strategy, search.StrategyGrid) {
	case search.StrategyGrid:
		return grid{}, nil
	case search.StrategyHalving:
		return halving{s.Halving, &large{}}, nil
	case search.StrategyRace:
		return race{s.Race, &large{}}, nil
	case search.StrategyPeak:
		return &peak{Peak: s.Peak}, nil
	}
	return nil, fmt.Errorf("strategy %q: want %s", s.Strategy, strings.Join(search.Strategies, ", "))
}

// Grid returns the strategy that trains every trial.
func Grid() search.Strategy { return grid{} }

// grid trains every trial to its last epoch, in the given order.
type grid struct{}

func (grid) Decide(_ search.Study, trials []search.TrialState) search.Decision {
	var d search.Decision
	d.Next = make([]search.Step, 0, len(trials))
	for i := range trials {
		if t := &trials[i]; t.Status == search.Pending {
			d.Next = append(d.Next, search.Step{Trial: i, Until: t.Epochs})
		}
	}
	switch {
	case len(d.Next) > 0:
	case len(trials) == 1:
		d.Reason = "its trial has ended"
	default:
		d.Reason = fmt.Sprintf("all %d trials have ended", len(trials))
	}
	return d
}

// final reports whether the trial cannot be trained further.
func final(t *search.TrialState) bool { return t.Status.Finished() || t.Status == search.Failed }

// reached reports whether the trial has reached an epoch or never will. It has reached its last
// epoch only when it has ended: a process that was killed just before has left work for another
// worker.
func reached(t *search.TrialState, epoch int) bool {
	return final(t) || t.Epoch >= epoch && epoch < t.Epochs
}

// accuracy returns the fraction of the split's pictures, in [0, 1], that the trial classified
// correctly in its last evaluation up to an epoch. A diverged trial counts as 0. A failed trial
// says nothing about its network: for it ok is false.
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

// network is a system and the indices of its trials, by rising seed.
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

// started reports whether a trial of the network has begun.
func (a network) started(trials []search.TrialState) bool {
	return slices.ContainsFunc(a.trials, func(i int) bool {
		return trials[i].Status != search.Pending || trials[i].Epoch > 0
	})
}

// accuracies returns those of the network's first seeds at an epoch, NaN for a trial without one.
func (a network) accuracies(trials []search.TrialState, split string, seeds, until int) (list []float64) {
	for _, i := range a.trials[:min(seeds, len(a.trials))] {
		v, ok := accuracy(&trials[i], split, until)
		if !ok {
			v = math.NaN()
		}
		list = append(list, v)
	}
	return list
}

// mean returns the mean accuracy of the network's first seeds at an epoch. It leaves out trials
// without an accuracy, and is 0 if none has one. ok is false until all these trials have reached
// the epoch.
func (a network) mean(trials []search.TrialState, split string, seeds, until int) (v float64, ok bool) {
	for _, i := range a.trials[:min(seeds, len(a.trials))] {
		if !reached(&trials[i], until) {
			return 0, false
		}
	}
	return max(0, mean(a.accuracies(trials, split, seeds, until))), true
}

// train returns the steps that train the network's first seeds up to an epoch.
func (a network) train(trials []search.TrialState, seeds, until int) (steps []search.Step) {
	for _, i := range a.trials[:min(seeds, len(a.trials))] {
		if t := &trials[i]; t.Status == search.Pending && !reached(t, until) {
			steps = append(steps, search.Step{Trial: i, Until: until})
		}
	}
	return steps
}

// Answer is the network that a search has found. It is the network with the highest mean accuracy
// on search.Study.DecidingSplit, among the networks with the most ended trials. So a network that
// was dropped after one lucky seed does not win.
type Answer struct {
	System   space.System
	Accuracy float64 // the mean over the trials, in [0, 1]
	Trials   int     // the number of trials in the mean; 0 means that there is no answer yet
}

// FindAnswer returns the answer of the recorded trials.
func FindAnswer(s search.Study, trials []search.TrialState) Answer {
	var best Answer
	most := 0
	for _, a := range sorted(trials) {
		sum, n, ended, trained := 0.0, 0, 0, false
		for _, i := range a.trials {
			if final(&trials[i]) {
				ended++ // a failed trial counts too, since the failure is not the network's fault
			}
			if v, ok := accuracy(&trials[i], s.DecidingSplit(), s.Epochs); ok {
				sum += v
				n++
				trained = trained || trials[i].Status != search.Diverged
			}
		}
		if !trained { // a network whose trials all diverged is no answer
			continue
		}
		if mean := sum / float64(n); ended > most || ended == most && mean > best.Accuracy {
			best, most = Answer{a.system, mean, n}, ended
		}
	}
	return best
}
