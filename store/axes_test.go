package store_test

import (
	"errors"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"igcsearch/search"
	"igcsearch/store"
)

// tuned adds learning rates to a study of the rate 0.1, whose list they are.
func tuned(rates ...float64) func(*search.Study) {
	return func(s *search.Study) { s.Axes = s.Axes.With("learning_rate", rates) }
}

// wantConflict checks that an error is a *store.ConflictError with a difference.
func wantConflict(t *testing.T, err error, difference string) {
	t.Helper()
	if c, ok := errors.AsType[*store.ConflictError](err); !ok || !slices.Contains(c.Diff, difference) {
		t.Errorf("got %v, want a conflict with %q", err, difference)
	}
}

func TestGrowAxes(t *testing.T) {
	t.Parallel()
	t.Run("one value grows to a list, and its trials stay", func(t *testing.T) {
		t.Parallel()
		db, path, s, trials := planned(t)
		train(t, db, trials[0]) // L40M2 seed 0
		claim := begin(t, db, trials[1])
		record(t, claim, 1)

		more, all := grown(t, s, tuned(0.05, 0.1))
		other := open(t, path) // while the first process trains
		got, err := other.Plan(t.Context(), more, all)
		if err != nil || len(got) != 8 {
			t.Fatalf("planned %v, %v", got, err)
		}
		record(t, claim, 2) // its worker does not notice
		if c, err := db.Checkpoint(t.Context(), s.Name, trials[1].Key); err == nil {
			t.Errorf("a trial of the old key has the checkpoint %v", c)
		}
		key := s.KeyAlong(trials[1].Key, more.Axes)
		if c, err := db.Checkpoint(t.Context(), s.Name, key); err != nil || c == nil || c.Epoch != 2 {
			t.Errorf("the checkpoint of %v: %v, %v", key, c, err)
		}
		record(t, claim, 3)
		end(t, claim, search.Done, "")
		wantStand(t, db, s.Name, strings.Join([]string{
			"L40M2 learning_rate 0.05 seed 0", "L40M2 learning_rate 0.1 seed 0 done",
			"L64M1 learning_rate 0.05 seed 0", "L64M1 learning_rate 0.1 seed 0 done",
			"L40M2 learning_rate 0.05 seed 1", "L40M2 learning_rate 0.1 seed 1",
			"L64M1 learning_rate 0.05 seed 1", "L64M1 learning_rate 0.1 seed 1"}, ", "), "")
		stored, err := readStudy(t.Context(), db, s.Name)
		if err != nil || string(stored.Settings()) != string(more.Settings()) {
			t.Errorf("stored %s, %v", stored.Settings(), err)
		}
		state, _, err := db.Poll(t.Context(), s.Name, 0)
		if err != nil || len(state) != 8 {
			t.Fatalf("%d trials, %v", len(state), err)
		}
		for _, trial := range state {
			if rate, _ := trial.At.Value("learning_rate"); trial.Status == search.Done && rate != 0.1 {
				t.Errorf("%v is done", trial.Key)
			}
		}

		// The list may shrink to other values, and what is left out is kept.
		fewer, rest := grown(t, more, tuned(0.1, 0.2))
		if _, err := db.Plan(t.Context(), fewer, rest); err != nil {
			t.Fatal(err)
		}
		inside, outside := stand(t, db, s.Name)
		if !strings.HasPrefix(inside, "L40M2 learning_rate 0.1 seed 0 done, L40M2 learning_rate 0.2 seed 0") || outside != "" {
			t.Errorf("trials: %s; outside: %s", inside, outside)
		}
	})
	t.Run("a list that became a value again is refused", func(t *testing.T) {
		t.Parallel()
		db, _, s, _ := planned(t)
		more, all := grown(t, s, tuned(0.05, 0.1))
		if _, err := db.Plan(t.Context(), more, all); err != nil {
			t.Fatal(err)
		}
		_, err := db.Plan(t.Context(), s, s.Trials(s.Shape()))
		wantConflict(t, err, "learning_rate: a list there, 0.1 here")
	})
	t.Run("a list without the value of what is trained is refused", func(t *testing.T) {
		t.Parallel()
		db, _, s, trials := planned(t)
		train(t, db, trials[0])
		more, all := grown(t, s, tuned(0.05, 0.2))
		_, err := db.Plan(t.Context(), more, all)
		wantConflict(t, err, "with these, none of the trials that are trained would stay in the study, 1")
		wantStand(t, db, s.Name, "L40M2 seed 0 done, L64M1 seed 0, L40M2 seed 1, L64M1 seed 1", "")
	})
	t.Run("other settings are refused all the same", func(t *testing.T) {
		t.Parallel()
		db, _, s, _ := planned(t)
		more, all := grown(t, s, func(s *search.Study) {
			tuned(0.05, 0.1)(s)
			s.Momentum = 0.5
		})
		_, err := db.Plan(t.Context(), more, all)
		wantConflict(t, err, "momentum: 0.9 there, 0.5 here")
	})
}

// Databases of studies that have one value, and lists of several settings, are merged in any order.
func TestMergeAxes(t *testing.T) {
	t.Parallel()
	var paths []string
	for _, change := range []func(*search.Study){
		func(*search.Study) {},
		tuned(0.1, 0.2),
		func(s *search.Study) { s.Axes = s.Axes.With("weight_decay", []float64{0, 1e-4}) },
	} {
		db, path, s, _ := planned(t)
		same, all := grown(t, s, change)
		planned, err := db.Plan(t.Context(), same, all)
		if err != nil {
			t.Fatal(err)
		}
		for _, trial := range planned {
			if trial.Seed == 0 {
				train(t, db, trial)
			}
		}
		db.Close()
		paths = append(paths, path)
	}
	for _, order := range [][]int{{0, 1, 2}, {2, 1, 0}, {1, 0, 2}, {1, 2, 0}} {
		target := filepath.Join(t.TempDir(), "all.db")
		if err := merge(t, target, paths[order[0]], paths[order[1]], paths[order[2]]); err != nil {
			t.Fatalf("order %v: %v", order, err)
		}
		db := open(t, target)
		r, err := db.Read(t.Context(), "quick")
		if err != nil {
			t.Fatal(err)
		}
		done := map[search.Point]int{}
		for _, trial := range r.Trials {
			if trial.Status == search.Done {
				done[trial.At]++
			}
		}
		// The values of both lists are crossed; the trainings of the three databases are 0.1 with both decays, and 0.2.
		if len(r.Trials) != 16 || len(done) != 3 || done["learning_rate=0.1,weight_decay=0.0001"] != 2 ||
			done["learning_rate=0.2,weight_decay=0.0001"] != 2 || done["learning_rate=0.1,weight_decay=0"] != 2 {
			t.Errorf("order %v: %d trials, done %v", order, len(r.Trials), done)
		}
		if findings, err := db.Examine(t.Context()); err != nil || len(findings.Findings) > 0 {
			t.Errorf("order %v: %v, %v", order, findings, err)
		}
		db.Close()
	}
}
