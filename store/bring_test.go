package store_test

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"slices"
	"sync"
	"testing"
	"time"

	"igcsearch/search"
	"igcsearch/space"
	"igcsearch/store"
)

// away is a study that is trained elsewhere, with the records of its trials there.
type away struct {
	s      search.Study
	trials []search.Trial
	list   []search.Record
}

func newAway(t testing.TB) *away {
	s, trials := newStudy(t, "quick")
	a := &away{s: s, trials: trials}
	for _, t := range trials {
		a.list = append(a.list, search.Record{TrialState: search.TrialState{Trial: t}})
	}
	return a
}

// attempt adds an attempt at trial i that trained some more epochs. salt makes results with other bits.
func (a *away) attempt(i, epochs int, ending search.Ending, salt int) {
	b := &a.list[i]
	began := time.UnixMilli(int64(1_000_000 * (i + 1) * (len(b.Attempts) + 1))).UTC()
	b.Attempts = append(b.Attempts, search.PastAttempt{Attempt: search.Attempt{Started: began, Host: "node",
		ISA: "avx2", Args: []string{}}, Token: fmt.Appendf(nil, "token of %03d %03d", i, len(b.Attempts)),
		Ended: began.Add(time.Second), Ending: ending})
	at := &b.Attempts[len(b.Attempts)-1]
	switch ending {
	case "done":
		b.Status = search.Done
	case "failed":
		b.Status, at.Failure, at.Message = search.Failed, search.FailedCrashed, "out of luck"
	case "":
		b.Status = search.Running
	case "lost", "interrupted":
		b.Status, at.Failure = search.Pending, search.Failure(ending)
	}
	b.Until = b.Epochs
	for range epochs {
		n := len(b.History) + 1
		b.History = append(b.History, search.Epoch{Number: n, LearningRate: 0.1, TrainLoss: 2, TrainCorrect: n + salt,
			TrainTotal: 64, ValidationLoss: math.Inf(1), TestLoss: 1 / float64(n)})
		b.By = append(b.By, len(b.Attempts)-1)
	}
	b.Checkpoints = nil
	for n := len(b.History); n > max(0, len(b.History)-2); n-- {
		b.Checkpoints = append(b.Checkpoints, search.Checkpoint{Epoch: n, State: state(n, 1000)})
	}
	b.Epoch = len(b.History)
}

// end ends the last attempt at trial i.
func (a *away) end(i int, ending search.Ending) {
	b := &a.list[i]
	b.Attempts[len(b.Attempts)-1].Ending = ending
	if b.Status = search.Pending; ending == "done" {
		b.Status = search.Done
	}
}

func (a *away) bring(db *store.DB, t testing.TB) ([]store.Brought, error) {
	return db.Bring(t.Context(), store.Source{Study: a.s, Trials: a.trials,
		Load: func(i int, states bool) (search.Record, error) {
			r := a.list[i]
			if !states {
				r.Checkpoints, r.Best = nil, nil
			}
			return r, nil
		}})
}

// must brings the records and returns which trials were taken, and which were left alone.
func (a *away) must(t testing.TB, db *store.DB) (taken, busy []int) {
	t.Helper()
	list, err := a.bring(db, t)
	if err != nil {
		t.Fatal(err)
	}
	for i, b := range list {
		if b.Taken {
			taken = append(taken, i)
		}
		if b.Busy {
			busy = append(busy, i)
		}
	}
	return taken, busy
}

func empty(t *testing.T) *store.DB { return open(t, t.TempDir()+"/a.db") }

func TestBring(t *testing.T) {
	t.Parallel()
	t.Run("brings all there is, and once", func(t *testing.T) {
		t.Parallel()
		db, a := empty(t), newAway(t)
		a.attempt(0, 3, "done", 0)
		a.attempt(1, 1, "lost", 0)
		a.attempt(1, 1, "", 0)
		a.attempt(2, 0, "failed", 0)
		if taken, _ := a.must(t, db); !slices.Equal(taken, []int{0, 1, 2}) {
			t.Errorf("taken %v", taken)
		}
		look := func() (string, []store.TrialAttempt) {
			t.Helper()
			trials, err1 := readTrials(t.Context(), db, "quick")
			epochs, err2 := readEpochs(t.Context(), db, "quick")
			attempts, err3 := readAttempts(t.Context(), db, "quick")
			updated, err4 := readUpdated(t.Context(), db, "quick")
			for _, err := range []error{err1, err2, err3, err4} {
				if err != nil {
					t.Fatal(err)
				}
			}
			return fmt.Sprintln(trials, epochs, updated), attempts
		}
		before, attempts := look()
		if taken, busy := a.must(t, db); len(taken)+len(busy) != 0 {
			t.Errorf("brought again: %v, %v", taken, busy)
		}
		if after, again := look(); after != before || len(again) != len(attempts) {
			t.Errorf("changed from\n%s\nto\n%s", before, after)
		}
		trials, _ := readTrials(t.Context(), db, "quick")
		if want := []search.Status{search.Done, search.Pending, search.Failed,
			search.Pending}; !slices.Equal(statuses(trials), want) || trials[2].Error != "out of luck" {
			t.Errorf("%v, %+v; want %v", statuses(trials), trials[2], want)
		}
		if last := trials[0].Last; !math.IsInf(last.ValidationLoss, 1) || last.TestLoss != 1.0/3 {
			t.Errorf("the last epoch %+v, want the losses +Inf and 1/3", last)
		}
		if len(attempts) != 4 || attempts[2].Ending != "interrupted" ||
			attempts[2].Message != "it was running there when it was brought" || attempts[2].Host != "node" {
			t.Errorf("%+v", attempts)
		}
		if h, err := db.Examine(t.Context()); err != nil || len(h.Findings) != 0 {
			t.Errorf("to repair: %q, %v", h.Findings, err)
		}
		// A local run goes on with what is not finished.
		turn, err := db.Begin(t.Context(), trials[1].ID, 3, search.Attempt{})
		if err != nil || turn.Note != "" || turn.From == nil || turn.From.Epoch != 2 ||
			!bytes.Equal(turn.From.State, state(2, 1000)) {
			t.Errorf("%+v, %v", turn, err)
		}
		record(t, turn, 3)
		end(t, turn, search.Done, "")
		a.attempt(3, 1, "interrupted", 0)
		if taken, _ := a.must(t, db); !slices.Equal(taken, []int{3}) { // what is further here stays
			t.Errorf("taken %v", taken)
		}
	})
	t.Run("of an attempt that was running knows the end later", func(t *testing.T) {
		t.Parallel()
		db, a := empty(t), newAway(t)
		a.attempt(0, 3, "", 0)
		a.must(t, db)
		a.end(0, "done")
		if taken, _ := a.must(t, db); !slices.Equal(taken, []int{0}) {
			t.Errorf("taken %v", taken)
		}
		attempts, err := readAttempts(t.Context(), db, "quick")
		if err != nil || len(attempts) != 1 || attempts[0].Ending != "done" || attempts[0].Failure != "" ||
			attempts[0].Message != "" {
			t.Errorf("%+v, %v", attempts, err)
		}
	})
}

func TestBringConflicts(t *testing.T) {
	t.Parallel()
	t.Run("refuses other results of the same trials, and stores nothing", func(t *testing.T) {
		t.Parallel()
		db, path, _, trials := planned(t)
		attempt := begin(t, db, trials[1])
		record(t, attempt, 1, 2)
		end(t, attempt, search.Pending, "")
		a := newAway(t)
		a.attempt(0, 3, "done", 0)
		a.attempt(1, 3, "done", 1)
		_, err := a.bring(db, t)
		wantError(t, err, "the same trials have other results, so nothing was stored",
			"L64M1 seed 0 (done after 3 epochs there, pending after 2 here, 2 of them different)")
		if epochs, err := readEpochs(t.Context(), open(t, path), "quick"); err != nil || len(epochs) != 2 {
			t.Errorf("%d epochs, %v", len(epochs), err)
		}
	})
	t.Run("what was trained anew there takes the place of what came from there", func(t *testing.T) {
		t.Parallel()
		db, a := empty(t), newAway(t)
		a.attempt(0, 2, "lost", 0)
		a.must(t, db)
		a.list[0].History, a.list[0].By = nil, nil
		a.attempt(0, 1, "", 5)
		a.must(t, db)
		trials, err := readTrials(t.Context(), db, "quick")
		if err != nil || trials[0].Epoch != 1 || trials[0].Last.TrainCorrect != 6 {
			t.Errorf("%+v, %v", trials[0], err)
		}
	})
	t.Run("refuses other results of the same attempts, of which one must be damaged", func(t *testing.T) {
		t.Parallel()
		db, a := empty(t), newAway(t)
		a.attempt(0, 3, "done", 0)
		a.must(t, db)
		a.list[0].History[1].TrainCorrect++
		_, err := a.bring(db, t)
		wantError(t, err, "(done after 3 epochs there, done after 3 here, 1 of them different)")
	})
	t.Run("does not undo that people asked for another try", func(t *testing.T) {
		t.Parallel()
		db, a := empty(t), newAway(t)
		a.attempt(0, 1, "failed", 0)
		a.must(t, db)
		again, err := db.Retry(t.Context(), "quick", []search.Status{search.Failed},
			func(space.System, int) bool { return true })
		if err != nil || len(again) != 1 {
			t.Fatalf("%v, %v", again, err)
		}
		a.must(t, db)
		if trials, err := readTrials(t.Context(), db, "quick"); err != nil || trials[0].Status != search.Pending ||
			trials[0].Epoch != 1 {
			t.Errorf("%+v, %v", trials[0], err)
		}
	})
}

// TestBringNothing: what is refused, or fails on the way, leaves the database without the study.
func TestBringNothing(t *testing.T) {
	t.Parallel()
	for name, bring := range map[string]func(*testing.T, *store.DB, *away) error{
		"refuses a record without its last epoch": func(t *testing.T, db *store.DB, a *away) error {
			a.attempt(1, 2, "done", 0)
			_, err := a.bring(db, t)
			return err
		},
		"fails on the way, where everything is one transaction": func(t *testing.T, db *store.DB, a *away) error {
			a.attempt(0, 3, "done", 0)
			a.attempt(1, 3, "done", 0)
			_, err := db.Bring(t.Context(), store.Source{Study: a.s, Trials: a.trials, Whole: true,
				Load: func(i int, states bool) (search.Record, error) {
					if states && i == 1 {
						r := a.list[i]
						r.Status = "unknown" // the schema refuses it
						return r, nil
					}
					return a.list[i], nil
				}})
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			db := empty(t)
			if err := bring(t, db, newAway(t)); err == nil {
				t.Fatal("no error")
			}
			if list, err := db.Studies(t.Context()); err != nil || len(list) > 0 {
				t.Errorf("studies %+v, %v", list, err)
			}
		})
	}
	t.Run("refuses other settings before it writes", func(t *testing.T) {
		t.Parallel()
		db, a := empty(t), newAway(t)
		a.attempt(0, 3, "done", 0)
		a.must(t, db)
		a.s.LearningRate *= 2
		_, err := a.bring(db, t)
		var conflict *store.ConflictError
		if !errors.As(err, &conflict) || len(conflict.Diff) != 1 {
			t.Errorf("got %v, want the difference in the learning rate", err)
		}
	})
}

// TestBringBeside brings results while others use the database.
func TestBringBeside(t *testing.T) {
	t.Parallel()
	t.Run("leaves trials alone that a run trains now", func(t *testing.T) {
		t.Parallel()
		db, path, _, trials := planned(t)
		attempt := begin(t, db, trials[0])
		other := open(t, path)
		a := newAway(t)
		a.attempt(0, 2, "lost", 0)
		a.attempt(1, 3, "done", 0)
		if taken, busy := a.must(t, other); !slices.Equal(taken, []int{1}) || !slices.Equal(busy, []int{0}) {
			t.Errorf("taken %v, left alone %v", taken, busy)
		}
		record(t, attempt, 1)
		end(t, attempt, search.Pending, "")
		if taken, busy := a.must(t, other); !slices.Equal(taken, []int{0}) || len(busy) != 0 {
			t.Errorf("taken %v, left alone %v", taken, busy)
		}
		again, err := db.Begin(t.Context(), trials[0].ID, 3, search.Attempt{})
		if err != nil || again.From.Epoch != 2 {
			t.Fatalf("%+v, %v", again, err)
		}
		record(t, again, 3)
		end(t, again, search.Done, "")
	})
	t.Run("several at once bring every attempt once", func(t *testing.T) {
		t.Parallel()
		path := t.TempDir() + "/a.db"
		a := newAway(t)
		for i := range 4 {
			a.attempt(i, 1, "lost", 0)
			a.attempt(i, 2, "done", 0)
		}
		var wg sync.WaitGroup
		for range 4 {
			db := open(t, path)
			wg.Go(func() {
				if _, err := a.bring(db, t); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		db := open(t, path)
		attempts, err1 := readAttempts(t.Context(), db, "quick")
		epochs, err2 := readEpochs(t.Context(), db, "quick")
		if err1 != nil || err2 != nil || len(attempts) != 8 || len(epochs) != 12 {
			t.Errorf("%d attempts, %d epochs, %v, %v", len(attempts), len(epochs), err1, err2)
		}
	})
	t.Run("leaves the settings of a study that is there as they are", func(t *testing.T) {
		t.Parallel()
		db := empty(t)
		s, trials := newStudy(t, "quick")
		s.KeepCheckpoints = true
		if _, err := db.Plan(t.Context(), s, trials); err != nil {
			t.Fatal(err)
		}
		a := newAway(t)
		a.s.KeepCheckpoints = false
		a.attempt(0, 3, "done", 0)
		a.must(t, db)
		c, err := db.Checkpoint(t.Context(), "quick", trials[0].Key)
		if err != nil || c == nil || c.Epoch != 3 {
			t.Errorf("%+v, %v: the run of this database keeps checkpoints", c, err)
		}
		other := *a
		other.s.Epochs = 4
		_, err = other.bring(db, t)
		if err == nil {
			t.Error("another study of the same name was brought")
		}
	})
}
