package strategy

import (
	"cmp"
	"fmt"
	"maps"
	"slices"

	"igcsearch/search"
)

// halving is asynchronous successive halving over epochs (Li et al., A System for Massively
// Parallel Hyperparameter Tuning, 2020, Algorithm 2). Certain epochs are rungs
// (search.Halving.Rungs). A network that has reached a rung is promoted, which means that it is
// trained up to the next rung, as soon as it is among the best 1/η there. It does not wait for the
// other networks.
//
// halving promotes a network with all its seeds, by their mean accuracy. If it promoted single
// trials, the lucky seeds would remain, and their mean would not be that of the network.
type halving struct {
	search.Halving
	*large
}

func (h halving) Decide(s search.Study, trials []search.TrialState) search.Decision {
	l := h.ladder(s, trials)
	last := len(l.rungs) - 1
	entering := h.enter(trials, l.all, h.Systems, l.model)

	// The loop starts at the lowest rung. A rung is closed if no further network can reach it. Then
	// at least one network is promoted, even if 1/η of those there is less than one.
	promoted := make([][]int, len(l.rungs)) // the networks that are promoted now to each rung
	closed := len(entering) == 0
	for rung := 0; rung < last; rung++ {
		here := ranked(l.at(rung))
		heading := 0
		for _, target := range l.target {
			if target >= rung {
				heading++
			}
		}
		closed = closed && heading == len(here)
		quota := len(here) / h.Reduction
		if closed && len(here) > 0 {
			quota = max(1, quota)
		}
		for _, i := range here[:quota] {
			if l.target[i] == rung {
				promoted[rung+1] = append(promoted[rung+1], i)
			}
		}
		closed = closed && len(promoted[rung+1]) == 0
	}

	var d search.Decision
	train := func(i, rung int) {
		d.Next = append(d.Next, l.all[i].train(trials, len(s.Seeds), l.rungs[rung])...)
	}
	for rung := last; rung >= 0; rung-- {
		for i, target := range l.target {
			if target == rung {
				train(i, rung)
			}
		}
		for _, i := range promoted[rung] {
			train(i, rung)
		}
	}
	for _, i := range entering {
		train(i, 0)
	}
	if len(d.Next) > 0 {
		return d
	}
	best := FindAnswer(s, trials)
	if best.Trials == 0 {
		d.Reason = "no network was trained to the end"
		return d
	}
	d.Reason = fmt.Sprintf("%s is the best of %d that were trained to the end, of %d begun; %v", best.System.Label(),
		len(l.at(last)), len(l.at(0)), l.agreement())
	return d
}

// ladder is a study of halving with the rungs that its networks have reached.
type ladder struct {
	study  search.Study
	trials []search.TrialState
	all    []network
	rungs  []int // epochs
	target []int // the rung of each network; see network.rung
}

func (h halving) ladder(s search.Study, trials []search.TrialState) ladder {
	l := ladder{study: s, trials: trials, all: networks(trials), rungs: h.Rungs(s)}
	for _, a := range l.all {
		l.target = append(l.target, a.rung(trials, l.rungs))
	}
	return l
}

// at returns the mean accuracies of the networks that have reached a rung with all seeds.
func (l ladder) at(rung int) map[int]float64 {
	means := map[int]float64{}
	split := l.study.DecidingSplitAt(l.rungs[rung])
	for i, a := range l.all {
		if l.target[i] < rung {
			continue
		}
		if v, ok := a.mean(l.trials, split, len(l.study.Seeds), l.rungs[rung]); ok {
			means[i] = v
		}
	}
	return means
}

// ranked returns the networks of mean accuracies, the best first.
func ranked(means map[int]float64) []int {
	return slices.SortedFunc(maps.Keys(means), func(i, j int) int {
		return cmp.Or(cmp.Compare(means[j], means[i]), i-j)
	})
}

// model returns the mean accuracies at the highest rung that enough networks have reached, for
// enter. BOHB does the same (Falkner et al., 2018), because a model of few accuracies is worse than
// one of many accuracies at an early epoch.
func (l ladder) model(enough int) map[int]float64 {
	for rung := len(l.rungs) - 1; ; rung-- {
		if means := l.at(rung); len(means) >= enough || rung == 0 {
			return means
		}
	}
}

// rung returns the rung that the network's trials have reached or are trained up to. It is −1 if no
// trial has begun, and the last rung if all trials have failed or diverged.
func (a network) rung(trials []search.TrialState, rungs []int) int {
	if !a.started(trials) {
		return -1
	}
	rung, live := 0, false
	for _, i := range a.trials {
		t := &trials[i]
		if t.Status == search.Diverged || t.Status == search.Failed {
			continue
		}
		live = true
		at, _ := slices.BinarySearch(rungs, max(t.Epoch, t.Until))
		rung = max(rung, min(at, len(rungs)-1))
	}
	if !live {
		return len(rungs) - 1
	}
	return rung
}
