package store_test

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"igcsearch/search"
	"igcsearch/store"
)

const shortLease = 500 * time.Millisecond

// inBubble makes a parallel test whose time stands still while any of it works. So its leases do not depend on how busy
// the machine is.
func inBubble(test func(*testing.T)) func(*testing.T) {
	return func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, test)
	}
}

// beats keeps a process alive until the test ends or stop is called.
func beats(t *testing.T, db *store.DB) (stop func()) {
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() {
		for ctx.Err() == nil {
			next, err := db.Beat(ctx)
			if err != nil && ctx.Err() == nil {
				t.Error(err)
			}
			select {
			case <-ctx.Done():
			case <-time.After(next):
			}
		}
	})
	stop = func() { cancel(); wg.Wait() }
	t.Cleanup(stop)
	return stop
}

func poll(t *testing.T, db *store.DB, name string) []search.TrialState {
	t.Helper()
	states, _, err := db.Poll(t.Context(), name, 0)
	if err != nil {
		t.Fatal(err)
	}
	return states
}

// wait polls until a trial has a status. It returns how long that took in a bubble's time.
func wait(t *testing.T, db *store.DB, name string, trial int, want search.Status) time.Duration {
	t.Helper()
	begin := time.Now()
	for time.Since(begin) < 20*time.Second {
		if poll(t, db, name)[trial].Status == want {
			return time.Since(begin)
		}
		time.Sleep(5 * time.Millisecond)
	}
	t.Fatalf("trial %d never became %s", trial, want)
	return 0
}

// twoProcesses opens a database with a planned study twice; both have a short lease, and the second one is kept alive.
func twoProcesses(t *testing.T) (a, b *store.DB, s search.Study, trials []search.Trial) {
	a, path, s, trials := planned(t)
	a.SetLease(shortLease)
	if _, err := a.Beat(t.Context()); err != nil {
		t.Fatal(err)
	}
	execute(t, path, fmt.Sprintf(`UPDATE worker SET lease = %d`, shortLease.Milliseconds()))
	b = open(t, path)
	b.SetLease(shortLease)
	if _, err := b.Plan(t.Context(), s, trials); err != nil {
		t.Fatal(err)
	}
	beats(t, b)
	return a, b, s, trials
}

func TestLease(t *testing.T) {
	t.Parallel()
	t.Run("a process that stands still for its lease loses its trials, and not before", inBubble(func(t *testing.T) {
		a, b, s, trials := twoProcesses(t)
		stop := beats(t, a)
		attempt := begin(t, a, trials[0])
		record(t, attempt, 1)
		for begin := time.Now(); time.Since(begin) < 4*shortLease; time.Sleep(shortLease / 20) {
			if got := poll(t, b, s.Name)[0]; got.Status != search.Running {
				t.Fatalf("a live trial became %s", got.Status)
			}
		}
		stop()
		after := wait(t, b, s.Name, 0, search.Pending)
		if after < shortLease/2 || after > 2*shortLease { // some of the lease was over at the stop
			t.Errorf("taken after %v, the lease is %v", after, shortLease)
		}
		attempts, err := readAttempts(t.Context(), b, s.Name)
		if err != nil || attempts[0].Ending != "lost" || attempts[0].Failure != search.FailedLost ||
			attempts[0].Message != "its process stood still for its lease" {
			t.Errorf("%+v, %v", attempts, err)
		}

		// It comes back: nobody went on with the trial, so it does.
		record(t, attempt, 2)
		if got := poll(t, b, s.Name)[0]; got.Status != search.Running || got.Epoch != 2 {
			t.Errorf("%+v", got)
		}
	}))
	t.Run("the first of two workers that records an epoch keeps the trial", inBubble(func(t *testing.T) {
		a, b, s, trials := twoProcesses(t)
		first := [2]search.Claim{begin(t, a, trials[0]), begin(t, a, trials[1])}
		record(t, first[0], 1)
		record(t, first[1], 1)
		wait(t, b, s.Name, 0, search.Pending)
		// In the first trial the late worker is faster, in the second the new one.
		second := [2]search.Claim{begin(t, b, trials[0]), begin(t, b, trials[1])}
		record(t, first[0], 2)
		err := second[0].Record(t.Context(), search.Epoch{Number: 2}, search.Checkpoint{Epoch: 2})
		if !errors.Is(err, search.ErrSuperseded) {
			t.Errorf("the new worker: %v", err)
		}
		_, err = second[0].End(t.Context(), search.Outcome{Status: search.Failed, Failure: search.FailedCrashed})
		if !errors.Is(err, search.ErrSuperseded) {
			t.Errorf("the new worker: %v", err)
		}
		record(t, first[0], 3)
		end(t, first[0], search.Done, "")

		record(t, second[1], 2)
		err = first[1].Record(t.Context(), search.Epoch{Number: 2}, search.Checkpoint{Epoch: 2})
		if !errors.Is(err, search.ErrSuperseded) {
			t.Errorf("the late worker: %v", err)
		}
		record(t, second[1], 3)
		end(t, second[1], search.Done, "")
		_, err = first[1].End(t.Context(), search.Outcome{Status: search.Done})
		if !errors.Is(err, search.ErrSuperseded) {
			t.Errorf("the late worker: %v", err)
		}
		if epochs, err := readEpochs(t.Context(), b, s.Name); err != nil || len(epochs) != 6 {
			t.Errorf("%d epochs, %v", len(epochs), err)
		}
	}))
}

func TestLeaseEnds(t *testing.T) {
	t.Parallel()
	t.Run("a process that ends frees its trials at once", func(t *testing.T) {
		t.Parallel()
		a, b, s, trials := twoProcesses(t)
		begin(t, a, trials[0])
		if got := poll(t, b, s.Name)[0].Status; got != search.Running {
			t.Errorf("it is %s", got)
		}
		// With a lease of a minute, only the end of the process can free the trial in this test. Polls that follow each
		// other closely do not look at other processes, so this one waits for the poll that does.
		execute(t, a.Path(), `UPDATE worker SET lease = 60000`)
		a.Close()
		for poll(t, b, s.Name)[0].Status != search.Pending {
			time.Sleep(time.Millisecond)
		}
	})
	t.Run("an attempt of a file that was replaced is refused", func(t *testing.T) {
		t.Parallel()
		a, b, _, trials := twoProcesses(t)
		attempt := begin(t, a, trials[0])
		other := b.Handle(1, []byte("another token :)"), attempt.ID)
		wantError(t, other.Record(t.Context(), search.Epoch{Number: 1}, search.Checkpoint{Epoch: 1}),
			"not of this process")
	})
}

// TestClock sets the time of day forward and back. A process that runs a trial keeps it, and one that stands still
// loses it in time.
func TestClock(t *testing.T) {
	t.Cleanup(func() { store.SetClock(time.Now) })
	for _, jump := range []time.Duration{time.Hour, -time.Hour} {
		synctest.Test(t, func(t *testing.T) { clockJumps(t, jump) })
	}
}

func clockJumps(t *testing.T, jump time.Duration) {
	a, path, s, trials := planned(t)
	a.SetLease(shortLease)
	stop := beats(t, a)
	b := open(t, path)
	b.SetLease(shortLease)
	beats(t, b)
	execute(t, path, fmt.Sprintf(`UPDATE worker SET lease = %d`, shortLease.Milliseconds()))
	attempt := begin(t, a, trials[0])
	wait(t, b, s.Name, 0, search.Running)
	store.SetClock(func() time.Time { return time.Now().Add(jump) })
	for begin := time.Now(); time.Since(begin) < 3*shortLease; time.Sleep(shortLease / 20) {
		if got := poll(t, b, s.Name)[0]; got.Status != search.Running {
			t.Fatalf("clock %v: a live trial became %s", jump, got.Status)
		}
	}
	record(t, attempt, 1)
	stop()
	if after := wait(t, b, s.Name, 0, search.Pending); after > 2*shortLease {
		t.Errorf("clock %v: taken after %v, the lease is %v", jump, after, shortLease)
	}
	record(t, begin(t, b, trials[0]), 2)
}

// TestStopped stops a whole process and lets it go on.
func TestStopped(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "a.db")
	s, trials := endless()
	db := open(t, path)
	db.SetLease(shortLease)
	beats(t, db)
	trials, err := db.Plan(t.Context(), s, trials)
	if err != nil {
		t.Fatal(err)
	}
	c := command("slowly", path)
	var said bytes.Buffer
	c.Stdout, c.Stderr = &said, &said
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() {
		c.Wait()
		close(ended)
	}()
	defer func() {
		c.Process.Kill()
		<-ended
		if t.Failed() {
			t.Logf("the child said: %s", said.String())
		}
	}()
	for poll(t, db, s.Name)[0].Epoch == 0 { // there must be a checkpoint to go on from
		select {
		case <-ended:
			t.Fatal("the child ended before its first epoch")
		case <-time.After(time.Millisecond):
		}
	}
	// Not within a commit: then SQLite's lock is its own, and all wait.
	pool, err := sql.Open("sqlite3", path+"?_busy_timeout=20")
	if err != nil {
		t.Fatal(err)
	}
	defer pool.Close()
	for {
		if err := c.Process.Signal(syscall.SIGSTOP); err != nil {
			t.Fatal(err)
		}
		if _, err := pool.Exec(`UPDATE worker SET lease = 500`); err == nil {
			break
		}
		c.Process.Signal(syscall.SIGCONT)
		time.Sleep(3 * time.Millisecond)
	}
	for poll(t, db, s.Name)[0].Status != search.Pending {
		time.Sleep(time.Millisecond)
	}
	turn, err := db.Begin(t.Context(), trials[0].ID, manyEpochs, search.Attempt{})
	if err != nil {
		t.Fatal(err)
	}
	n := turn.From.Epoch + 1
	if err := turn.Record(t.Context(), search.Epoch{Number: n},
		search.Checkpoint{Epoch: n, State: state(n, 10)}); err != nil {
		t.Fatal(err)
	}
	c.Process.Signal(syscall.SIGCONT)
	<-ended // its next epoch is refused
	if got := poll(t, db, s.Name)[0]; got.Epoch != n || got.Status != search.Running {
		t.Errorf("%+v", got.Trial)
	}
}

// TestClaims lets several processes begin the same trials at once.
func TestClaims(t *testing.T) {
	t.Parallel()
	n := 300
	won, double := claims(t, n, 4)
	if won != n || double != 0 {
		t.Errorf("%d trials begun, %d of them twice, want %d and 0", won, double, n)
	}
}

// claims lets several handles of one database begin the same n trials in the same order. It returns how many were
// begun, and how many twice.
func claims(t *testing.T, n, handles int) (won, double int) {
	s, _ := newStudy(t, "quick")
	s.Seeds = search.FirstSeeds(n)
	var trials []search.Trial
	for seed := range n {
		trials = append(trials, search.Trial{Key: search.Key{System: s.SystemList()[0], Seed: seed},
			Status: search.Pending, Epochs: 3})
	}
	path := filepath.Join(t.TempDir(), "a.db")
	db := open(t, path)
	trials, err := db.Plan(t.Context(), s, trials)
	if err != nil {
		t.Fatal(err)
	}
	begun := make([]atomic.Int32, n)
	var wg sync.WaitGroup
	for range handles {
		other := open(t, path)
		wg.Go(func() {
			for i, trial := range trials {
				switch _, err := other.Begin(t.Context(), trial.ID, 3, search.Attempt{}); {
				case err == nil:
					begun[i].Add(1)
				case !errors.Is(err, search.ErrTaken):
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	for i := range begun {
		if c := begun[i].Load(); c > 0 {
			won++
			if c > 1 {
				double++
			}
		}
	}
	return won, double
}

func TestNetwork(t *testing.T) {
	t.Parallel()
	db, path, s, trials := planned(t)
	db.Close()
	db, err := store.Open(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	db.SetNetwork("NFS")
	trials, err = db.Plan(t.Context(), s, trials)
	if err != nil {
		t.Fatal(err) // one writer is allowed
	}
	begin(t, db, trials[0])
	second := open(t, path)
	second.SetNetwork("NFS")
	_, err = second.Plan(t.Context(), s, trials)
	wantError(t, err, "lock database "+path, fmt.Sprintf("process %d on ", os.Getpid()), "network file system (NFS)")
	wantFault(t, err, store.InUseNetwork)
	db.Close()
	got, err := second.Plan(t.Context(), s, trials)
	if err != nil || got[0].Status != search.Pending {
		t.Errorf("%v, %v: want what the first left to be taken up", statuses(got), err)
	}
	for _, want := range []string{"NFS", "SMB", "9P", "FUSE", "Lustre", "GPFS", "BeeGFS", "AFS", "Ceph"} {
		found := false
		for _, name := range store.NetworkSystems {
			found = found || name == want
		}
		if !found {
			t.Errorf("%s is not known as a network file system", want)
		}
	}
}

func TestCheckpoints(t *testing.T) {
	t.Parallel()
	plan := func(t *testing.T, change func(*search.Study)) (*store.DB, search.Study, []search.Trial) {
		s, trials := newStudy(t, "quick")
		change(&s)
		db := open(t, filepath.Join(t.TempDir(), "a.db"))
		trials, err := db.Plan(t.Context(), s, trials)
		if err != nil {
			t.Fatal(err)
		}
		return db, s, trials
	}
	of := func(t *testing.T, db *store.DB, s search.Study, trial search.Trial) int {
		c, err := db.Checkpoint(t.Context(), s.Name, trial.Key)
		if err != nil {
			t.Fatal(err)
		}
		if c == nil {
			return 0
		}
		return c.Epoch
	}
	t.Run("are kept where the study says so, until others need the room", func(t *testing.T) {
		t.Parallel()
		db, s, trials := plan(t, func(s *search.Study) { s.KeepCheckpoints, s.CheckpointQuota = true, 4500 })
		for _, trial := range trials[:2] { // a state of 1000 bytes each is kept
			attempt := begin(t, db, trial)
			record(t, attempt, 1, 2, 3)
			end(t, attempt, search.Done, "")
		}
		if of(t, db, s, trials[0]) != 3 || of(t, db, s, trials[1]) != 3 {
			t.Error("they are not kept")
		}
		third := begin(t, db, trials[2])
		record(t, third, 1, 2)
		if of(t, db, s, trials[0]) != 3 {
			t.Error("the oldest was removed, but there was room for all")
		}
		fourth := begin(t, db, trials[3])
		record(t, fourth, 1)
		if of(t, db, s, trials[0]) != 0 || of(t, db, s, trials[1]) != 3 {
			t.Error("the oldest should have made room, and no other")
		}
		record(t, fourth, 2)
		if r, err := db.Read(t.Context(), s.Name); err != nil || r.Dropped != 2 || of(t, db, s, trials[1]) != 0 {
			t.Errorf("%d trials are said to have lost their checkpoints, %v, want 2", r.Dropped, err)
		}
		err := fourth.Record(t.Context(), search.Epoch{Number: 3}, search.Checkpoint{Epoch: 3, State: state(3, 4000)})
		wantError(t, err, "set checkpoint_quota, now 4500, higher")
		if of(t, db, s, trials[3]) != 2 {
			t.Error("what is stored was lost")
		}
	})
	t.Run("of trials that train may exceed the default quota", func(t *testing.T) {
		t.Parallel()
		db, s, trials := plan(t, func(s *search.Study) { s.KeepCheckpoints = true })
		attempt := begin(t, db, trials[0])
		record(t, attempt, 1, 2, 3)
		end(t, attempt, search.Done, "")
		path := db.Path()
		execute(t, path, fmt.Sprintf(`UPDATE study SET checkpoint_bytes = checkpoint_bytes + %d`,
			search.DefaultCheckpointQuota)) // as if others were that large
		second := begin(t, db, trials[1])
		record(t, second, 1)
		if of(t, db, s, trials[0]) != 0 || of(t, db, s, trials[1]) != 1 {
			t.Error("the finished trial should have made room, and the other be stored")
		}
	})
	t.Run("the best is kept beside", func(t *testing.T) {
		t.Parallel()
		db, s, trials := plan(t, func(s *search.Study) { s.KeepBest = true })
		attempt := begin(t, db, trials[0])
		for i, correct := range []int{3, 7, 5} {
			e := search.Epoch{Number: i + 1, ValidationCorrect: correct, ValidationTotal: 10}
			if err := attempt.Record(t.Context(), e,
				search.Checkpoint{Epoch: i + 1, State: state(i+1, 10)}); err != nil {
				t.Fatal(err)
			}
		}
		end(t, attempt, search.Done, "")
		h, err := db.Examine(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		rows := map[string]int64{}
		for _, table := range h.Tables {
			rows[table.Name] = table.Rows
		}
		if of(t, db, s, trials[0]) != 0 || rows["best_checkpoint"] != 1 || rows["checkpoint"] != 0 {
			t.Errorf("rows %v", rows)
		}
	})
}

func TestRepair(t *testing.T) {
	t.Parallel()
	db, path, s, trials := planned(t)
	attempt := begin(t, db, trials[0])
	record(t, attempt, 1, 2)
	end(t, attempt, search.Pending, "")
	done := begin(t, db, trials[1])
	record(t, done, 1, 2, 3)
	end(t, done, search.Done, "")
	begin(t, db, trials[2])
	execute(t, path, `UPDATE checkpoint SET state = x'00' WHERE epoch = 2; DELETE
		FROM epoch WHERE trial = 2 AND number = 3;
		UPDATE trial SET status = 'running' WHERE id = 4;
		INSERT INTO worker (id, host, pid, lease, beat) VALUES (77, 'here', 1, 1000, 5)`)
	h, err := db.Examine(t.Context())
	if err != nil || len(h.Damage) != 0 {
		t.Fatalf("%+v, %v", h, err)
	}
	for _, want := range []string{"after epoch 2 that is damaged", "is done, but has 2 of 3 epochs",
		"is running, but no attempt at it is open", "process 1 on here is gone"} {
		if !slices.ContainsFunc(h.Findings, func(f store.Finding) bool { return strings.Contains(f.Text, want) }) {
			t.Errorf("no %q in %q", want, h.Findings)
		}
	}
	if err := db.Repair(t.Context()); err != nil {
		t.Fatal(err)
	}
	if h, err = db.Examine(t.Context()); err != nil || len(h.Findings) != 0 {
		t.Errorf("left: %q, %v", h.Findings, err)
	}
	got, err := readTrials(t.Context(), db, s.Name)
	if want := []search.Status{search.Pending, search.Pending, search.Running, search.Pending}; err != nil ||
		!slices.Equal(statuses(got), want) {
		t.Errorf("%v, %v, want %v", statuses(got), err, want)
	}
	if err := db.Vacuum(t.Context()); err != nil {
		t.Error(err)
	}
}
