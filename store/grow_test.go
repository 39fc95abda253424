package store_test

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"igcsearch/search"
	"igcsearch/store"
)

// grown is a study with other settings, and its trials.
func grown(t testing.TB, s search.Study, change func(*search.Study)) (search.Study, []search.Trial) {
	t.Helper()
	change(&s)
	s, err := s.Normalize()
	if err != nil {
		t.Fatal(err)
	}
	return s, s.Trials(s.Shape())
}

// stand lists the trials of a study and those that are outside, with their epochs.
func stand(t testing.TB, db *store.DB, name string) (inside, outside string) {
	t.Helper()
	r, err := db.Read(t.Context(), name, store.Histories)
	if err != nil {
		t.Fatal(err)
	}
	line := func(trials []search.TrialState) string {
		var parts []string
		for _, tr := range trials {
			part := tr.Key.String()
			if len(tr.History) > 0 {
				part += " " + string(tr.Status)
			}
			parts = append(parts, part)
		}
		return strings.Join(parts, ", ")
	}
	return line(r.Trials), line(r.Outside)
}

func wantStand(t testing.TB, db *store.DB, name, inside, outside string) {
	t.Helper()
	if in, out := stand(t, db, name); in != inside || out != outside {
		t.Errorf("trials: %s\nwant:   %s\noutside: %s\nwant:    %s", in, inside, out, outside)
	}
}

// train trains a trial to its end.
func train(t testing.TB, db *store.DB, trial search.Trial) {
	t.Helper()
	claim := begin(t, db, trial)
	record(t, claim, 1, 2, 3)
	end(t, claim, search.Done, "")
}

func TestGrow(t *testing.T) {
	t.Parallel()
	t.Run("more seeds and pairs keep what is trained, and fewer do too", func(t *testing.T) {
		t.Parallel()
		db, _, s, trials := planned(t)
		train(t, db, trials[0]) // L40M2 seed 0
		train(t, db, trials[2]) // L40M2 seed 1
		more, all := grown(t, s, func(s *search.Study) {
			s.Seeds, s.Pairs = search.Seeds{1, 2}, []string{"40x2", "28x3"}
		})
		got, err := db.Plan(t.Context(), more, all)
		if err != nil || len(got) != 4 || got[0].Status != search.Done || got[0].Epoch != 3 {
			t.Fatalf("planned %+v, %v", got, err)
		}
		wantStand(t, db, s.Name, "L40M2 seed 1 done, L28M3 seed 1, L40M2 seed 2, L28M3 seed 2", "L40M2 seed 0 done")
		stored, err := readStudy(t.Context(), db, s.Name)
		if err != nil || string(stored.Settings()) != string(more.Settings()) {
			t.Errorf("stored %s, %v", stored.Settings(), err)
		}
		infos, err := db.Studies(t.Context())
		if err != nil || infos[0].Counts[search.Done] != 1 || infos[0].Counts[search.Pending] != 3 {
			t.Errorf("counted %v, %v", infos, err)
		}
		if attempts, err := readAttempts(t.Context(), db, s.Name); err != nil || len(attempts) != 1 {
			t.Errorf("%d attempts of the trials of the study, %v, want 1", len(attempts), err)
		}
		if _, err := db.Plan(t.Context(), s, trials); err != nil {
			t.Fatal(err)
		}
		wantStand(t, db, s.Name, "L40M2 seed 0 done, L64M1 seed 0, L40M2 seed 1 done, L64M1 seed 1", "")
	})
	t.Run("what is trained does not depend on the strategy, and what is shown not on the split", func(t *testing.T) {
		t.Parallel()
		db, _, s, trials := planned(t)
		train(t, db, trials[0])
		other, _ := grown(t, s, func(s *search.Study) { s.Strategy = search.StrategyRace })
		if _, err := db.Plan(t.Context(), other, trials); err != nil {
			t.Fatal(err)
		}
		wantStand(t, db, s.Name, "L40M2 seed 0 done, L64M1 seed 0, L40M2 seed 1, L64M1 seed 1", "")
		if stored, err := readStudy(t.Context(), db, s.Name); err != nil || stored.Strategy != search.StrategyRace {
			t.Errorf("stored %s, %v", stored.Settings(), err)
		}
	})
	t.Run("while others train, the study may grow and not shrink", func(t *testing.T) {
		t.Parallel()
		db, path, s, trials := planned(t)
		claim := begin(t, db, trials[3])
		record(t, claim, 1)
		second := open(t, path)
		more, all := grown(t, s, func(s *search.Study) { s.Seeds = search.FirstSeeds(3) })
		if got, err := second.Plan(t.Context(), more, all); err != nil || len(got) != 6 {
			t.Fatalf("planned %v, %v", got, err)
		}
		fewer, rest := grown(t, s, func(s *search.Study) { s.Pairs = []string{"64x1"} })
		_, err := second.Plan(t.Context(), fewer, rest)
		wantError(t, err, "process ", "trains trials of it now")
		if !errors.As(err, new(*store.BusyError)) {
			t.Errorf("%v is no BusyError", err)
		}
		record(t, claim, 2, 3)
		end(t, claim, search.Done, "")
		if _, err := second.Plan(t.Context(), fewer, rest); err != nil {
			t.Fatal(err)
		}
		wantStand(t, db, s.Name, "L64M1 seed 0, L64M1 seed 1 done", "")
	})
	t.Run("networks or seeds that leave nothing of what is trained are another study", func(t *testing.T) {
		t.Parallel()
		db, _, s, trials := planned(t)
		other, rest := grown(t, s, func(s *search.Study) { s.Variant = "Proj" })
		if _, err := db.Plan(t.Context(), other, rest); err != nil { // nothing is trained yet
			t.Fatal(err)
		}
		if _, err := db.Plan(t.Context(), s, trials); err != nil {
			t.Fatal(err)
		}
		train(t, db, trials[0])
		_, err := db.Plan(t.Context(), other, rest)
		var conflict *store.ConflictError
		if !errors.As(err, &conflict) || !strings.Contains(err.Error(), "  variant: not set there, Proj here\n") ||
			!strings.Contains(err.Error(), "none of the trials that are trained would stay in the study, 1") {
			t.Errorf("got %v", err)
		}
		wantStand(t, db, s.Name, "L40M2 seed 0 done, L64M1 seed 0, L40M2 seed 1, L64M1 seed 1", "")
	})
}

func TestBringGrown(t *testing.T) {
	t.Parallel()
	t.Run("a merge of different seeds and pairs has those of both, and what was outside", func(t *testing.T) {
		t.Parallel()
		var paths []string
		for _, change := range []func(*search.Study){
			func(s *search.Study) { s.Seeds = search.Seeds{5} },
			func(s *search.Study) { s.Seeds, s.Pairs = search.Seeds{0, 1}, []string{"28x3", "40x2"} },
		} {
			path := filepath.Join(t.TempDir(), "a.db")
			db := open(t, path)
			base, _ := newStudy(t, "quick")
			s, trials := grown(t, base, change)
			trials, err := db.Plan(t.Context(), s, trials)
			if err != nil {
				t.Fatal(err)
			}
			train(t, db, trials[len(trials)/4]) // L40M2 seed 5, L28M3 seed 0
			paths = append(paths, path)
			if len(trials) == 4 {
				train(t, db, trials[2]) // L40M2 seed 1, which leaves the study then
				s, trials = grown(t, base, func(s *search.Study) {
					s.Seeds, s.Pairs = search.Seeds{0}, []string{"28x3"}
				})
				if _, err := db.Plan(t.Context(), s, trials); err != nil {
					t.Fatal(err)
				}
			}
		}
		for _, order := range [][]string{{paths[0], paths[1]}, {paths[1], paths[0]}} {
			target := filepath.Join(t.TempDir(), "all.db")
			if err := merge(t, target, order...); err != nil {
				t.Fatal(err)
			}
			db := open(t, target)
			wantStand(t, db, "quick", "L40M2 seed 0, L28M3 seed 0 done, L64M1 seed 0, L40M2 seed 5 done, "+
				"L28M3 seed 5, L64M1 seed 5", "L40M2 seed 1 done")
			if s, err := readStudy(t.Context(), db, "quick"); err != nil || s.Seeds.String() != "[0, 5]" ||
				!slices.Equal(s.Pairs, []string{"64x1", "40x2", "28x3"}) {
				t.Errorf("seeds %v, pairs %v, %v", s.Seeds, s.Pairs, err)
			}
		}
	})
}

func TestDelete(t *testing.T) {
	t.Parallel()
	t.Run("a study goes with all that is stored of it, and no other one", func(t *testing.T) {
		t.Parallel()
		db, path, s, trials := planned(t)
		other, rest := newStudy(t, "other")
		rest, err := db.Plan(t.Context(), other, rest)
		if err != nil {
			t.Fatal(err)
		}
		train(t, db, trials[0])
		train(t, db, rest[0])
		execute(t, path, `INSERT INTO failure VALUES ((SELECT min(id) FROM trial), 'crashed', 1)`)
		if err := db.Delete(t.Context(), s.Name); err != nil {
			t.Fatal(err)
		}
		if _, err := db.Read(t.Context(), s.Name); !errors.Is(err, store.ErrNoStudy) {
			t.Errorf("read: %v", err)
		}
		wantStand(t, db, "other", "L40M2 seed 0 done, L64M1 seed 0, L40M2 seed 1, L64M1 seed 1", "")
		h, err := db.Examine(t.Context())
		if err != nil || len(h.Damage) > 0 || len(h.Findings) > 0 {
			t.Errorf("examined: %v %v %v", h.Damage, h.Findings, err)
		}
		if err := db.Delete(t.Context(), s.Name); !errors.Is(err, store.ErrNoStudy) {
			t.Errorf("deleted again: %v", err)
		}
		_, _, err = db.Poll(t.Context(), s.Name, 0) // as another process does that has planned it
		wantError(t, err, `read study "quick" in `, "renamed or deleted meanwhile")
		before, err := os.Stat(path)
		if err == nil {
			err = db.Vacuum(t.Context())
		}
		if after, e := os.Stat(path); err != nil || e != nil || after.Size() >= before.Size() && h.FreeBytes > 0 {
			t.Errorf("%v, %v: %d bytes before the vacuum, of which %d free", err, e, before.Size(), h.FreeBytes)
		}
	})
	t.Run("a study that is trained is neither deleted nor renamed", func(t *testing.T) {
		t.Parallel()
		db, path, s, trials := planned(t)
		claim := begin(t, db, trials[0])
		second := open(t, path)
		for _, err := range []error{second.Delete(t.Context(), s.Name), second.Rename(t.Context(), s.Name, "b")} {
			wantError(t, err, "process ", "trains trials of it now")
		}
		record(t, claim, 1)
	})
}

func TestRename(t *testing.T) {
	t.Parallel()
	t.Run("a study has its new name everywhere", func(t *testing.T) {
		t.Parallel()
		db, _, s, trials := planned(t)
		train(t, db, trials[0])
		if err := db.Rename(t.Context(), s.Name, "new"); err != nil {
			t.Fatal(err)
		}
		wantStand(t, db, "new", "L40M2 seed 0 done, L64M1 seed 0, L40M2 seed 1, L64M1 seed 1", "")
		renamed := s
		renamed.Name = "new"
		stored, err := readStudy(t.Context(), db, renamed.Name)
		if err != nil || string(stored.Settings()) != string(renamed.Settings()) {
			t.Errorf("settings %s, %v", stored.Settings(), err)
		}
		if got, err := db.Plan(t.Context(), renamed, trials); err != nil || got[0].Status != search.Done {
			t.Errorf("planned %v, %v", statuses(got), err)
		}
		if _, err := db.Plan(t.Context(), s, trials); err != nil { // the old name is free
			t.Fatal(err)
		}
		if err := db.Rename(t.Context(), "new", s.Name); !errors.Is(err, store.ErrExists) {
			t.Errorf("renamed to a name that is taken: %v", err)
		}
		if err := db.Rename(t.Context(), "none", "x"); !errors.Is(err, store.ErrNoStudy) {
			t.Errorf("renamed what is not there: %v", err)
		}
	})
}
