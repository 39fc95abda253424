package strategy

import (
	"cmp"
	"fmt"
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
	all, split, rungs := networks(trials), s.DecidingSplit(), h.Rungs(s)
	last := len(rungs) - 1

	target := make([]int, len(all)) // see network.rung
	for i, a := range all {
		target[i] = a.rung(trials, rungs)
	}
	// at lists the networks that have reached a rung with all seeds, the best first.
	at := func(rung int) (reached []int) {
		mean := map[int]float64{}
		for i, a := range all {
			if target[i] < rung {
				continue
			}
			if v, ok := a.mean(trials, split, len(s.Seeds), rungs[rung]); ok {
				mean[i] = v
				reached = append(reached, i)
			}
		}
		slices.SortStableFunc(reached, func(i, j int) int { return cmp.Compare(mean[j], mean[i]) })
		return reached
	}

	entering := h.enter(trials, all, h.Systems, h.model(all, trials, split, s, target, rungs))

	// The loop starts at the lowest rung. A rung is closed if no further network can reach it. Then
	// at least one network is promoted, even if 1/η of those there is less than one.
	promoted := make([][]int, len(rungs)) // the networks that are promoted now to each rung
	closed := len(entering) == 0
	for rung := 0; rung < last; rung++ {
		here := at(rung)
		heading := 0
		for i := range all {
			if target[i] >= rung {
				heading++
			}
		}
		closed = closed && heading == len(here)
		quota := len(here) / h.Reduction
		if closed && len(here) > 0 {
			quota = max(1, quota)
		}
		for _, i := range here[:quota] {
			if target[i] == rung {
				promoted[rung+1] = append(promoted[rung+1], i)
			}
		}
		closed = closed && len(promoted[rung+1]) == 0
	}

	var d search.Decision
	for rung := last; rung >= 0; rung-- {
		for i, a := range all {
			if target[i] == rung {
				d.Next = append(d.Next, a.train(trials, len(s.Seeds), rungs[rung])...)
			}
		}
		for _, i := range promoted[rung] {
			d.Next = append(d.Next, all[i].train(trials, len(s.Seeds), rungs[rung])...)
		}
	}
	for _, i := range entering {
		d.Next = append(d.Next, all[i].train(trials, len(s.Seeds), rungs[0])...)
	}
	if len(d.Next) > 0 {
		return d
	}
	best := FindAnswer(s, trials)
	if best.Trials == 0 {
		d.Reason = "no network was trained to the end"
		return d
	}
	d.Reason = fmt.Sprintf("%s is the best of %d that were trained to the end, of %d begun", best.System.Label(),
		len(at(last)), len(at(0)))
	return d
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
		// A running trial is trained at least up to its next epoch.
		want := t.Epoch
		if t.Status == search.Running {
			want++
		}
		at, _ := slices.BinarySearch(rungs, want)
		rung = max(rung, min(at, len(rungs)-1))
	}
	if !live {
		return len(rungs) - 1
	}
	return rung
}

// model returns a function for enter, which returns the mean accuracies at the highest rung that
// enough networks have reached. BOHB does the same (Falkner et al., 2018), because a model of few
// accuracies is worse than one of many accuracies at an early epoch.
func (h halving) model(all []network, trials []search.TrialState, split string, s search.Study, target,
	rungs []int) func(enough int) map[int]float64 {
	return func(enough int) map[int]float64 {
		for rung := len(rungs) - 1; ; rung-- {
			mean := map[int]float64{}
			for i, a := range all {
				if target[i] < rung {
					continue
				}
				if v, ok := a.mean(trials, split, len(s.Seeds), rungs[rung]); ok {
					mean[i] = v
				}
			}
			if len(mean) >= enough || rung == 0 {
				return mean
			}
		}
	}
}
