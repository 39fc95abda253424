package search_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"igcsearch/search"
	"igcsearch/search/strategy"
)

func TestGrid(t *testing.T) {
	t.Parallel()
	s, trials := study(t)
	var states []search.TrialState
	for i, tr := range trials {
		tr.Status = []search.Status{search.Pending, search.Running, search.Done, search.Failed, search.Diverged,
			search.Pending, search.Done, search.Done}[i]
		states = append(states, search.TrialState{Trial: tr})
	}
	grid, err := strategy.New(s)
	if err != nil {
		t.Fatal(err)
	}
	d := grid.Decide(s, states)
	if want := []search.Step{{Trial: 0, Until: 3}, {Trial: 5, Until: 3}}; !slices.Equal(d.Next, want) ||
		d.Reason != "" {
		t.Errorf("%+v, want %v", d, want)
	}
	if d = grid.Decide(s, states[1:5]); len(d.Next) != 0 || d.Reason == "" {
		t.Errorf("%+v, want a reason", d)
	}
	named := s
	named.Strategy = search.StrategyGrid
	if named = normal(t, named); named.Fingerprint() != s.Fingerprint() {
		t.Error("grid by name is another study")
	}
	named.Strategy = "guess"
	if _, err := named.Normalize(); err == nil || !strings.Contains(err.Error(), `strategy "guess": want grid`) {
		t.Errorf("error %v", err)
	}
}

func TestRunnerBudgets(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		set  func(*search.Study)
		want string
		left int
		most int // the largest number of epochs
	}{
		"epochs":       {func(s *search.Study) { s.MaxEpochs = 4 }, "max_epochs = 4 is reached", 7, 4},
		"trials":       {func(s *search.Study) { s.MaxTrials = 3 }, "max_trials = 3 is reached", 5, 9},
		"device-hours": {func(s *search.Study) { s.MaxDeviceHours = 5 }, "max_device_hours = 5 is reached", 7, 5},
		"wall time":    {func(s *search.Study) { s.MaxWallTime = "1ms" }, `max_wall_time = "1ms" is over`, 8, 1},
	} {
		t.Run(name+" stop a run at the end of an epoch, and a run without goes on", func(t *testing.T) {
			t.Parallel()
			s, trials := study(t)
			test.set(&s)
			s = normal(t, s)
			store := &fakeStore{}
			tr := trainerFunc(func(ctx context.Context, j search.Job, r search.Reporter) error {
				if name == "wall time" {
					time.Sleep(2 * time.Millisecond)
				}
				return fakeTrainer{steps: 1}.Train(ctx, j, hours{r})
			})
			sum, err := (&search.Runner{Store: store, Trainer: tr}).Run(t.Context(), s, strategyOf(s), trials)
			if err != nil || sum.Reason != test.want || !sum.Stopped || sum.Left != test.left {
				t.Errorf("got %+v, %v", sum, err)
			}
			epochs := 0
			for _, n := range store.epochs {
				epochs += n
			}
			if epochs > test.most || name != "wall time" && epochs != test.most {
				t.Errorf("%d epochs, want %d", epochs, test.most)
			}
			s.MaxEpochs, s.MaxTrials, s.MaxDeviceHours, s.MaxWallTime = 0, 0, 0, ""
			sum, err = (&search.Runner{Store: store, Trainer: fakeTrainer{steps: 1}}).Run(t.Context(), s, strategyOf(s),
				trials)
			if err != nil || counts(sum) != (search.Summary{Done: 8}) || sum.Stopped {
				t.Errorf("going on: %+v, %v", sum, err)
			}
			if slices.ContainsFunc(store.epochs, func(n int) bool { return n != 3 }) {
				t.Errorf("recorded epochs %v, want each once", store.epochs)
			}
		})
	}
}

// hours reports epochs that took an hour.
type hours struct{ search.Reporter }

func (h hours) Epoch(e search.Epoch, c search.Checkpoint) error {
	e.TrainSeconds = 3600
	return h.Reporter.Epoch(e, c)
}

func TestRunnerFailures(t *testing.T) {
	t.Parallel()
	t.Run("a trial that crashed is tried again from where it was", func(t *testing.T) {
		t.Parallel()
		s, trials := study(t)
		store := &fakeStore{}
		var mu sync.Mutex
		crashes := 0
		tr := fakeTrainer{steps: 1, at: func(_ context.Context, j search.Job, e, _ int) error {
			mu.Lock()
			defer mu.Unlock()
			if e == 2 && j.Seed == 0 && j.System == trials[0].System && crashes == 0 {
				crashes++
				return errors.New("a passing fault")
			}
			return nil
		}}
		sum, err := (&search.Runner{Store: store, Trainer: tr}).Run(t.Context(), s, strategyOf(s), trials)
		if err != nil || counts(sum) != (search.Summary{Done: 8}) || len(store.attempts) != 9 || store.epochs[0] != 3 {
			t.Errorf("got %+v, %v, attempts %v, epochs %v", sum, err, store.attempts, store.epochs)
		}
	})
	t.Run("failures in a row of the same kind stop the run", func(t *testing.T) {
		t.Parallel()
		s, trials := study(t)
		store := &fakeStore{}
		tr := fakeTrainer{steps: 1, at: func(_ context.Context, j search.Job, _, _ int) error {
			return fmt.Errorf("seed %d: the device is gone", j.Seed)
		}}
		sum, err := (&search.Runner{Store: store, Trainer: tr}).Run(t.Context(), s, strategyOf(s), trials)
		if !errors.Is(err, search.ErrAlike) ||
			!strings.Contains(err.Error(), "5 trainings in a row failed in the same way") ||
			!strings.Contains(err.Error(), "the device is gone: fix the cause") ||
			len(store.attempts) != 5 || sum.Failed != 2 {
			t.Errorf("got %+v, %v after %d attempts", sum, err, len(store.attempts))
		}
	})
}

func TestRunnerTimeLimit(t *testing.T) {
	t.Parallel()
	t.Run("an attempt has a time limit, and the run goes on without a trainer that hangs", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, timeLimit) // time stands still while the other trials train
	})
	t.Run("an interrupted run does not wait for a trainer that hangs", func(t *testing.T) {
		t.Parallel()
		s, trials := study(t)
		ctx, cancel := context.WithCancel(t.Context())
		hang := make(chan struct{})
		defer close(hang)
		store := &fakeStore{}
		tr := fakeTrainer{steps: 1, at: func(context.Context, search.Job, int, int) error {
			cancel()
			<-hang
			return nil
		}}
		sum, err := (&search.Runner{Store: store, Trainer: tr, Grace: time.Millisecond}).Run(ctx, s, strategyOf(s),
			trials)
		if !errors.Is(err, context.Canceled) || sum.Left != 8 || store.trials[0].Status != search.Pending {
			t.Errorf("got %+v, %v, %+v", sum, err, store.trials[0])
		}
	})
}

func timeLimit(t *testing.T) {
	s, trials := study(t)
	s.TrialTimeLimit = "1s"
	hang := make(chan struct{})
	defer close(hang)
	store := &fakeStore{}
	var notes []string
	tr := fakeTrainer{steps: 1, at: func(ctx context.Context, j search.Job, e, _ int) error {
		switch {
		case j.System == trials[0].System && j.Seed == 0:
			<-ctx.Done()
			return ctx.Err()
		case j.System == trials[0].System && j.Seed == 1:
			<-hang
			return errors.New("too late")
		}
		return nil
	}}
	r := search.Runner{Store: store, Trainer: tr, Workers: 2, Grace: 500 * time.Millisecond,
		Notify: func(e search.Event) {
			if e.Kind == search.Noted {
				notes = append(notes, e.Note)
			}
		}}
	sum, err := r.Run(t.Context(), s, strategyOf(s), trials)
	if err != nil || counts(sum) != (search.Summary{Done: 6, Failed: 2}) || len(store.attempts) != 10 {
		t.Fatalf("got %+v, %v after %d attempts", sum, err, len(store.attempts))
	}
	for seed, want := range []string{`the attempt took longer than its time limit: trial_time_limit = "1s"`,
		`the attempt took longer than its time limit: trial_time_limit = "1s"; ` +
			`the trainer did not return, and the run goes on without it`} {
		i := slices.IndexFunc(store.trials, func(t search.Trial) bool {
			return t.System == trials[0].System && t.Seed == seed
		})
		if got := store.trials[i]; got.Error != want || got.Failure != search.FailedTimeout {
			t.Errorf("it is %+v", got)
		}
	}
	if len(notes) != 2 || notes[0] != "its trainer did not stop within 500ms; the run goes on without it" {
		t.Errorf("notes %q", notes)
	}
}

// TestRunnersShare checks that several runners with one store train each trial once.
func TestRunnersShare(t *testing.T) {
	t.Parallel()
	s, trials := study(t)
	store := &fakeStore{shared: true}
	if _, err := store.Plan(t.Context(), s, trials); err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for range 3 {
		wg.Go(func() {
			tr := fakeTrainer{steps: 1, at: func(context.Context, search.Job, int, int) error {
				time.Sleep(time.Millisecond)
				return nil
			}}
			sum, err := (&search.Runner{Store: store, Trainer: tr, Workers: 2, Wait: time.Millisecond}).Run(t.Context(),
				s, strategyOf(s), trials)
			if err != nil || counts(sum) != (search.Summary{Done: 8}) {
				t.Errorf("got %+v, %v", sum, err)
			}
		})
	}
	wg.Wait()
	if len(store.attempts) != 8 || slices.ContainsFunc(store.epochs, func(n int) bool { return n != 3 }) {
		t.Errorf("%d attempts, epochs %v, want each trial once", len(store.attempts), store.epochs)
	}
}

// TestRunnerLate checks that a worker leaves a trial to another process that has continued it, and
// trains other trials.
func TestRunnerLate(t *testing.T) {
	t.Parallel()
	s, trials := study(t)
	inner := &fakeStore{}
	store := &lateStore{fakeStore: inner}
	sum, err := (&search.Runner{Store: store, Trainer: fakeTrainer{steps: 1}, Wait: time.Millisecond}).Run(t.Context(),
		s, strategyOf(s), trials)
	if err != nil || counts(sum) != (search.Summary{Done: 8}) || inner.epochs[0] != 0 {
		t.Errorf("got %+v, %v, epochs %v", sum, err, inner.epochs)
	}
}

// lateStore lets another process finish the first trial during its first epoch.
type lateStore struct{ *fakeStore }

func (s *lateStore) Begin(ctx context.Context, trial int64, until int, a search.Attempt) (search.Claim, error) {
	claim, err := s.fakeStore.Begin(ctx, trial, until, a)
	if trial == 1 {
		claim.Handle = lateAttempt{claim.Handle, s}
	}
	return claim, err
}

type lateAttempt struct {
	search.Handle
	s *lateStore
}

func (a lateAttempt) Record(context.Context, search.Epoch, search.Checkpoint) error {
	a.s.mu.Lock()
	defer a.s.mu.Unlock()
	a.s.trials[0].Status, a.s.trials[0].Epoch = search.Done, 3
	a.s.stored(1)
	return fmt.Errorf("record: %w", search.ErrSuperseded)
}
