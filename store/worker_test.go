package store_test

import (
	"context"
	"errors"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"igcsearch/search"
	"igcsearch/store"
)

// remoteToken is the token of an attempt of a remote worker.
var remoteToken = []byte("0123456789abcdef")

// coordinated opens a database with a study, for remote workers.
func coordinated(t *testing.T) (db *store.DB, name string, trials []search.Trial) {
	db = open(t, filepath.Join(t.TempDir(), "a.db"))
	db.SetLease(shortLease)
	s, trials := endless()
	trials, err := db.Plan(t.Context(), s, trials)
	if err != nil {
		t.Fatal(err)
	}
	return db, s.Name, trials
}

func admit(t *testing.T, db *store.DB, w store.Worker) {
	t.Helper()
	if err := db.Admit(t.Context(), w); err != nil {
		t.Fatal(err)
	}
}

// beginAs begins a trial for a remote worker.
func beginAs(t *testing.T, db *store.DB, worker int64, token []byte, trial int64) search.Claim {
	t.Helper()
	a := search.Attempt{Host: "node1", PID: 7, Job: "slurm 1_2", Started: time.Now()}
	claim, err := db.Beginner(worker, token).Begin(t.Context(), trial, manyEpochs, a)
	if err != nil {
		t.Fatal(err)
	}
	return claim
}

// measuredEpoch is an epoch with a training loss, and its checkpoint.
func measuredEpoch(n int, loss float64) (search.Epoch, search.Checkpoint) {
	e := search.Epoch{Number: n, TrainLoss: loss, TrainTotal: 8, ValidationLoss: math.Inf(1), TestLoss: 1.0 / 3}
	return e, search.Checkpoint{Epoch: n, State: state(n, 10)}
}

func TestRemoteWorker(t *testing.T) {
	t.Parallel()
	t.Run("what is brought twice is stored once", func(t *testing.T) {
		t.Parallel()
		db, name, trials := coordinated(t)
		admit(t, db, store.Worker{ID: 5, Host: "node1", PID: 7, Job: "slurm 1_2"})
		if _, begun, err := db.Begun(t.Context(), 5, remoteToken); err != nil || begun.ID != 0 {
			t.Fatalf("begun before it began: %v, %v", begun, err)
		}
		turn := beginAs(t, db, 5, remoteToken, trials[0].ID)
		study, again, err := db.Begun(t.Context(), 5, remoteToken)
		if err != nil || study != name || again.Trial.ID != trials[0].ID || again.ID != turn.ID ||
			again.Until != manyEpochs {
			t.Fatalf("begun: %q %+v, %v", study, again, err)
		}
		mine := db.Handle(5, remoteToken, turn.ID)
		for _, loss := range []float64{0.5, math.NaN()} {
			n := poll(t, db, name)[0].Epoch + 1
			for range 2 {
				e, c := measuredEpoch(n, loss)
				if err := mine.Record(t.Context(), e, c); err != nil {
					t.Fatal(err)
				}
			}
		}
		e, c := measuredEpoch(2, 0.25)
		if err := mine.Record(t.Context(), e, c); err == nil {
			t.Error("another epoch 2 was taken")
		}
		e, c = measuredEpoch(3, 1)
		if err := db.Handle(5, []byte("fedcba9876543210"), turn.ID).Record(t.Context(), e, c); err == nil {
			t.Error("an epoch was taken from one who does not know the token")
		}
		for range 2 {
			status, err := mine.End(t.Context(), search.Outcome{Status: search.Pending,
				Failure: search.FailedInterrupted})
			if err != nil || status != search.Pending {
				t.Fatalf("end: %v, %v", status, err)
			}
		}
		if got := poll(t, db, name)[0]; got.Epoch != 2 || got.Status != search.Pending {
			t.Errorf("%+v", got.Trial)
		}
		attempts, err := readAttempts(t.Context(), db, name)
		if err != nil || len(attempts) != 1 || attempts[0].Job != "slurm 1_2" || attempts[0].Ending != "interrupted" {
			t.Errorf("%+v, %v", attempts, err)
		}
	})
	t.Run("who leaves gives back", func(t *testing.T) {
		t.Parallel()
		db, name, trials := coordinated(t)
		admit(t, db, store.Worker{ID: 5, Host: "node1", PID: 7})
		beginAs(t, db, 5, remoteToken, trials[0].ID)
		if err := db.Dismiss(t.Context(), 5); err != nil {
			t.Fatal(err)
		}
		if got := poll(t, db, name)[0]; got.Status != search.Pending {
			t.Errorf("%+v", got.Trial)
		}
		if db.Heard(5) {
			t.Error("still admitted")
		}
	})
}

func TestRemoteWorkerLost(t *testing.T) {
	t.Parallel()
	t.Run("a remote worker is lost when nothing is heard of it and its job is gone", inBubble(func(t *testing.T) {
		db, name, trials := coordinated(t)
		var gone atomic.Bool
		db.SetGone(func(_ context.Context, job string) (bool, error) {
			return job == "slurm 1_2" && gone.Load(), nil
		}, nil)
		beats(t, db)
		admit(t, db, store.Worker{ID: 5, Host: "node1", PID: 7, Job: "slurm 1_2"})
		turn := beginAs(t, db, 5, remoteToken, trials[0].ID)
		for end := time.Now().Add(3 * shortLease); time.Now().Before(end); time.Sleep(shortLease / 10) {
			if got := poll(t, db, name)[0]; got.Status != search.Running {
				t.Fatal("lost, though its job runs")
			}
		}
		for end := time.Now().Add(3 * shortLease); time.Now().Before(end); time.Sleep(shortLease / 10) {
			gone.Store(true)
			if !db.Heard(5) {
				t.Fatal("not admitted")
			}
			if got := poll(t, db, name)[0]; got.Status != search.Running {
				t.Fatal("lost, though it was heard")
			}
		}
		wait(t, db, name, 0, search.Pending)
		if present, err := db.Present(t.Context(), 5); present || err != nil {
			t.Errorf("present: %v, %v", present, err)
		}
		// It comes back before anybody else had an epoch: the trial is its own.
		e, c := measuredEpoch(1, 0.5)
		if err := db.Handle(5, remoteToken, turn.ID).Record(t.Context(), e, c); err != nil {
			t.Fatal(err)
		}
		if got := poll(t, db, name)[0]; got.Status != search.Running || got.Epoch != 1 {
			t.Errorf("%+v", got.Trial)
		}
	}))
	t.Run("a trial that was lost and begun again is not its first worker's any more", inBubble(func(t *testing.T) {
		db, name, trials := coordinated(t)
		beats(t, db)
		admit(t, db, store.Worker{ID: 5, Host: "node1", PID: 7})
		first := beginAs(t, db, 5, remoteToken, trials[0].ID)
		wait(t, db, name, 0, search.Pending)
		admit(t, db, store.Worker{ID: 7, Host: "node2", PID: 9, Job: "slurm 1_2"})
		another := []byte("another token :)")
		second := beginAs(t, db, 7, another, trials[0].ID)
		e, c := measuredEpoch(1, 0.5)
		if err := db.Handle(7, another, second.ID).Record(t.Context(), e, c); err != nil {
			t.Fatal(err)
		}
		e, c = measuredEpoch(2, 0.5)
		if err := db.Handle(5, remoteToken, first.ID).Record(t.Context(), e, c); !errors.Is(err, search.ErrSuperseded) {
			t.Errorf("the first worker's epoch: %v", err)
		}
		list, err := db.Workers(t.Context())
		if err != nil || len(list) != 1 || list[0].Job != "slurm 1_2" || list[0].System != trials[0].System ||
			list[0].Study != name {
			t.Errorf("%+v, %v", list, err)
		}
	}))
}

// TestRemoteWorkerUnasked: a scheduler that cannot be asked holds a silent worker's trials for some leases, says so
// once, and not for ever.
func TestRemoteWorkerUnasked(t *testing.T) {
	t.Parallel()
	db, name, trials := coordinated(t)
	var answer atomic.Value // of the scheduler
	answer.Store("squeue: error: no such option")
	notes := make(chan string, 100)
	db.SetGone(func(context.Context, string) (bool, error) {
		if text := answer.Load().(string); text != "" {
			return false, errors.New(text)
		}
		return false, nil
	}, func(line string) { notes <- line })
	beats(t, db)
	admit(t, db, store.Worker{ID: 5, Host: "node1", PID: 7, Job: "slurm 1_2"})
	beginAs(t, db, 5, remoteToken, trials[0].ID)
	began := time.Now()
	silent := func() string {
		t.Helper()
		list, err := db.Workers(t.Context())
		if err != nil || len(list) != 1 {
			t.Fatalf("%+v, %v", list, err)
		}
		return list[0].Silent
	}
	want := search.Waiting("slurm 1_2", "node1", "squeue: error: no such option",
		[]string{trials[0].Key.String()}, shortLease)
	if got := <-notes; got != want {
		t.Errorf("note %q, want %q", got, want)
	}
	if got := silent(); got != "squeue: error: no such option" {
		t.Errorf("the worker is silent: %q", got)
	}
	if !db.Heard(5) {
		t.Fatal("not admitted")
	}
	for silent() != "" { // the next beat stores that
		poll(t, db, name)
	}
	wait(t, db, name, 0, search.Pending)
	if took := time.Since(began); took < search.Unanswered*shortLease {
		t.Errorf("lost after %v, its lease is %v", took, shortLease)
	}
	attempts, err := readAttempts(t.Context(), db, name)
	const why = "nothing was heard of its worker for its lease, and its scheduler could not be asked about its job: " +
		"squeue: error: no such option"
	if err != nil || len(attempts) != 1 || attempts[0].Message != why {
		t.Errorf("%+v, %v", attempts, err)
	}
	if n := len(notes); n > 1 { // it was silent twice
		t.Errorf("%d more notes", n)
	}
}

// TestRemoteWorkerRequeued: a silent worker whose job was started again is lost, even if the scheduler only says that
// the job runs.
func TestRemoteWorkerRequeued(t *testing.T) {
	t.Parallel()
	db, name, trials := coordinated(t)
	db.SetGone(func(context.Context, string) (bool, error) { return false, nil }, nil)
	beats(t, db)
	admit(t, db, store.Worker{ID: 5, Host: "node1", PID: 7, Job: "slurm 1_2 restart 1"})
	beginAs(t, db, 5, remoteToken, trials[0].ID)
	admit(t, db, store.Worker{ID: 6, Host: "node2", PID: 8, Job: "slurm 1_2 restart 2"})
	wait(t, db, name, 0, search.Pending)
	attempts, err := readAttempts(t.Context(), db, name)
	if err != nil || len(attempts) != 1 || attempts[0].Message != "its job was started again" {
		t.Errorf("%+v, %v", attempts, err)
	}
}

func TestRemoteWorkerOfAnotherProcess(t *testing.T) {
	t.Parallel()
	t.Run("another process at the database keeps what it gives out", func(t *testing.T) {
		t.Parallel()
		path := filepath.Join(t.TempDir(), "a.db")
		db, err := store.Open(t.Context(), path)
		if err != nil {
			t.Fatal(err)
		}
		db.SetLease(shortLease)
		s, trials := endless()
		s.MaxWallTime, s.RetryCrashed, s.MaxDeviceHours = "5h", 3, 1.5
		if trials, err = db.Plan(t.Context(), s, trials); err != nil {
			t.Fatal(err)
		}
		if err := db.GiveOut(t.Context(), s.Name, s.Run()); err != nil {
			t.Fatal(err)
		}
		admit(t, db, store.Worker{ID: 5, Host: "node1", PID: 7})
		turn := beginAs(t, db, 5, remoteToken, trials[0].ID)
		db.Close()

		db = open(t, path)
		db.SetLease(shortLease)
		list, err := db.GivenOut(t.Context())
		if err != nil || len(list) != 1 || list[0].MaxWallTime != "5h" || list[0].RetryCrashed != 3 ||
			list[0].MaxDeviceHours != 1.5 || list[0].StopAfter != s.StopAfter {
			t.Fatalf("%+v, %v", list, err)
		}
		if got := poll(t, db, s.Name)[0]; got.Status != search.Running {
			t.Fatalf("%+v", got.Trial)
		}
		e, c := measuredEpoch(1, 0.5)
		if err := db.Handle(5, remoteToken, turn.ID).Record(t.Context(), e, c); err != nil {
			t.Fatal(err)
		}
		if db.Heard(5) {
			t.Error("a remote worker of another process is known without having come again")
		}
	})
}

// TestDeadRemoteWorker: the processes of a remote worker and its coordinator have ended on this machine. What is left is
// no damage, and keeps nobody from renaming the study: whoever runs it next takes the trial over.
func TestDeadRemoteWorker(t *testing.T) {
	t.Parallel()
	db, name, trials := coordinated(t)
	ended := exec.Command("true")
	if err := ended.Run(); err != nil {
		t.Skipf("no process can be started: %v", err)
	}
	host, err := os.Hostname()
	must(t, err)
	admit(t, db, store.Worker{ID: 5, Host: host, PID: ended.Process.Pid})
	beginAs(t, db, 5, remoteToken, trials[0].ID)
	h, err := db.Examine(t.Context())
	if err != nil || len(h.Findings) > 0 {
		t.Errorf("found %v, %v", h.Findings, err)
	}
	must(t, db.Rename(t.Context(), name, "other"))
	if got := poll(t, db, "other")[0]; got.Status != search.Running {
		t.Errorf("the trial is %s, want running until its lease is over", got.Status)
	}
}
