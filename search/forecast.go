package search

import "igcsearch/space"

// Work tells Predict how far a trial is.
type Work struct {
	Trial Trial
	// At is the number of epochs that are done, including the done part of the current epoch.
	At float64
	// Seconds is the time that Measured epochs took, including evaluation. Measured may be a
	// fraction. Both are 0 if nothing was measured.
	Measured, Seconds float64
}

// Forecast says how much of a study is done, and how long the rest takes.
type Forecast struct {
	// Share is the done share of the work, in [0, 1]. The work is multiply–adds × epochs.
	Share float64
	// Seconds is the time until the last trial ends, if Known is set. It counts all trials,
	// although a Strategy may want fewer.
	Seconds float64
	Known   bool
}

// Predict estimates the time that a study still takes with a number of workers. The time is not
// known until a trial has a measured part: the time before the first step says nothing about the
// steps.
//
// Predict assumes that an epoch of a trial takes as long as the measured epochs of its network. If
// there are none, it takes the epochs of all networks, in proportion to their multiply–adds. The
// study ends when all workers together have done the rest, but not before the longest trial ends.
func Predict(trials []Work, workers int) Forecast {
	type pace struct{ cost, seconds float64 } // the cost is multiply–adds × epochs
	var all pace
	of := map[space.System]pace{}
	var done, total float64
	for i := range trials {
		w := &trials[i]
		size := float64(w.Trial.MultiplyAdds)
		whole := size * float64(w.Trial.Epochs)
		total += whole
		if w.Trial.Status.Finished() {
			done += whole // a diverged trial has no work left either
		} else {
			done += size * w.At
		}
		if w.Measured > 0 && size > 0 {
			p := of[w.Trial.System]
			p.cost += size * w.Measured
			p.seconds += w.Seconds
			of[w.Trial.System] = p
			all.cost += size * w.Measured
			all.seconds += w.Seconds
		}
	}
	f := Forecast{Share: 1} // if there is no work
	if total > 0 {
		f.Share = done / total
	}
	var sum, longest float64
	left := false
	for i := range trials {
		w := &trials[i]
		if w.Trial.Status.Finished() || w.Trial.Status == Failed { // a run skips failed trials
			continue
		}
		left = true
		p := of[w.Trial.System]
		if p.cost == 0 {
			p = all
		}
		if p.cost > 0 {
			seconds := p.seconds / p.cost * float64(w.Trial.MultiplyAdds) * max(0, float64(w.Trial.Epochs)-w.At)
			sum += seconds
			longest = max(longest, seconds)
		}
	}
	if !left {
		f.Known = true
		return f
	}
	if f.Known = all.cost > 0 && workers > 0; f.Known {
		f.Seconds = max(sum/float64(workers), longest)
	}
	return f
}

// Add counts a number of epochs that each took as long as e.
func (w *Work) Add(epochs float64, e Epoch) {
	if seconds := e.TrainSeconds + e.EvalSeconds; seconds > 0 { // an imported epoch may have no time
		w.Measured += epochs
		w.Seconds += epochs * seconds
	}
}

// Recorded returns the work of trials, as Predict needs it, from their recorded epochs.
func Recorded(trials []TrialState) []Work {
	list := make([]Work, len(trials))
	for i := range trials {
		t := &trials[i]
		w := Work{Trial: t.Trial, At: float64(t.Epoch)}
		for _, e := range t.History {
			w.Add(1, e)
		}
		list[i] = w
	}
	return list
}
