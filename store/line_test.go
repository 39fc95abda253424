package store_test

import (
	"context"
	"errors"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"igcsearch/search"
	"igcsearch/space"
)

// TestLine lets many wait to write: attempts begin before epochs are stored, and nobody waits for one who gives up.
func TestLine(t *testing.T) {
	t.Parallel()
	db := open(t, filepath.Join(t.TempDir(), "a.db"))
	const trials = 20 // begun; as many more are not
	s := search.Default()
	s.Name, s.Pairs, s.Seeds = "many", []string{"4x2"}, search.FirstSeeds(2*trials)
	planned, err := db.Plan(t.Context(), s, s.Trials(space.Shape{C: 3, H: 8, W: 8}, 10))
	if err != nil {
		t.Fatal(err)
	}
	var attempts []search.Claim
	for _, p := range planned[:trials] {
		attempts = append(attempts, begin(t, db, p))
	}
	_, moment, err := db.Poll(t.Context(), s.Name, 0)
	if err != nil {
		t.Fatal(err)
	}
	release, err := db.Hold(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	waiting := 0
	join := func(f func()) {
		waiting++
		ended := make(chan struct{})
		wg.Go(func() {
			defer close(ended)
			f()
		})
		for db.Waiting() < waiting {
			select {
			case <-ended:
				t.Fatal("a write did not wait")
			case <-time.After(time.Millisecond):
			}
		}
	}
	for i := range trials {
		join(func() {
			own := t.Context()
			if i%4 == 0 {
				own = ctx
			}
			err := attempts[i].Record(own, search.Epoch{Number: 1, TestCorrect: i, TestTotal: trials},
				search.Checkpoint{Epoch: 1, State: state(1, 100)})
			if errors.Is(err, context.Canceled) && i%4 == 0 {
				return
			}
			if err != nil {
				t.Error(err)
			}
		})
	}
	for _, p := range planned[trials:] {
		join(func() {
			if _, err := db.Begin(t.Context(), p.ID, p.Epochs, search.Attempt{}); err != nil {
				t.Error(err)
			}
		})
	}
	cancel()
	for db.Waiting() > waiting-trials/4 {
		time.Sleep(time.Millisecond)
	}
	release()
	wg.Wait()
	// Changes are counted in the order in which they were stored.
	late, _, err := db.Poll(t.Context(), s.Name, moment+trials)
	if err != nil || len(late) != trials-trials/4 {
		t.Errorf("%d trials changed behind the turns, want the %d of the epochs: %v", len(late), trials-trials/4, err)
	}
	for _, l := range late {
		if l.Epoch != 1 {
			t.Errorf("seed %d began behind an epoch", l.Seed)
		}
	}
}
