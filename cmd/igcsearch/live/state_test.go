package live

import (
	"slices"
	"testing"
	"time"

	"igcsearch/cmd/igcsearch/report"
	"igcsearch/search"
	"igcsearch/space"
	"igcsearch/store"
)

// TestHours checks that the time of a GPU counts once for the trials that share it,
// and once for each process.
func TestHours(t *testing.T) {
	t.Parallel()
	at := func(minutes int) time.Time { return time.Unix(1e9, 0).Add(time.Duration(minutes) * time.Minute) }
	attempt := func(device string, pid, from, to int) store.TrialAttempt {
		var a store.TrialAttempt
		a.Device, a.Host, a.PID, a.Started = device, "h", pid, at(from)
		if to > 0 {
			a.Ended = at(to)
		}
		return a
	}
	r := report.Results{Updated: at(180), Attempts: []store.TrialAttempt{
		attempt("G", 1, 0, 60), attempt("G", 1, 30, 90), attempt("G", 1, 40, 50), // 90 min
		attempt("G", 1, 120, 180),                      // 60 min
		attempt("G", 2, 0, 30), attempt("G", 2, 60, 0), // 30 + 120 min, until 180
		attempt("cpu", 3, 0, 600),
	}}
	r.Trials = []search.TrialState{{History: []search.Epoch{{TrainSeconds: 7000, EvalSeconds: 200}}}}
	got := hours(r)
	want := []Hours{{Amount: "2.0", Of: "training, beside other work"}, {Amount: "5.0", Of: "GPU, G"}}
	if !slices.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
}

// TestBest: the page has the probabilities of analyze as soon as a network has two results, and none before.
func TestBest(t *testing.T) {
	t.Parallel()
	r := report.Results{}
	r.Study.Split = search.SplitTest
	r.Study.Systems = []string{"IGC-L4M2", "RegConv-W8"}
	for i, correct := range []int{60, 62, 10, 0} {
		trial := search.Trial{Key: search.Key{Seed: i % 2}, Status: search.Done}
		trial.System.Depth = 8 + i/2
		trial.Last = search.Epoch{TestCorrect: correct, TestTotal: 100}
		if i == 3 {
			trial.Status = search.Running
		}
		r.Trials = append(r.Trials, search.TrialState{Trial: trial})
	}
	s := StudyOf(r)
	if s.Networks[0].Best != ">99 %" || s.Networks[1].Best != "<1 %" || s.Model == "" {
		t.Errorf("%q, %+v", s.Model, s.Networks)
	}
	r.Trials[1].Status = search.Running
	if s := StudyOf(r); s.Model != "" || s.Networks[0].Best != "" {
		t.Errorf("of one result each: %q, %+v", s.Model, s.Networks)
	}
}

// TestDiverged: a search that ends because all trials that it wanted have diverged has not stopped.
func TestDiverged(t *testing.T) {
	t.Parallel()
	var r report.Results
	r.Study.Split, r.Study.Strategy, r.Study.Epochs = search.SplitTest, search.StrategyPeak, 3
	r.Study.Seeds, r.Study.Peak.Systems = search.FirstSeeds(3), 64
	for seed := range 3 {
		trial := search.Trial{Key: search.Key{System: space.PairSystem(space.Pair{L: 9, M: 2}), Seed: seed},
			Status: search.Pending, Epochs: 3}
		if seed == 0 {
			trial.Status = search.Diverged
		}
		r.Trials = append(r.Trials, search.TrialState{Trial: trial})
	}
	r.Attempts = make([]store.TrialAttempt, 1)
	if got := StudyOf(r).Status; got != "done" {
		t.Errorf("the study is %s, want done", got)
	}
}

// TestInterruptions: processes that were killed are no failures.
func TestInterruptions(t *testing.T) {
	t.Parallel()
	var r report.Results
	for i, ending := range []search.Ending{search.EndedLost, search.EndedInterrupted, search.EndedFailed,
		search.EndedLost, search.EndedInterrupted, search.EndedDiverged, search.EndedDone} {
		a := store.TrialAttempt{}
		a.Ending, a.Seed = ending, i%2
		if i == 4 {
			a.Message = "its trainer did not return"
		}
		r.Attempts = append(r.Attempts, a)
	}
	outcomes := func(list []Failure) (names []string) {
		for _, f := range list {
			names = append(names, f.Outcome)
		}
		return names
	}
	if got, want := outcomes(failures(r, false)), []string{"diverged", "failed"}; !slices.Equal(got, want) {
		t.Errorf("failures %v, want %v", got, want)
	}
	if got, want := outcomes(failures(r, true)), []string{"put back", "lost", "lost"}; !slices.Equal(got, want) {
		t.Errorf("interruptions %v, want %v", got, want)
	}
	const want = "4 attempts were interrupted, and their trials were taken up again, which changes no result"
	if got := r.TakenUp(); got != want {
		t.Errorf("%q, want %q", got, want)
	}
}
