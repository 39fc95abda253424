package search

import "igcsearch/space"

// Work is a trial as Predict sees it.
type Work struct {
	Trial Trial
	// At are the epochs done, with the part of the one in flight.
	At float64
	// Of Measured epochs it is known that they took Seconds, evaluation included;
	// both are 0 if nothing is known. They need not be whole epochs.
	Measured, Seconds float64
}

// Forecast says how far a study is, and how long the rest takes.
type Forecast struct {
	// Share of the work that is done, in [0, 1], by multiply–adds × epochs.
	Share float64
	// Seconds until the last trial ends, if Known. A Strategy may want less than
	// all trials.
	Seconds float64
	Known   bool
}

// Predict is the one estimate of the time that a study still takes, with so many
// workers. It is not known before something was measured: what passes before the
// first step, for reading pictures and building networks, says nothing of the steps.
//
// An epoch of a trial takes as long as those of its network did, or if there are none
// as those of all others, by multiply–adds. The end is when all workers together
// have done what is left, but not before the longest trial is through.
func Predict(trials []Work, workers int) Forecast {
	type pace struct{ cost, seconds float64 } // multiply–adds × epochs
	var all pace
	of := map[space.System]pace{}
	var done, total float64
	for i := range trials {
		w := &trials[i]
		size := float64(w.Trial.MultiplyAdds)
		whole := size * float64(w.Trial.Epochs)
		total += whole
		if w.Trial.Status.Finished() {
			done += whole // of one that diverged nothing is left
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
	f := Forecast{Share: 1} // there may be no work at all
	if total > 0 {
		f.Share = done / total
	}
	var sum, longest float64
	left := false
	for i := range trials {
		w := &trials[i]
		if w.Trial.Status.Finished() || w.Trial.Status == Failed { // a run leaves what failed
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

// Add takes note of an epoch, or of so many that took as long.
func (w *Work) Add(epochs float64, e Epoch) {
	if seconds := e.TrainSeconds + e.EvalSeconds; seconds > 0 { // those of an imported epoch may be unknown
		w.Measured += epochs
		w.Seconds += epochs * seconds
	}
}

// Recorded is what Predict knows of trials by their recorded epochs.
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
