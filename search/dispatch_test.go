package search_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"igcsearch/search"
)

// begin returns a Dispatch of a study whose trial 1 has one epoch, which took some seconds on
// "avx2".
func begin(t *testing.T, seconds float64) (*fakeStore, *search.Dispatch, search.Worker) {
	s, trials := study(t)
	store := &fakeStore{isa: map[int64]string{1: "avx2"}}
	if _, err := store.Plan(t.Context(), s, trials); err != nil {
		t.Fatal(err)
	}
	claim, err := store.Begin(t.Context(), 1, 3, search.Attempt{})
	if err == nil {
		err = claim.Record(t.Context(), search.Epoch{Number: 1, TrainSeconds: seconds}, search.Checkpoint{Epoch: 1})
	}
	if err == nil {
		_, err = claim.End(t.Context(), search.Outcome{Status: search.Pending})
	}
	if err != nil {
		t.Fatal(err)
	}
	d, err := search.NewDispatch(t.Context(), store, s, strategyOf(s), trials, nil)
	if err != nil {
		t.Fatal(err)
	}
	return store, d, search.Worker{Beginner: store}
}

// claims asks for claims until there are no more, and returns the IDs of their trials.
func claims(t *testing.T, d *search.Dispatch, w search.Worker, ask search.Ask) (ids []int64, err error) {
	for {
		c, _, err := d.Claim(t.Context(), w, ask)
		if c == nil {
			return ids, err
		}
		ids = append(ids, c.Trial.ID)
	}
}

// TestDispatchWaits: what a worker asks is old by the time it is answered. The others that it counted may have ended,
// but a trial that was put back for want of memory is not lost for that.
func TestDispatchWaits(t *testing.T) {
	t.Parallel()
	_, d, w := begin(t, 1)
	list := mustClaim(t, d, w)
	for i, c := range list {
		o := search.Outcome{Status: search.Done}
		if i == 0 {
			o = search.Outcome{Status: search.Failed, Failure: search.FailedMemory, Retries: 1, Most: 1}
		}
		if _, err := c.End(t.Context(), o); err != nil {
			t.Fatal(err)
		}
	}
	if c, _, err := d.Claim(t.Context(), w, search.Ask{Beside: 1}); c != nil || err != nil {
		t.Errorf("beside one that has just ended: %v, %v, want to wait", c, err)
	}
	if c, _, err := d.Claim(t.Context(), w, search.Ask{}); c == nil || c.Trial.ID != list[0].Trial.ID || err != nil {
		t.Errorf("alone: %v, %v", c, err)
	}
}

// TestDispatch checks which trials a Dispatch gives to different workers.
func TestDispatch(t *testing.T) {
	t.Parallel()
	t.Run("only a worker with the same arithmetic continues a trial", func(t *testing.T) {
		t.Parallel()
		_, d, w := begin(t, 1)
		w.ISA = "avx512"
		if ids, err := claims(t, d, w, search.Ask{}); len(ids) != 7 || ids[0] != 2 || err != nil {
			t.Errorf("avx512 gets %v, %v", ids, err)
		}
		w.ISA = "avx2"
		if ids, err := claims(t, d, w, search.Ask{}); len(ids) != 1 || ids[0] != 1 || err != nil {
			t.Errorf("avx2 gets %v, %v", ids, err)
		}
	})
	t.Run("a worker does not wait for trials of another arithmetic if no other worker trains", func(t *testing.T) {
		t.Parallel()
		_, d, w := begin(t, 1)
		w.ISA = "avx512"
		for _, id := range mustClaim(t, d, w) {
			if _, err := id.End(t.Context(), search.Outcome{Status: search.Done}); err != nil {
				t.Fatal(err)
			}
		}
		_, _, err := d.Claim(t.Context(), w, search.Ask{})
		if !errors.Is(err, search.ErrOver) || !strings.Contains(err.Error(),
			"wait for a worker with their arithmetic: 1 ") {
			t.Errorf("%v", err)
		}
		if over, _, err := d.Over(t.Context()); over || err != nil {
			t.Errorf("over: %v, %v", over, err)
		}
	})
	t.Run("a trial whose next epoch would not end in time does not begin", func(t *testing.T) {
		t.Parallel()
		_, d, w := begin(t, 10)
		// The other trials have no epoch yet. Their time follows from that of trial 1 by their
		// multiply–adds, so smaller networks take less.
		short, err := claims(t, d, w, search.Ask{Left: time.Second})
		if len(short) > 0 || !errors.Is(err, search.ErrOver) ||
			!strings.Contains(err.Error(), "wait for a worker with more time: 8 ") {
			t.Errorf("with a second %v, %v", short, err)
		}
		some, err := claims(t, d, w, search.Ask{Left: 9990 * time.Millisecond})
		if len(some) == 0 || len(some) == 8 || slices.Contains(some, 1) || !errors.Is(err, search.ErrOver) {
			t.Errorf("with ten, nearly %v, %v", some, err)
		}
		if rest, err := claims(t, d, w, search.Ask{Left: time.Hour}); len(some)+len(rest) != 8 || rest[0] != 1 ||
			err != nil {
			t.Errorf("with an hour %v, %v", rest, err)
		}
	})
	t.Run("the study is over when no trial runs and none is wanted", func(t *testing.T) {
		t.Parallel()
		store, d, w := begin(t, 1)
		list := mustClaim(t, d, w)
		for i, c := range list {
			if over, _, err := d.Over(t.Context()); over || err != nil {
				t.Fatalf("over after %d: %v", i, err)
			}
			if _, err := c.End(t.Context(), search.Outcome{Status: search.Done}); err != nil {
				t.Fatal(err)
			}
		}
		if over, reason, err := d.Over(t.Context()); !over || reason != "all 8 trials have ended" || err != nil {
			t.Errorf("%v, %q, %v", over, reason, err)
		}
		if _, _, err := d.Claim(t.Context(), w, search.Ask{}); !errors.Is(err, search.ErrOver) {
			t.Error(err)
		}
		// A user asks to try trial 4 again.
		store.mu.Lock()
		store.trials[3].Status = search.Pending
		store.stored(4)
		store.mu.Unlock()
		if c, _, err := d.Claim(t.Context(), w, search.Ask{}); c == nil || c.Trial.ID != 4 {
			t.Errorf("%v, %v", c, err)
		}
	})
}

// mustClaim asks for claims until there are no more.
func mustClaim(t *testing.T, d *search.Dispatch, w search.Worker) (list []*search.Claim) {
	t.Helper()
	for {
		c, _, err := d.Claim(t.Context(), w, search.Ask{})
		if err != nil {
			t.Fatal(err)
		}
		if c == nil {
			return list
		}
		list = append(list, c)
	}
}

// TestRunnerGivesBack checks how a run ends while trials train.
func TestRunnerGivesBack(t *testing.T) {
	t.Parallel()
	s, trials := study(t)
	t.Run("a run that drains gives trials back after their epoch", func(t *testing.T) {
		t.Parallel()
		store, drain := &fakeStore{}, make(chan struct{})
		tr := fakeTrainer{steps: 2, at: func(_ context.Context, _ search.Job, epoch, step int) error {
			if epoch == 2 && step == 0 {
				close(drain)
			}
			return nil
		}}
		sum, err := (&search.Runner{Store: store, Trainer: tr, Drain: drain}).Run(t.Context(), s, strategyOf(s), trials)
		if err != nil || sum.Left != 8 || store.epochs[0] != 2 || len(store.attempts) != 1 ||
			store.trials[0].Status != search.Pending {
			t.Errorf("%+v, %v: %d epochs in %d attempts, %+v", sum, err, store.epochs[0], len(store.attempts),
				store.trials[0])
		}
		// After its last epoch a trial is done, and not given back.
		store, drain = &fakeStore{}, make(chan struct{})
		tr.at = func(_ context.Context, _ search.Job, epoch, step int) error {
			if epoch == 3 && step == 1 {
				close(drain)
			}
			return nil
		}
		if sum, err := (&search.Runner{Store: store, Trainer: tr, Drain: drain}).Run(t.Context(), s, strategyOf(s),
			trials); err != nil || sum.Done != 1 || sum.Left != 7 {
			t.Errorf("%+v, %v", sum, err)
		}
	})
	t.Run("a trial is given back if its next epoch would end after the deadline", func(t *testing.T) {
		t.Parallel()
		store := &fakeStore{}
		tr := trainerFunc(func(ctx context.Context, j search.Job, r search.Reporter) error {
			return fakeTrainer{steps: 1}.Train(ctx, j, hours{r})
		})
		sum, err := (&search.Runner{Store: store, Trainer: tr, Deadline: time.Now().Add(time.Minute)}).Run(t.Context(),
			s, strategyOf(s), trials)
		if err != nil || sum.Left != 8 || store.epochs[0] != 1 || len(store.attempts) != 1 {
			t.Errorf("%+v, %v: %v epochs in %d attempts", sum, err, store.epochs, len(store.attempts))
		}
	})
}
