package store_test

import (
	"math"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"igcsearch/search"
	"igcsearch/store"
)

// measured makes a database with the first trial of the study "quick", whose
// epochs have these losses of the test pictures.
func measured(t *testing.T, losses ...float64) (path string, s search.Study, trials []search.Trial) {
	t.Helper()
	db, path, s, trials := planned(t)
	attempt := begin(t, db, trials[0])
	for i, loss := range losses {
		e := search.Epoch{Number: i + 1, TrainLoss: 2, TestCorrect: 1, TestTotal: 2, TestLoss: loss}
		if err := attempt.Record(t.Context(), e, search.Checkpoint{Epoch: i + 1}); err != nil {
			t.Fatal(err)
		}
	}
	end(t, attempt, search.Pending, "")
	db.Close()
	return path, s, trials
}

func TestMergeLosses(t *testing.T) {
	t.Parallel()
	third := 1.0 / 3
	for _, test := range []struct {
		name              string
		first, then, want []float64
	}{
		{"keeps those that only the first has, which is further on", []float64{third, math.Inf(1), 2},
			[]float64{0, 0}, []float64{third, math.Inf(1), 2}},
		{"keeps those that only the first has, which is less far on", []float64{third, math.Inf(1)},
			[]float64{0, 0, 0}, []float64{third, math.Inf(1), 0}},
		{"takes those that only the second has, which is less far on", []float64{0, 0, 0},
			[]float64{third, math.Inf(1)}, []float64{third, math.Inf(1), 0}},
		{"takes those that only the second has, which is further on", []float64{0, 0},
			[]float64{third, math.Inf(1), 2}, []float64{third, math.Inf(1), 2}},
		{"has them where both have the same", []float64{third, 1}, []float64{third, 1, 2}, []float64{third, 1, 2}},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			a, s, _ := measured(t, test.first...)
			b, _, _ := measured(t, test.then...)
			target := filepath.Join(t.TempDir(), "all.db")
			if err := merge(t, target, a, b); err != nil {
				t.Fatal(err)
			}
			db := open(t, target)
			defer db.Close()
			epochs, err := readEpochs(t.Context(), db, s.Name)
			if err != nil || len(epochs) != len(test.want) {
				t.Fatalf("%d epochs (%v), want %d", len(epochs), err, len(test.want))
			}
			for i, e := range epochs {
				if e.TestLoss != test.want[i] || e.TestCorrect != 1 {
					t.Errorf("epoch %d: loss %g, %d right, want %g, 1", e.Number, e.TestLoss, e.TestCorrect,
						test.want[i])
				}
			}
		})
	}
	t.Run("refuses those that differ in one bit", func(t *testing.T) {
		t.Parallel()
		a, _, _ := measured(t, 1, third)
		b, _, _ := measured(t, 1, math.Nextafter(third, 1))
		target := filepath.Join(t.TempDir(), "all.db")
		wantError(t, merge(t, target, a, b), "the same trials have other results, so nothing was stored",
			"1 of them different")
	})
}

// TestMergeCopies merges a database and an older copy of it, in both orders.
func TestMergeCopies(t *testing.T) {
	t.Parallel()
	db, path, _, trials := planned(t)
	attempt := begin(t, db, trials[0])
	record(t, attempt, 1)
	older := filepath.Join(t.TempDir(), "older.db")
	if err := db.Snapshot(t.Context(), older); err != nil {
		t.Fatal(err)
	}
	record(t, attempt, 2, 3)
	end(t, attempt, search.Done, "")
	db.Close()
	for _, sources := range [][]string{{path, older}, {older, path}} {
		target := filepath.Join(t.TempDir(), "all.db")
		if err := merge(t, target, sources...); err != nil {
			t.Fatal(err)
		}
		r, err := open(t, target).Read(t.Context(), "quick", store.Attempts)
		if err != nil || r.Trials[0].Status != search.Done || r.Trials[0].Epoch != 3 ||
			len(r.Attempts) != 1 || r.Attempts[0].Ending != search.EndedDone || r.Attempts[0].Message != "" {
			t.Errorf("merged %v: %+v, %+v, %v", sources, r.Trials[0].Trial.Status, r.Attempts, err)
		}
	}
}

// merge brings the study "quick" of several databases into a new one.
func merge(t *testing.T, target string, sources ...string) error {
	db := open(t, target)
	defer db.Close()
	for _, path := range sources {
		source, err := store.OpenReadOnly(t.Context(), path)
		if err != nil {
			t.Fatal(err)
		}
		defer source.Close()
		from, err := source.Source(t.Context(), "quick")
		if err != nil {
			t.Fatal(err)
		}
		if _, err := db.Bring(t.Context(), from); err != nil {
			return err
		}
	}
	return nil
}

func TestImportLosses(t *testing.T) {
	t.Parallel()
	path, s, trials := measured(t, 1, 2)
	db := open(t, path)
	defer db.Close()
	bring := func(losses ...float64) error {
		r := search.Record{TrialState: search.TrialState{Trial: trials[0]},
			Attempts: []search.PastAttempt{{Ending: search.EndedInterrupted}}}
		for i, loss := range losses {
			r.By = append(r.By, 0)
			r.History = append(r.History, search.Epoch{Number: i + 1, TrainLoss: 2, TestCorrect: 1, TestTotal: 2,
				TestLoss: loss})
		}
		r.Status = search.Pending
		_, err := db.Bring(t.Context(), store.Source{Study: s, Trials: trials[:1],
			Load: func(int, bool) (search.Record, error) { return r, nil }})
		return err
	}
	if err := bring(1, 2); err != nil {
		t.Errorf("the same losses: %v", err)
	}
	if err := bring(0, 0); err != nil {
		t.Errorf("an export without losses: %v", err)
	}
	if err := bring(1, math.Nextafter(2, 3)); err == nil ||
		!strings.Contains(err.Error(), "the same trials have other results") {
		t.Errorf("losses that differ in one bit: %v", err)
	}
}

// Attempts at imported results have no token, and keep having none in the database that they are merged into.
func TestMergeImported(t *testing.T) {
	t.Parallel()
	db, path, s, trials := planned(t)
	record := search.Record{TrialState: search.TrialState{Trial: trials[0],
		History: []search.Epoch{{Number: 1, TrainLoss: 2}}}, By: []int{0},
		Attempts: []search.PastAttempt{{Attempt: search.Attempt{Started: time.Now()}, Ended: time.Now(),
			Ending: search.EndedInterrupted}}}
	load := func(i int, _ bool) (search.Record, error) {
		if i == 0 {
			return record, nil
		}
		return search.Record{TrialState: search.TrialState{Trial: trials[i]}}, nil
	}
	if _, err := db.Bring(t.Context(), store.Source{Study: s, Trials: trials, Load: load, Whole: true}); err != nil {
		t.Fatal(err)
	}
	db.Close()
	target := filepath.Join(t.TempDir(), "all.db")
	if err := merge(t, target, path); err != nil {
		t.Fatal(err)
	}
	attempts, err := readAttempts(t.Context(), open(t, target), s.Name)
	if err != nil || len(attempts) != 1 || len(attempts[0].Token) != 0 {
		t.Errorf("attempts %+v, %v", attempts, err)
	}
}
