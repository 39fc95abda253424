package strategy

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"

	"igcsearch/search"
	"igcsearch/space"
)

// Replayed is what a strategy would have spent on a study, and found.
type Replayed struct {
	Begun  int // trials
	Epochs int // trained
	Answer
	// Truth is the mean accuracy of Answer's network over all recorded trials.
	Truth float64
	// Regret is how far Truth lies below the best network's, ≥ 0; 0 if the
	// answer is grid's.
	Regret float64
	Reason string              // why it ended, one line
	State  []search.TrialState // the trials as they stood then
}

// ReplayOptions say how a replay is run.
type ReplayOptions struct {
	Workers int // trials at once, each an epoch in the same time; below 1 counts as 1
	// Epochs bounds what is trained; 0 is no bound.
	Epochs int
}

// Replay runs a strategy over a study of which every trial is recorded, in place
// of training. Trials of seeds beyond those of s are left out: the study is
// replayed as if it had fewer, but Truth is the mean of them all. It returns an
// error if a trial has no result.
func Replay(strategy search.Strategy, s search.Study, recorded []search.TrialState, o ReplayOptions) (Replayed, error) {
	if len(recorded) == 0 {
		return Replayed{}, errors.New("nothing is recorded")
	}
	for _, t := range recorded {
		if !t.Status.Finished() {
			return Replayed{}, fmt.Errorf("%v has no result (%s): a replay needs every trial; export the study (csv, "+
				"--epochs --times), import it with --set strategy=grid --set name=NEW, and run that to its end", t.Key,
				t.Status)
		}
	}
	type job struct{ trial, until, ends int }
	var r Replayed
	all := recorded
	recorded = slices.DeleteFunc(slices.Clone(all), func(t search.TrialState) bool { return t.Seed >= s.Seeds })
	now := slices.Clone(recorded)
	for i := range now {
		now[i].Status, now[i].Epoch, now[i].Last, now[i].History, now[i].Error = search.Pending, 0, search.Epoch{}, nil,
			""
	}
	var running []job
	clock := 0
	for {
		bounded := false
		for free := max(1, o.Workers) - len(running); free > 0; {
			d := strategy.Decide(s, now)
			r.Reason = d.Reason
			if len(d.Next) == 0 {
				break
			}
			for _, step := range d.Next[:min(free, len(d.Next))] {
				t := &now[step.Trial]
				if t.Status != search.Pending || step.Until <= t.Epoch {
					return r, fmt.Errorf("the strategy wants %v, which is %s at epoch %d, trained until epoch %d",
						t.Key, t.Status, t.Epoch, step.Until)
				}
				until := min(step.Until, s.Epochs)
				if full := &recorded[step.Trial]; full.Status == search.Diverged {
					until = min(until, full.Epoch+1)
				}
				if o.Epochs > 0 && r.Epochs+until-t.Epoch > o.Epochs {
					bounded = true
					break
				}
				if t.Epoch == 0 {
					r.Begun++
				}
				r.Epochs += until - t.Epoch
				running = append(running, job{step.Trial, step.Until, clock + until - t.Epoch})
				t.Status = search.Running
				free--
			}
			if bounded {
				r.Reason = fmt.Sprintf("the bound of %d epochs is reached", o.Epochs)
				break
			}
		}
		if len(running) == 0 {
			break
		}
		clock = running[0].ends
		for _, j := range running {
			clock = min(clock, j.ends)
		}
		running = slices.DeleteFunc(running, func(j job) bool {
			if j.ends == clock {
				goBack(&now[j.trial], &recorded[j.trial], j.until)
			}
			return j.ends == clock
		})
	}
	r.Answer, r.State = FindAnswer(s, now), now
	means := map[space.System]float64{}
	for _, a := range networks(all) {
		means[a.system], _ = a.mean(all, s.DecidingSplit(), len(a.trials), s.Epochs)
	}
	if r.Answer.Trials > 0 {
		r.Truth = means[r.Answer.System]
		r.Regret = means[FindAnswer(s, all).System] - r.Truth
	}
	return r, nil
}

// goBack makes t the recorded trial as it stood after an epoch.
func goBack(t, full *search.TrialState, epoch int) {
	*t = *full
	if epoch >= full.Epochs || full.Status == search.Diverged && epoch > full.Epoch {
		return
	}
	n := len(full.History)
	for n > 0 && full.History[n-1].Number > epoch {
		n--
	}
	t.Status, t.Epoch, t.History, t.Error, t.Last = search.Pending, epoch, full.History[:n:n], "", search.Epoch{}
	if n > 0 {
		t.Last = full.History[n-1]
	}
}

// Shuffle returns the recorded trials with their seeds numbered anew, for all
// networks alike, and the networks in another order: the same record as another
// run of the study might have met it.
func Shuffle(recorded []search.TrialState, rng *rand.Rand) []search.TrialState {
	seeds := 0
	for _, t := range recorded {
		seeds = max(seeds, t.Seed+1)
	}
	number := rng.Perm(seeds)
	all := networks(recorded)
	rng.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
	var list []search.TrialState
	for _, a := range all {
		for _, i := range a.trials {
			t := recorded[i]
			t.Seed = number[t.Seed]
			list = append(list, t)
		}
	}
	return list
}

// Random is what strategies are compared with: networks in the order given,
// which Shuffle makes a random one, each with all its seeds.
func Random() search.Strategy { return random{} }

type random struct{}

func (random) Decide(s search.Study, trials []search.TrialState) search.Decision {
	var d search.Decision
	for _, a := range networks(trials) {
		d.Next = append(d.Next, a.train(trials, s.Seeds, s.Epochs)...)
	}
	if len(d.Next) == 0 {
		d.Reason = "all networks are trained"
	}
	return d
}
