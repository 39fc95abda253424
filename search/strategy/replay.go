package strategy

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"

	"igcsearch/search"
	"igcsearch/space"
)

// Replayed says what a strategy would have found in a recorded study, and how much it would have
// trained.
type Replayed struct {
	Begun  int // the number of trials that would have begun
	Epochs int // the number of epochs that would have been trained
	Answer
	// Truth is the mean accuracy of the answer's network over all recorded trials, in [0, 1].
	Truth float64
	// Regret is how far Truth lies below that of the best network, ≥ 0. It is 0 if the strategy has
	// found the best network.
	Regret float64
	// Claim says that the strategy claims of its answer to be within search.Peak.Margin of the best.
	Claim  bool
	Reason string              // one line that says why the search ended
	State  []search.TrialState // the trials at the end of the search
}

// ReplayOptions say how a replay is run.
type ReplayOptions struct {
	// Workers is the number of trials that run at once. Each trains an epoch in the same time. A
	// number below 1 counts as 1.
	Workers int
	// Epochs is the largest number of epochs to train. 0 means no bound.
	Epochs int
}

// UnfinishedError says that a recorded trial has no result.
type UnfinishedError struct {
	search.Key
	Status search.Status
}

func (e *UnfinishedError) Error() string {
	return fmt.Sprintf("%v has no result (%s): a replay needs every trial", e.Key, e.Status)
}

// UnrecordedError says that a strategy asks for an epoch that the record leaves out.
type UnrecordedError struct {
	search.Key
	Epoch int
}

func (e *UnrecordedError) Error() string {
	return fmt.Sprintf("%v: epoch %d is not recorded", e.Key, e.Epoch)
}

// Replay runs a strategy over a study and takes the results of all trials from a record instead of
// training them. It leaves out trials whose seeds the study s does not have, except in Truth and
// Regret. It returns an UnfinishedError if a recorded trial has no result, and an UnrecordedError if
// the strategy stops a trial after an epoch that is not recorded.
func Replay(strategy search.Strategy, s search.Study, recorded []search.TrialState, o ReplayOptions) (Replayed, error) {
	if len(recorded) == 0 {
		return Replayed{}, errors.New("nothing is recorded")
	}
	for _, t := range recorded {
		if !t.Status.Finished() {
			return Replayed{}, &UnfinishedError{t.Key, t.Status}
		}
	}
	r := replay{strategy: strategy, study: s, options: o}
	for _, t := range recorded {
		if slices.Contains(s.Seeds, t.Seed) {
			r.recorded = append(r.recorded, t)
			t.Status, t.Epoch, t.Last, t.History, t.Error = search.Pending, 0, search.Epoch{}, nil, ""
			r.now = append(r.now, t)
		}
	}
	for {
		if err := r.begin(); err != nil {
			return r.Replayed, err
		}
		if len(r.running) == 0 {
			break
		}
		r.advance()
	}
	r.Answer, r.State = FindAnswer(s, r.now), r.now
	if own, ok := strategy.(interface {
		answer(search.Study, []search.TrialState) (Answer, bool)
	}); ok {
		r.Answer, r.Claim = own.answer(s, r.now)
	}
	means := map[space.System]float64{}
	for _, a := range networks(recorded) {
		means[a.system], _ = a.mean(recorded, s.DecidingSplit(), len(a.trials), s.Epochs)
	}
	if r.Answer.Trials > 0 {
		r.Truth = means[r.Answer.System]
		r.Regret = means[FindAnswer(s, recorded).System] - r.Truth
	}
	return r.Replayed, nil
}

// replay is a replay that runs. Its clock counts epochs.
type replay struct {
	Replayed
	strategy      search.Strategy
	study         search.Study
	options       ReplayOptions
	recorded, now []search.TrialState // the trials with their results, and their present state
	running       []replayJob
	clock         int
}

// replayJob is a trial, by its index, that runs up to an epoch and ends at a time.
type replayJob struct{ trial, until, ends int }

// begin gives the free workers the trials that the strategy wants.
func (r *replay) begin() error {
	for free := max(1, r.options.Workers) - len(r.running); free > 0; {
		d := r.strategy.Decide(r.study, r.now)
		r.Reason = d.Reason
		if len(d.Next) == 0 {
			return nil
		}
		for _, step := range d.Next[:min(free, len(d.Next))] {
			t := &r.now[step.Trial]
			if t.Status != search.Pending || step.Until <= t.Epoch {
				return fmt.Errorf("the strategy wants %v, which is %s at epoch %d, trained until epoch %d",
					t.Key, t.Status, t.Epoch, step.Until)
			}
			until, full := min(step.Until, r.study.Epochs), &r.recorded[step.Trial]
			isUntil := func(e search.Epoch) bool { return e.Number == until }
			if until <= full.Epoch && !slices.ContainsFunc(full.History, isUntil) {
				return &UnrecordedError{t.Key, until}
			}
			if full.Status == search.Diverged {
				until = min(until, full.Epoch+1)
			}
			if most := r.options.Epochs; most > 0 && r.Epochs+until-t.Epoch > most {
				r.Reason = fmt.Sprintf("the bound of %d epochs is reached", most)
				return nil
			}
			if t.Epoch == 0 {
				r.Begun++
			}
			r.Epochs += until - t.Epoch
			r.running = append(r.running, replayJob{step.Trial, step.Until, r.clock + until - t.Epoch})
			t.Status, t.Until = search.Running, until
			free--
		}
	}
	return nil
}

// advance moves the clock to the next time at which trials end, and ends them.
func (r *replay) advance() {
	r.clock = r.running[0].ends
	for _, j := range r.running {
		r.clock = min(r.clock, j.ends)
	}
	r.running = slices.DeleteFunc(r.running, func(j replayJob) bool {
		if j.ends == r.clock {
			goBack(&r.now[j.trial], &r.recorded[j.trial], j.until)
		}
		return j.ends == r.clock
	})
}

// goBack sets t to the state of the recorded trial full after an epoch.
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

// Shuffle returns the recorded trials with the seeds exchanged, the same for all networks,
// and with the networks in another order. A replay of them stands for another run of the study.
func Shuffle(recorded []search.TrialState, rng *rand.Rand) []search.TrialState {
	var seeds []int
	for _, t := range recorded {
		if !slices.Contains(seeds, t.Seed) {
			seeds = append(seeds, t.Seed)
		}
	}
	slices.Sort(seeds)
	other := map[int]int{}
	for i, k := range rng.Perm(len(seeds)) {
		other[seeds[i]] = seeds[k]
	}
	all := networks(recorded)
	rng.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
	var list []search.TrialState
	for _, a := range all {
		for _, i := range a.trials {
			t := recorded[i]
			t.Seed = other[t.Seed]
			list = append(list, t)
		}
	}
	return list
}

// Random returns a strategy to compare others with. It trains one network after the other with all
// its seeds, in the given order. After Shuffle this order is random.
func Random() search.Strategy { return random{} }

type random struct{}

func (random) Decide(s search.Study, trials []search.TrialState) search.Decision {
	var d search.Decision
	for _, a := range networks(trials) {
		d.Next = append(d.Next, a.train(trials, len(s.Seeds), s.Epochs)...)
	}
	if len(d.Next) == 0 {
		d.Reason = "all networks are trained"
	}
	return d
}
