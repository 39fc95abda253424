package store_test

import (
	"bytes"
	"database/sql"
	"errors"
	"fmt"
	"math"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"igcsearch/search"
	"igcsearch/space"
	"igcsearch/store"
)

// newStudy has two pairs and two seeds, four trials of three epochs. It does not keep checkpoints of finished trials.
func newStudy(t testing.TB, name string) (search.Study, []search.Trial) {
	t.Helper()
	s := search.Default()
	s.Name, s.Title, s.Dataset = name, "two pairs", "synthetic"
	s.Pairs, s.Seeds, s.Epochs = []string{"40x2", "64x1"}, search.FirstSeeds(2), 3
	s.KeepCheckpoints = false
	s, err := s.Normalize()
	if err != nil {
		t.Fatal(err)
	}
	return s, s.Trials(s.Shape())
}

func open(t testing.TB, path string) *store.DB {
	t.Helper()
	db, err := store.Open(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	return db
}

// planned is a new database with a planned study.
func planned(t testing.TB) (db *store.DB, path string, s search.Study, trials []search.Trial) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "study.db")
	db = open(t, path)
	s, trials = newStudy(t, "quick")
	trials, err := db.Plan(t.Context(), s, trials)
	if err != nil {
		t.Fatal(err)
	}
	return db, path, s, trials
}

func begin(t testing.TB, db *store.DB, trial search.Trial) search.Claim {
	t.Helper()
	claim, err := db.Begin(t.Context(), trial.ID, trial.Epochs, search.Attempt{Started: time.Now()})
	if err != nil {
		t.Fatal(err)
	}
	return claim
}

// state is a checkpoint's state whose content tells its epoch.
func state(epoch, size int) []byte {
	return bytes.Repeat([]byte{byte(epoch), byte(epoch >> 8)}, size/2)
}

func record(t testing.TB, attempt search.Claim, epochs ...int) {
	t.Helper()
	for _, n := range epochs {
		e := search.Epoch{Number: n, LearningRate: 0.1, TrainLoss: 2, TrainCorrect: n, TrainTotal: 64}
		if err := attempt.Record(t.Context(), e, search.Checkpoint{Epoch: n, State: state(n, 1000)}); err != nil {
			t.Fatal(err)
		}
	}
}

func end(t testing.TB, attempt search.Claim, s search.Status, message string) {
	t.Helper()
	o := search.Outcome{Status: s, Message: message}
	switch s {
	case search.Failed:
		o.Failure = search.FailedCrashed
	case search.Diverged:
		o.Failure = search.FailedDiverged
	case search.Pending:
		o.Failure = search.FailedInterrupted
	}
	if got, err := attempt.End(t.Context(), o); err != nil || got != s {
		t.Fatalf("%s: ended as %s, %v", s, got, err)
	}
}

// execute changes a database file behind the store's back.
func execute(t testing.TB, path, statement string) {
	t.Helper()
	pool, err := sql.Open("sqlite3", path)
	if err != nil {
		t.Fatal(err)
	}
	defer pool.Close()
	if _, err := pool.Exec(statement); err != nil {
		t.Fatal(err)
	}
}

// wantError checks that err has every part and is one line.
// lockOut holds SQLite's lock of those who write, until release is called.
func lockOut(t testing.TB, path string) (release func()) {
	t.Helper()
	pool, err := sql.Open("sqlite3", path+"?_busy_timeout=20000&_txlock=immediate")
	must(t, err)
	tx, err := pool.Begin()
	must(t, err)
	return func() {
		tx.Rollback()
		pool.Close()
	}
}

func wantError(t *testing.T, err error, parts ...string) {
	t.Helper()
	if err == nil {
		t.Fatalf("no error, want one with %q", parts)
	}
	for _, part := range parts {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("error %q\nlacks %q", err, part)
		}
	}
	if strings.Contains(err.Error(), "\n") {
		t.Errorf("error is not one line: %q", err)
	}
}

func statuses(trials []search.Trial) []search.Status {
	var s []search.Status
	for _, t := range trials {
		s = append(s, t.Status)
	}
	return s
}

func TestPlan(t *testing.T) {
	t.Parallel()
	t.Run("stores every trial as pending and returns them in the order given", func(t *testing.T) {
		t.Parallel()
		db := open(t, filepath.Join(t.TempDir(), "a.db"))
		s, given := newStudy(t, "quick")
		slices.Reverse(given) // no order that the store could come by itself
		got, err := db.Plan(t.Context(), s, given)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(given, got, cmpopts.IgnoreFields(search.Trial{}, "ID")); diff != "" {
			t.Errorf("given (-) and planned (+):\n%s", diff)
		}
		stored, err := readTrials(t.Context(), db, "quick")
		slices.Reverse(stored) // they are read in the order of the study
		if diff := cmp.Diff(got, stored); err != nil || diff != "" {
			t.Errorf("planned (-) and stored (+): %v\n%s", err, diff)
		}
		slices.Reverse(given)
		again, err := db.Plan(t.Context(), s, given)
		if err != nil {
			t.Fatal(err)
		}
		slices.Reverse(again)
		if diff := cmp.Diff(got, again); diff != "" {
			t.Errorf("planned first (-) and again in another order (+):\n%s", diff)
		}
	})
	t.Run("lets the title change, and says updated only for a change", func(t *testing.T) {
		t.Parallel()
		db, _, s, trials := planned(t)
		before, err := readUpdated(t.Context(), db, s.Name)
		if err != nil {
			t.Fatal(err)
		}
		replan := func() (search.Study, time.Time) {
			t.Helper()
			time.Sleep(3 * time.Millisecond) // times are stored in ms
			if _, err := db.Plan(t.Context(), s, trials); err != nil {
				t.Fatal(err)
			}
			stored, err1 := readStudy(t.Context(), db, s.Name)
			after, err2 := readUpdated(t.Context(), db, s.Name)
			if err1 != nil || err2 != nil {
				t.Fatal(err1, err2)
			}
			return stored, after
		}
		if _, after := replan(); !after.Equal(before) {
			t.Errorf("updated moved from %v to %v though nothing changed", before, after)
		}
		s.Title = "another title"
		if stored, after := replan(); stored.Title != s.Title || !after.After(before) {
			t.Errorf("title %q, updated %v; want %q, after %v", stored.Title, after, s.Title, before)
		}
	})
	t.Run("takes no trial from a process that is running", func(t *testing.T) {
		t.Parallel()
		db, path, s, trials := planned(t)
		attempt := begin(t, db, trials[0])
		got, err := open(t, path).Plan(t.Context(), s, trials)
		if err != nil || got[0].Status != search.Running {
			t.Errorf("planned %v, %v", statuses(got), err)
		}
		record(t, attempt, 1) // still its own
	})
}

func TestPlanRefuses(t *testing.T) {
	t.Parallel()
	t.Run("refuses other settings under the same name and lists the differences", func(t *testing.T) {
		t.Parallel()
		db, path, s, trials := planned(t)
		other := s
		other.Epochs, other.LearningRate = 20, 0.05
		_, err := db.Plan(t.Context(), other, trials)
		want := `study "quick" is stored in ` + path + ` with other settings:
  epochs: 3 there, 20 here
  learning_rate: 0.1 there, 0.05 here`
		var conflict *store.ConflictError
		if !errors.As(err, &conflict) || err.Error() != want {
			t.Errorf("error %v\nwant  %s", err, want)
		}
		if stored, err := readStudy(t.Context(), db, "quick"); err != nil || stored.Epochs != 3 {
			t.Errorf("stored are %d epochs (%v), want 3", stored.Epochs, err)
		}
	})
	t.Run("refuses a study that was stored with settings it does not know", func(t *testing.T) {
		t.Parallel()
		db, path, s, trials := planned(t)
		execute(t, path, `UPDATE study
			SET fingerprint = printf('%064d', 0), settings = json_set(settings, '$.unheard', 1)`)
		_, err := db.Plan(t.Context(), s, trials)
		if err == nil || !strings.Contains(err.Error(), "settings that this version of igcsearch does not have") {
			t.Errorf("error %v", err)
		}
	})
	t.Run("refuses a trial planned twice, and stores nothing", func(t *testing.T) {
		t.Parallel()
		db := open(t, filepath.Join(t.TempDir(), "a.db"))
		s, trials := newStudy(t, "quick")
		_, err := db.Plan(t.Context(), s, append(trials, trials[0]))
		wantError(t, err, "planned twice", "a.db")
		if infos, err := db.Studies(t.Context()); err != nil || len(infos) != 0 {
			t.Errorf("studies %v (%v), want none", infos, err)
		}
	})
}

// TestPlanAgain plans a study after the process that trained it was killed.
func TestPlanAgain(t *testing.T) {
	t.Parallel()
	t.Run("takes up what a process that is gone left running, and leaves alone what failed", func(t *testing.T) {
		t.Parallel()
		db, path, s, trials := planned(t)
		killed, failed, done, diverged := begin(t, db, trials[0]), begin(t, db, trials[1]), begin(t, db, trials[2]),
			begin(t, db, trials[3])
		record(t, killed, 1, 2)
		end(t, failed, search.Failed, "out of luck")
		record(t, done, 1, 2, 3)
		end(t, done, search.Done, "")
		end(t, diverged, search.Diverged, "epoch 1, step 3: the loss is not finite")
		db.Close()

		db = open(t, path)
		got, err := db.Plan(t.Context(), s, trials)
		if err != nil {
			t.Fatal(err)
		}
		if want := []search.Status{search.Pending, search.Failed, search.Done,
			search.Diverged}; !slices.Equal(statuses(got), want) {
			t.Errorf("statuses %v, want %v", statuses(got), want)
		}
		if got[0].Epoch != 2 || got[0].Last.TrainCorrect != 2 || got[1].Error != "out of luck" ||
			got[1].Failure != search.FailedCrashed {
			t.Errorf("the killed trial is %+v and the failed one %+v, want epoch 2 and its error", got[0], got[1])
		}
		attempts, err := readAttempts(t.Context(), db, s.Name)
		if err != nil {
			t.Fatal(err)
		}
		var outcomes []search.Ending
		for _, a := range attempts {
			outcomes = append(outcomes, a.Ending)
		}
		if want := []search.Ending{"lost", "failed", "done", "diverged"}; !slices.Equal(outcomes, want) {
			t.Errorf("outcomes %v, want %v", outcomes, want)
		}
	})
}

func TestBegin(t *testing.T) {
	t.Parallel()
	t.Run("returns the newest checkpoint, nil at first", func(t *testing.T) {
		t.Parallel()
		db, _, _, trials := planned(t)
		turn, err := db.Begin(t.Context(), trials[0].ID, 3, search.Attempt{})
		if err != nil || turn.From != nil {
			t.Fatalf("checkpoint %v (%v), want none", turn.From, err)
		}
		record(t, turn, 1, 2)
		if states := poll(t, db, "quick"); states[0].Until != 3 || states[1].Until != 0 {
			t.Errorf("trials are trained until %d and %d, want 3 and 0", states[0].Until, states[1].Until)
		}
		end(t, turn, search.Pending, "")
		if until := poll(t, db, "quick")[0].Until; until != 0 {
			t.Errorf("a pending trial is trained until %d", until)
		}
		next, err := db.Begin(t.Context(), trials[0].ID, 3, search.Attempt{})
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(&search.Checkpoint{Epoch: 2, State: state(2, 1000)}, next.From); diff != "" ||
			next.ID == turn.ID || next.Note != "" {
			t.Errorf("attempt %d after %d, %q, want (-) got (+):\n%s", next.ID, turn.ID, next.Note, diff)
		}
	})
	t.Run("refuses a trial that is running, finished or unknown", func(t *testing.T) {
		t.Parallel()
		db, _, _, trials := planned(t)
		attempt := begin(t, db, trials[0])
		_, err := db.Begin(t.Context(), trials[0].ID, 3, search.Attempt{})
		wantError(t, err, "it is running, want pending")
		if !errors.Is(err, search.ErrTaken) {
			t.Errorf("%v does not wrap ErrTaken", err)
		}
		end(t, attempt, search.Diverged, "")
		_, err = db.Begin(t.Context(), trials[0].ID, 3, search.Attempt{})
		wantError(t, err, "it is diverged, want pending")
		_, err = db.Begin(t.Context(), 99, 3, search.Attempt{})
		wantError(t, err, "begin trial 99", "no such trial")
	})
	t.Run("never lets two attempts at one trial be open", func(t *testing.T) {
		t.Parallel()
		db, path, _, trials := planned(t)
		begin(t, db, trials[0])
		execute(t, path, `UPDATE trial SET status = 'pending'`) // as a fault in this package would
		_, err := db.Begin(t.Context(), trials[0].ID, 3, search.Attempt{})
		wantError(t, err, "an attempt that is still open")
	})
	t.Run("goes on from the state before a damaged one, and says so", func(t *testing.T) {
		t.Parallel()
		db, path, s, trials := planned(t)
		attempt := begin(t, db, trials[0])
		record(t, attempt, 1, 2, 3)
		end(t, attempt, search.Pending, "")
		execute(t, path, `UPDATE checkpoint SET state = zeroblob(length(state)) WHERE epoch = 3`)
		if c, err := db.Checkpoint(t.Context(), s.Name, trials[0].Key); err != nil || c.Epoch != 2 {
			t.Errorf("checkpoint %+v (%v), want epoch 2", c, err)
		}
		turn, err := db.Begin(t.Context(), trials[0].ID, 3, search.Attempt{})
		const note = "its checkpoint after epoch 3 is damaged (the checksum does not fit): it goes on after epoch 2"
		if err != nil || turn.From == nil || turn.From.Epoch != 2 || turn.Note != note {
			t.Fatalf("%+v, %v", turn, err)
		}
		record(t, turn, 3)
		end(t, turn, search.Done, "")
		if attempts, err := readAttempts(t.Context(), db, s.Name); err != nil || attempts[1].Message != note {
			t.Errorf("%+v, %v", attempts, err)
		}
	})
	t.Run("starts anew if all states are damaged", func(t *testing.T) {
		t.Parallel()
		db, path, s, trials := planned(t)
		attempt := begin(t, db, trials[0])
		record(t, attempt, 1, 2)
		end(t, attempt, search.Pending, "")
		execute(t, path, `UPDATE checkpoint SET state = substr(state, 1, length(state) / 2)`)
		_, err := db.Checkpoint(t.Context(), s.Name, trials[0].Key)
		wantError(t, err, "after epoch 2 is damaged")
		turn, err := db.Begin(t.Context(), trials[0].ID, 3, search.Attempt{})
		if err != nil || turn.From != nil || !strings.Contains(turn.Note,
			"epoch 2 is damaged (the checksum does not fit): it starts anew") {
			t.Fatalf("%+v, %v", turn, err)
		}
		record(t, turn, 1)
	})
}

func TestRecord(t *testing.T) {
	t.Parallel()
	t.Run("keeps every field, and losses that are not finite", func(t *testing.T) {
		t.Parallel()
		db, path, s, trials := planned(t)
		var want []trialEpoch
		attempt := begin(t, db, trials[3])
		for i, loss := range []float64{math.NaN(), math.Inf(1), math.Inf(-1)} {
			e := search.Epoch{
				Number: i + 1, LearningRate: 0.1 / 3, TrainLoss: loss, TrainCorrect: 3, TrainTotal: 45000,
				ValidationCorrect: 1, ValidationTotal: 5000, TestCorrect: 6389, TestTotal: 10000,
				TrainSeconds: 1.5, EvalSeconds: 0.25,
				ValidationLoss: []float64{math.Inf(1), 0, math.MaxFloat64}[i],
				TestLoss:       []float64{1.0 / 3, 0, math.Inf(1)}[i],
			}
			want = append(want, trialEpoch{trials[3].Key, e})
			if err := attempt.Record(t.Context(), e, search.Checkpoint{Epoch: i + 1}); err != nil {
				t.Fatal(err)
			}
		}
		end(t, attempt, search.Diverged, "")
		db.Close()
		ro, err := store.OpenReadOnly(t.Context(), path)
		if err != nil {
			t.Fatal(err)
		}
		defer ro.Close()
		got, err := readEpochs(t.Context(), ro, s.Name)
		if diff := cmp.Diff(want, got, cmpopts.EquateNaNs()); err != nil || diff != "" {
			t.Errorf("recorded (-) and read (+): %v\n%s", err, diff)
		}
		stored, err := readTrials(t.Context(), ro, s.Name)
		if err != nil || stored[3].Last != want[2].Epoch || stored[3].Epoch != 3 {
			t.Errorf("last epoch %+v (%v), want %+v", stored[3].Last, err, want[2].Epoch)
		}
		c, err := ro.Checkpoint(t.Context(), s.Name, trials[3].Key)
		if err != nil || c != nil {
			t.Errorf("checkpoint %+v (%v), want none of a finished trial", c, err)
		}
	})
}

func TestRecordRefuses(t *testing.T) {
	t.Parallel()
	t.Run("refuses what is not the next epoch of an open attempt", func(t *testing.T) {
		t.Parallel()
		db, _, s, trials := planned(t)
		attempt := begin(t, db, trials[0])
		record(t, attempt, 1)
		try := func(attempt search.Handle, epoch, checkpoint int) error {
			return attempt.Record(t.Context(), search.Epoch{Number: epoch}, search.Checkpoint{Epoch: checkpoint})
		}
		wantError(t, try(attempt, 1, 1), "record epoch 1", "want epoch 2")
		wantError(t, try(attempt, 3, 3), "want epoch 2")
		wantError(t, try(attempt, 2, 1), "its checkpoint is of epoch 1")
		wantError(t, try(db.Handle(1, []byte("another token :)"), 77), 2, 2), "no such attempt")
		record(t, attempt, 2, 3)
		wantError(t, try(attempt, 4, 4), "the training has 3 epochs")

		if epochs, err := readEpochs(t.Context(), db, s.Name); err != nil || len(epochs) != 3 {
			t.Errorf("%d epochs (%v), want 3", len(epochs), err)
		}
	})
	t.Run("refuses a loss of an evaluation that is no number, which would read as not recorded", func(t *testing.T) {
		t.Parallel()
		db, _, _, trials := planned(t)
		attempt := begin(t, db, trials[0])
		for _, e := range []search.Epoch{{Number: 1, ValidationLoss: math.NaN()}, {Number: 1, TestLoss: math.NaN()}} {
			wantError(t, attempt.Record(t.Context(), e, search.Checkpoint{Epoch: 1}), "record epoch 1",
				"want 0 or more, and no NaN")
		}
		record(t, attempt, 1)
	})
	t.Run("refuses counts that cannot be", func(t *testing.T) {
		t.Parallel()
		db, _, _, trials := planned(t)
		attempt := begin(t, db, trials[0])
		for _, e := range []search.Epoch{
			{Number: 1, TestCorrect: 11, TestTotal: 10},
			{Number: 1, TrainCorrect: -1},
			{Number: 1, LearningRate: math.NaN()},
			{Number: 1, TrainSeconds: -1},
		} {
			wantError(t, attempt.Record(t.Context(), e, search.Checkpoint{Epoch: 1}), "record epoch 1",
				"constraint failed")
		}
		record(t, attempt, 1)
	})
}

func TestEnd(t *testing.T) {
	t.Parallel()
	t.Run("leaves the trial in the status given", func(t *testing.T) {
		t.Parallel()
		for status, outcome := range map[search.Status]search.Ending{
			search.Done: "done", search.Diverged: "diverged", search.Failed: "failed", search.Pending: "interrupted",
		} {
			db, _, s, trials := planned(t)
			attempt := begin(t, db, trials[0])
			record(t, attempt, 1, 2, 3)
			end(t, attempt, status, "first\nlast line\n")
			stored, err1 := readTrials(t.Context(), db, s.Name)
			attempts, err2 := readAttempts(t.Context(), db, s.Name)
			if err1 != nil || err2 != nil {
				t.Fatal(err1, err2)
			}
			wantMessage := ""
			if status == search.Failed || status == search.Diverged {
				wantMessage = "last line"
			}
			if stored[0].Status != status || stored[0].Error != wantMessage {
				t.Errorf("trial %s %q, want %s %q", stored[0].Status, stored[0].Error, status, wantMessage)
			}
			if a := attempts[0]; a.Ending != outcome || a.Message != "first\nlast line\n" || a.Ended.Before(a.Started) {
				t.Errorf("%s: attempt %+v, want %s, the whole message and an end", status, a, outcome)
			}
		}
	})
	t.Run("refuses done before the last epoch, and running", func(t *testing.T) {
		t.Parallel()
		db, _, _, trials := planned(t)
		attempt := begin(t, db, trials[0])
		record(t, attempt, 1)
		_, err := attempt.End(t.Context(), search.Outcome{Status: search.Done})
		wantError(t, err, "the trial has 1 of 3 epochs")
		_, err = attempt.End(t.Context(), search.Outcome{Status: search.Running})
		wantError(t, err, `no attempt ends as "running"`)
	})
	t.Run("keeps both ends of a long message", func(t *testing.T) {
		t.Parallel()
		db, _, s, trials := planned(t)
		end(t, begin(t, db, trials[0]), search.Failed, "panic: \xff"+strings.Repeat("ü", 100_000)+"\nthe end")
		attempts, err := readAttempts(t.Context(), db, s.Name)
		if err != nil {
			t.Fatal(err)
		}
		m := attempts[0].Message
		if n := len([]rune(m)); n > 4000 || n < 3900 || !strings.HasPrefix(m, "panic: \uFFFDü") ||
			!strings.HasSuffix(m, "ü\nthe end") {
			t.Errorf("%d characters, from %.20q to %q", n, m, m[len(m)-20:])
		}
	})
}

// readFixture is a database with the studies "quick", whose first trial is done and whose others run, and "another".
func readFixture(t *testing.T) (db *store.DB, s search.Study, trials, otherTrials []search.Trial) {
	t.Parallel()
	db, _, s, trials = planned(t)
	other, otherTrials := newStudy(t, "another")
	if _, err := db.Plan(t.Context(), other, otherTrials[:1]); err != nil {
		t.Fatal(err)
	}
	start := time.Date(2026, 1, 2, 3, 4, 5, 6e6, time.UTC)
	for i := range trials {
		a := search.Attempt{Started: start, Commit: "abc", GoVersion: "go1.26", CPU: "a CPU", ISA: "avx2",
			Device: "cpu",
			Host:   "host", PID: 42, Args: []string{"igcsearch", "run", "a b"}}
		claim, err := db.Begin(t.Context(), trials[i].ID, 3, a)
		if err != nil {
			t.Fatal(err)
		}
		record(t, claim, 1, 2)
		if i == 0 {
			record(t, claim, 3)
			end(t, claim, search.Done, "")
		}
		attempts, err := readAttempts(t.Context(), db, s.Name)
		diff := cmp.Diff(a, attempts[i].Attempt)
		if err != nil || diff != "" || attempts[i].Key != trials[i].Key {
			t.Errorf("attempt begun (-) and read (+): %v\n%s", err, diff)
		}
	}
	return db, s, trials, otherTrials
}

func TestRead(t *testing.T) {
	db, s, trials, _ := readFixture(t)
	t.Run("lists the studies with their trials by status", func(t *testing.T) {
		infos, err := db.Studies(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		want := []store.StudyInfo{
			{Name: "another", Title: "two pairs", Counts: map[search.Status]int{search.Pending: 1}},
			{Name: "quick", Title: "two pairs", Counts: map[search.Status]int{search.Done: 1, search.Running: 3}},
		}
		if diff := cmp.Diff(want, infos, cmpopts.IgnoreFields(store.StudyInfo{}, "Updated", "Revision")); diff != "" {
			t.Errorf("want (-) got (+):\n%s", diff)
		}
		for _, i := range infos {
			r, err := db.Read(t.Context(), i.Name)
			if err != nil || !r.Updated.Equal(i.Updated) || r.Revision != i.Revision ||
				time.Since(i.Updated) > time.Minute {
				t.Errorf("%s: listed %v, %q and read %v, %q (%v)", i.Name, i.Updated, i.Revision, r.Updated,
					r.Revision, err)
			}
		}
	})
	t.Run("returns the settings with the same fingerprint", func(t *testing.T) {
		got, err := readStudy(t.Context(), db, "quick")
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(s, got, cmpopts.IgnoreFields(search.Study{}, "Execution")); diff != "" ||
			got.Fingerprint() != s.Fingerprint() {
			t.Errorf("planned (-) and read (+):\n%s", diff)
		}
	})
	t.Run("gives each trial its epochs in order, and only if asked", func(t *testing.T) {
		r, err := db.Read(t.Context(), "quick", store.Histories)
		if err != nil {
			t.Fatal(err)
		}
		for i, trial := range r.Trials {
			var numbers []int
			for _, e := range trial.History {
				numbers = append(numbers, e.TrainCorrect)
			}
			want := []int{1, 2, 3}
			if i > 0 {
				want = want[:2]
			}
			if trial.System != trials[i].System || trial.Seed != trials[i].Seed || !slices.Equal(numbers, want) ||
				trial.ISA != "avx2" {
				t.Errorf("%+v, want the epochs %v of %v seed %d", trial, want, trials[i].System, trials[i].Seed)
			}
			if trial.Last != trial.History[len(want)-1] || trial.Epoch != len(want) {
				t.Errorf("last epoch %+v, want %+v", trial.Last, trial.History[len(want)-1])
			}
		}
		if len(r.Attempts) != 0 {
			t.Errorf("%d attempts, want none", len(r.Attempts))
		}
		few, err := db.Read(t.Context(), "quick")
		if err != nil || len(few.Trials) != len(trials) || few.Trials[0].History != nil || few.Trials[0].Epoch != 3 {
			t.Errorf("%+v, %v: want no curves", few, err)
		}
	})
	t.Run("tells the arithmetics and devices of the done attempts, and which process is gone", func(t *testing.T) {
		r, err := db.Read(t.Context(), "quick")
		if want := []string{"avx2"}; err != nil || !slices.Equal(r.ISAs, want) ||
			!slices.Equal(r.Models, []string{"a CPU"}) || len(r.Gone) != 0 {
			t.Errorf("%v, %v, %v, %v", r.ISAs, r.Models, r.Gone, err)
		}
	})
}

func TestReadNothing(t *testing.T) {
	db, _, _, otherTrials := readFixture(t)
	t.Run("says which studies there are if there is none of that name", func(t *testing.T) {
		_, err := readEpochs(t.Context(), db, "quikc")
		wantError(t, err, `no such study: "quikc"`, "study.db has another, quick")
		if !errors.Is(err, store.ErrNoStudy) {
			t.Errorf("%v does not wrap ErrNoStudy", err)
		}
		_, err = open(t, filepath.Join(t.TempDir(), "a.db")).Read(t.Context(), "x")
		wantError(t, err, `no such study: "x"`, "has none yet")
		wantFault(t, err, store.NoStudies)
	})
	t.Run("has no checkpoint of a trial that has no epoch, and none of no trial", func(t *testing.T) {
		c, err := db.Checkpoint(t.Context(), "another", otherTrials[0].Key)
		if c != nil || err != nil {
			t.Errorf("checkpoint %v, error %v, want neither", c, err)
		}
		_, err = db.Checkpoint(t.Context(), "quick", search.Key{System: space.PairSystem(space.Pair{L: 2, M: 40})})
		wantError(t, err, "no trial L2M40 seed 0")
	})
}

// TestMark: every commit changes it, looking does not.
func TestMark(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	db, path, _, trials := planned(t)
	reader, err := store.OpenReadOnly(ctx, path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { reader.Close() })
	seen := map[string]string{}
	look := func(after string) {
		t.Helper()
		for range 2 {
			mark, err := reader.Mark(ctx)
			if err != nil {
				t.Fatal(err)
			}
			if before, ok := seen[mark]; ok && before != after {
				t.Errorf("after %s the mark is still that after %s: %s", after, before, mark)
			}
			seen[mark] = after
		}
	}
	look("plan")
	a := begin(t, db, trials[0])
	look("begin")
	record(t, a, 1)
	look("an epoch")
	record(t, a, 2)
	look("another epoch")
	end(t, a, search.Failed, "no")
	look("end")
	other, more := newStudy(t, "other")
	if _, err := db.Plan(ctx, other, more); err != nil {
		t.Fatal(err)
	}
	look("another study")
	if len(seen) != 6 {
		t.Errorf("%d marks, want 6: %v", len(seen), seen)
	}
}

// TestSnapshot: a copy is whole and of what was committed, while the database is
// written and when it is at rest.
func TestSnapshot(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	db, path, s, trials := planned(t)
	a := begin(t, db, trials[0])
	record(t, a, 1, 2)
	for i, when := range []string{"while it is written", "at rest"} {
		reader, err := store.OpenReadOnly(ctx, path)
		if err != nil {
			t.Fatal(err)
		}
		copied := filepath.Join(t.TempDir(), "copy.db")
		if err := reader.Snapshot(ctx, copied); err != nil {
			t.Fatalf("%s: %v", when, err)
		}
		if err := reader.Snapshot(ctx, path); err == nil {
			t.Fatalf("%s: a copy over the database itself", when)
		}
		results := filepath.Join(t.TempDir(), "results.db")
		if err := reader.SnapshotResults(ctx, results); err != nil {
			t.Fatalf("%s: %v", when, err)
		}
		if err := reader.SnapshotResults(ctx, path); err == nil {
			t.Fatalf("%s: results over the database itself", when)
		}
		want, err := readTrials(ctx, reader, s.Name)
		if err != nil {
			t.Fatal(err)
		}
		reader.Close()
		r, err := store.OpenReadOnly(ctx, results)
		if err != nil {
			t.Fatalf("%s: %v", when, err)
		}
		if got, err := readTrials(ctx, r, s.Name); err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%s: %v\nwant %v, %v", when, got, want, err)
		}
		if state, err := r.Checkpoint(ctx, s.Name, trials[0].Key); state != nil || err != nil {
			t.Errorf("%s: a state among the results: %v, %v", when, state, err)
		}
		if h, err := r.Examine(ctx); err != nil || len(h.Damage) > 0 || h.Version != store.SchemaVersion {
			t.Errorf("%s: %+v, %v", when, h, err)
		}
		r.Close()
		if i == 0 {
			record(t, a, 3) // not in the copy
		}
		c, err := store.OpenReadOnly(ctx, copied)
		if err != nil {
			t.Fatalf("%s: %v", when, err)
		}
		epochs, err := readEpochs(ctx, c, s.Name)
		if err != nil || len(epochs) != 2+i {
			t.Errorf("%s: the copy has %d epochs, want %d: %v", when, len(epochs), 2+i, err)
		}
		c.Close()
		if i == 0 {
			db.Close()
		}
	}
}

func TestSchema(t *testing.T) {
	t.Parallel()
	db, path, _, _ := planned(t)
	for pragma, want := range map[string]string{
		"journal_mode": "wal", "synchronous": "2", "foreign_keys": "1",
		"application_id": fmt.Sprint(0x69676373), "integrity_check": "ok",
		"user_version": fmt.Sprint(store.SchemaVersion),
	} {
		if got, err := db.Pragma(t.Context(), pragma); err != nil || got != want {
			t.Errorf("%s is %q (%v), want %q", pragma, got, err, want)
		}
	}
	pool, err := sql.Open("sqlite3", path)
	if err != nil {
		t.Fatal(err)
	}
	defer pool.Close()
	var tables, loose int
	err = pool.QueryRow(`SELECT count(*), sum(NOT strict)
		FROM pragma_table_list WHERE schema = 'main' AND name NOT LIKE 'sqlite%'`).Scan(&tables, &loose)
	if err != nil || tables != 9 || loose != 0 {
		t.Errorf("%d tables, %d not STRICT (%v); want 9 and 0", tables, loose, err)
	}
}

// BenchmarkRecord stores epochs with checkpoints of 320 KB, about the size of
// the networks of Figure 3, each synced to the disk.
func BenchmarkRecord(b *testing.B) {
	for _, kb := range []int{1, 320} {
		b.Run(fmt.Sprintf("%dKB", kb), func(b *testing.B) {
			db := open(b, filepath.Join(b.TempDir(), "a.db"))
			s, trials := newStudy(b, "quick")
			s.Epochs = 1_000_000
			trials = trials[:1]
			trials[0].Epochs = s.Epochs
			trials, err := db.Plan(b.Context(), s, trials)
			if err != nil {
				b.Fatal(err)
			}
			attempt := begin(b, db, trials[0])
			c := search.Checkpoint{State: state(1, kb<<10)}
			b.SetBytes(int64(len(c.State)))
			for b.Loop() {
				c.Epoch++
				if err := attempt.Record(b.Context(), search.Epoch{Number: c.Epoch}, c); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
