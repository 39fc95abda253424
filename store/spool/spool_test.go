package spool_test

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"math"
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

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"igcsearch/search"
	"igcsearch/space"
	"igcsearch/store/spool"
)

// newStudy returns a study of two pairs, so many seeds and three epochs.
func newStudy(t testing.TB, seeds int) (search.Study, []search.Trial) {
	t.Helper()
	s := search.Default()
	s.Name, s.Title, s.Dataset = "quick", "two pairs", "synthetic"
	s.Pairs, s.Seeds, s.Epochs = []string{"40x2", "64x1"}, search.FirstSeeds(seeds), 3
	s, err := s.Normalize()
	if err != nil {
		t.Fatal(err)
	}
	return s, s.Trials(space.Shape{C: 3, H: 32, W: 32}, 10)
}

const shortLease = 400 * time.Millisecond

// open opens a folder as a worker with a short lease.
func open(t testing.TB, dir string, o spool.Options) *spool.Folder {
	t.Helper()
	f, err := spool.Open(dir, o)
	if err != nil {
		t.Fatal(err)
	}
	f.SetLease(shortLease)
	t.Cleanup(func() { f.Close() })
	return f
}

// planned returns a worker of a new folder with four trials.
func planned(t testing.TB) (f *spool.Folder, dir string, s search.Study, trials []search.Trial) {
	t.Helper()
	dir = filepath.Join(t.TempDir(), "spool")
	s, trials = newStudy(t, 2)
	f, trials = join(t, dir, s, trials, spool.Options{})
	return f, dir, s, trials
}

// join returns a new worker of a folder, and the trials as it finds them.
func join(t testing.TB, dir string, s search.Study, trials []search.Trial, o spool.Options) (
	*spool.Folder, []search.Trial) {
	t.Helper()
	f := open(t, dir, o)
	trials, err := f.Plan(t.Context(), s, trials)
	if err != nil {
		t.Fatal(err)
	}
	return f, trials
}

func begin(t testing.TB, f *spool.Folder, trial search.Trial) int64 {
	t.Helper()
	claim, err := f.Begin(t.Context(), trial.ID, trial.Epochs, search.Attempt{Started: time.Now()})
	if err != nil {
		t.Fatal(err)
	}
	return claim.ID
}

func state(epoch, size int) []byte { return bytes.Repeat([]byte{byte(epoch)}, size) }

func record(t testing.TB, f *spool.Folder, attempt int64, epochs ...int) {
	t.Helper()
	for _, n := range epochs {
		e := search.Epoch{Number: n, LearningRate: 0.1, TrainLoss: 2, TrainCorrect: n, TrainTotal: 64}
		c := search.Checkpoint{Epoch: n, State: state(n, 100)}
		if err := f.Attempt(attempt).Record(t.Context(), e, c); err != nil {
			t.Fatal(err)
		}
	}
}

// recordError records an epoch and an empty checkpoint, and returns the error.
func recordError(t testing.TB, f *spool.Folder, attempt int64, epoch, checkpoint int) error {
	t.Helper()
	return f.Attempt(attempt).Record(t.Context(), search.Epoch{Number: epoch},
		search.Checkpoint{Epoch: checkpoint})
}

func end(t testing.TB, f *spool.Folder, attempt int64, o search.Outcome, want search.Status) {
	t.Helper()
	if got, err := f.Attempt(attempt).End(t.Context(), o); err != nil || got != want {
		t.Fatalf("ended as %s, %v; want %s", got, err, want)
	}
}

func poll(t testing.TB, f *spool.Folder) []search.TrialState {
	t.Helper()
	states, _, err := f.Poll(t.Context(), "quick", 0)
	if err != nil {
		t.Fatal(err)
	}
	return states
}

// wait polls and beats until a trial has a status. It returns how long that took.
func wait(t testing.TB, f *spool.Folder, trial int, want search.Status) time.Duration {
	t.Helper()
	begin := time.Now()
	for time.Since(begin) < 20*time.Second {
		if _, err := f.Beat(t.Context()); err != nil {
			t.Fatal(err)
		}
		if poll(t, f)[trial].Status == want {
			return time.Since(begin)
		}
		time.Sleep(shortLease / 40)
	}
	t.Fatalf("trial %d never became %s: %+v", trial, want, poll(t, f)[trial].Trial)
	return 0
}

// wantError checks that err has every part and is one line.
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

// rewrite changes a file of a spool, which does not know of it.
func rewrite(t *testing.T, path string, change func([]byte) []byte) {
	t.Helper()
	b, err := os.ReadFile(path)
	if err == nil {
		err = os.WriteFile(path, change(b), 0o666)
	}
	if err != nil {
		t.Fatal(err)
	}
}

func TestPlan(t *testing.T) {
	t.Parallel()
	t.Run("returns the trials in the order given, and again", func(t *testing.T) {
		t.Parallel()
		s, given := newStudy(t, 2)
		dir := t.TempDir()
		f := open(t, dir, spool.Options{})
		got, err := f.Plan(t.Context(), s, given)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(given, got, cmpopts.IgnoreFields(search.Trial{}, "ID")); diff != "" {
			t.Errorf("given (-) and planned (+):\n%s", diff)
		}
		slices.Reverse(given)
		_, again := join(t, dir, s, given, spool.Options{})
		slices.Reverse(again)
		if diff := cmp.Diff(got, again); diff != "" {
			t.Errorf("planned first (-) and again in another order (+):\n%s", diff)
		}
		if got[0].ID != 1 || got[3].ID != 4 {
			t.Errorf("IDs %d … %d, want 1 … 4", got[0].ID, got[3].ID)
		}
	})
	t.Run("refuses other settings, another study and another build", planRefuses)
	t.Run("of several processes at once, one writes the study", planAtOnce)
	t.Run("a folder that is missing or no folder says what to do", func(t *testing.T) {
		t.Parallel()
		_, err := spool.Open(filepath.Join(t.TempDir(), "not", "there"), spool.Options{})
		wantError(t, err, "a folder is missing: make it, or mount it")
		file := filepath.Join(t.TempDir(), "file")
		os.WriteFile(file, nil, 0o666)
		_, err = spool.Open(file, spool.Options{})
		wantError(t, err, "it is no folder")
		if !errors.Is(err, spool.ErrNotFolder) {
			t.Errorf("it is not ErrNotFolder: %v", err)
		}
		_, err = spool.Read(t.TempDir(), nil)
		wantError(t, err, "has no study.json")
	})
}

func planRefuses(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s, trials := newStudy(t, 2)
	join(t, dir, s, trials, spool.Options{Attempt: search.Attempt{Commit: "aaa"}})
	other := s
	other.LearningRate, other.DataSum = 0.05, "f00"
	_, err := open(t, dir, spool.Options{}).Plan(t.Context(), other, trials)
	wantError(t, err, `study "quick" is in spool `+dir+" with other settings",
		"learning_rate: 0.1 there, 0.05 here", "data_sum: not set there, f00 here")
	other = s
	other.Name = "slow"
	_, err = open(t, dir, spool.Options{}).Plan(t.Context(), other, trials)
	wantError(t, err, `is of study "quick", and a folder holds one`)
	var conflict *spool.ConflictError
	if !errors.As(err, &conflict) || conflict.Study != "slow" || conflict.There != "quick" {
		t.Errorf("it is no conflict of slow with quick: %#v", err)
	}
	other = s
	other.Seeds = search.FirstSeeds(9)
	_, err = open(t, dir, spool.Options{}).Plan(t.Context(), other, trials)
	wantError(t, err, `study "quick" is in spool `+dir+" with other settings: seeds: ", " there, 9 here")
	if conflict = nil; !errors.As(err, &conflict) || !conflict.Extent {
		t.Errorf("it is no conflict of the extent alone: %#v", err)
	}
	_, err = open(t, dir, spool.Options{Attempt: search.Attempt{Commit: "bbb"}}).Plan(t.Context(), s, trials)
	wantError(t, err, "begun by igcsearch of commit aaa, this is bbb")
	if !errors.Is(err, spool.ErrBuild) {
		t.Errorf("it is no error of another build: %v", err)
	}
	_, err = open(t, dir, spool.Options{}).Plan(t.Context(), s, append(trials, trials[0]))
	wantError(t, err, "planned twice")
}

func planAtOnce(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "spool")
	var wg sync.WaitGroup
	var first, second atomic.Int32
	for i := range 8 {
		s, trials := newStudy(t, 2)
		if i%2 == 1 {
			s.LearningRate = 0.05
		}
		wg.Go(func() {
			f, err := spool.Open(dir, spool.Options{})
			if err != nil {
				t.Error(err)
				return
			}
			defer f.Close()
			switch _, err := f.Plan(t.Context(), s, trials); {
			case err == nil && i%2 == 0:
				first.Add(1)
			case err == nil:
				second.Add(1)
			case !strings.Contains(err.Error(), "learning_rate"):
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if a, b := first.Load(), second.Load(); a+b != 4 || a*b != 0 {
		t.Errorf("%d planned the one and %d the other, want 4 and 0", a, b)
	}
}

func TestBegin(t *testing.T) {
	t.Parallel()
	t.Run("returns the newest checkpoint, nil at first", beginFrom)
	t.Run("refuses a trial that is running, finished or unknown", beginRefuses)
	const damaged = "its checkpoint after epoch 2 is damaged (the checksum does not fit): "
	for _, c := range []struct {
		name, note string
		harm       func(t *testing.T, place string) // damages attempt 1
		from       int
	}{
		{"goes on from the state before a damaged one", damaged + "it goes on after epoch 1",
			func(t *testing.T, place string) {
				rewrite(t, place+".state-0002", func(b []byte) []byte { return b[:len(b)/2] })
			}, 1},
		{"starts anew if both are damaged", damaged + "it starts anew",
			func(t *testing.T, place string) {
				for _, n := range []string{".state-0001", ".state-0002"} {
					rewrite(t, place+n, func(b []byte) []byte { b[7] ^= 1; return b })
				}
			}, 0},
		{"goes on before a damaged epoch", "it has 1 of 2 epochs: it goes on after epoch 1",
			func(t *testing.T, place string) {
				rewrite(t, place+".epoch-0002.json", func(b []byte) []byte {
					return bytes.Replace(b, []byte(`"train_correct":2`), []byte(`"train_correct":3`), 1)
				})
			}, 1},
		{"starts anew where the states are gone", "it has no checkpoint after epoch 2: it starts anew",
			func(t *testing.T, place string) {
				os.Remove(place + ".state-0001")
				os.Remove(place + ".state-0002")
			}, 0},
	} {
		t.Run(c.name+", and says so", func(t *testing.T) {
			t.Parallel()
			f, dir, s, trials := planned(t)
			attempt := begin(t, f, trials[0])
			record(t, f, attempt, 1, 2)
			end(t, f, attempt, search.Outcome{Status: search.Pending}, search.Pending)
			c.harm(t, filepath.Join(dir, "trials", "0001", "0001"))
			g, _ := join(t, dir, s, trials, spool.Options{})
			beginAfterHarm(t, f, g, trials[0], c.from, c.note)
		})
	}
	t.Run("a half-written begin or end does no harm", inBubble(beginHalfWritten))
	t.Run("removes what a killed worker was writing, which nobody read", beginTidies)
	t.Run("starts anew on another arithmetic", beginOtherArithmetic)
}

// beginAfterHarm begins a trial after a file of it was damaged and trains it, both with g. It checks what
// the trial goes on from, and how it stands for f in the end.
func beginAfterHarm(t *testing.T, f, g *spool.Folder, trial search.Trial, from int, note string) {
	t.Helper()
	claim, err := g.Begin(t.Context(), trial.ID, 3, search.Attempt{})
	at := 0
	if claim.From != nil {
		at = claim.From.Epoch
	}
	if err != nil || at != from || claim.Note != note {
		t.Fatalf("from %d, %q (%v), want %d, %q", at, claim.Note, err, from, note)
	}
	for n := at + 1; n <= 3; n++ {
		record(t, g, claim.ID, n)
	}
	end(t, g, claim.ID, search.Outcome{Status: search.Done}, search.Done)
	if got := poll(t, f)[0]; got.Status != search.Done || len(got.History) != 3 {
		t.Errorf("%+v", got)
	}
}

func beginFrom(t *testing.T) {
	t.Parallel()
	f, _, _, trials := planned(t)
	claim, err := f.Begin(t.Context(), trials[0].ID, 3, search.Attempt{})
	if err != nil || claim.From != nil {
		t.Fatalf("checkpoint %v (%v), want none", claim.From, err)
	}
	record(t, f, claim.ID, 1, 2)
	end(t, f, claim.ID, search.Outcome{Status: search.Pending, Failure: search.FailedInterrupted}, search.Pending)
	next, err := f.Begin(t.Context(), trials[0].ID, 3, search.Attempt{})
	if err != nil {
		t.Fatal(err)
	}
	diff := cmp.Diff(&search.Checkpoint{Epoch: 2, State: state(2, 100)}, next.From)
	if diff != "" || next.ID == claim.ID || next.Note != "" {
		t.Errorf("attempt %d after %d, %q, want (-) got (+):\n%s", next.ID, claim.ID, next.Note, diff)
	}
}

func beginRefuses(t *testing.T) {
	t.Parallel()
	f, dir, s, trials := planned(t)
	g, _ := join(t, dir, s, trials, spool.Options{})
	attempt := begin(t, f, trials[0])
	for _, w := range []*spool.Folder{f, g} {
		_, err := w.Begin(t.Context(), trials[0].ID, 3, search.Attempt{})
		wantError(t, err, "begin trial 1 in spool", "it is running, want pending")
		if !errors.Is(err, search.ErrTaken) {
			t.Errorf("%v does not wrap ErrTaken", err)
		}
	}
	end(t, f, attempt, search.Outcome{Status: search.Diverged, Failure: search.FailedDiverged}, search.Diverged)
	_, err := g.Begin(t.Context(), trials[0].ID, 3, search.Attempt{})
	wantError(t, err, "it is diverged, want pending")
	_, err = g.Begin(t.Context(), 99, 3, search.Attempt{})
	wantError(t, err, "begin trial 99", "no such trial")
}

func beginHalfWritten(t *testing.T) {
	f, dir, s, trials := planned(t)
	attempt := begin(t, f, trials[0])
	record(t, f, attempt, 1)
	end(t, f, attempt, search.Outcome{Status: search.Pending}, search.Pending)
	place := filepath.Join(dir, "trials", "0001", "0001")
	rewrite(t, place+".end.json", func(b []byte) []byte { return b[:len(b)/2] })
	g, _ := join(t, dir, s, trials, spool.Options{})
	claim, err := g.Begin(t.Context(), trials[0].ID, 3, search.Attempt{})
	if err != nil || claim.From == nil {
		t.Fatalf("%+v, %v", claim, err)
	}
	record(t, g, claim.ID, 2)
	rewrite(t, filepath.Join(dir, "trials", "0001", "0002.begin.json"), func(b []byte) []byte { return b[:len(b)/2] })
	h, _ := join(t, dir, s, trials, spool.Options{})
	if after := wait(t, h, 0, search.Pending); after < shortLease/2 {
		t.Errorf("taken after %v, the lease is %v", after, shortLease)
	}
	claim, err = h.Begin(t.Context(), trials[0].ID, 3, search.Attempt{})
	if err != nil || claim.From == nil || claim.From.Epoch != 1 {
		t.Errorf("%+v, %v", claim, err)
	}
}

func beginTidies(t *testing.T) {
	t.Parallel()
	f, dir, s, trials := planned(t)
	attempt := begin(t, f, trials[0])
	end(t, f, attempt, search.Outcome{Status: search.Pending}, search.Pending)
	half := filepath.Join(dir, "trials", "0001", ".0002.begin.json123")
	if err := os.WriteFile(half, []byte("{"), 0o666); err != nil {
		t.Fatal(err)
	}
	g, got := join(t, dir, s, trials, spool.Options{})
	if got[0].Status != search.Pending {
		t.Errorf("the trial is %s", got[0].Status)
	}
	begin(t, g, trials[0])
	if _, err := os.Stat(half); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the file is still there: %v", err)
	}
}

func beginOtherArithmetic(t *testing.T) {
	t.Parallel()
	f, _, _, trials := planned(t)
	claim, err := f.Begin(t.Context(), trials[0].ID, 3, search.Attempt{ISA: "avx512"})
	if err != nil {
		t.Fatal(err)
	}
	record(t, f, claim.ID, 1, 2)
	end(t, f, claim.ID, search.Outcome{Status: search.Pending}, search.Pending)
	claim, err = f.Begin(t.Context(), trials[0].ID, 3, search.Attempt{ISA: "avx2"})
	const note = "its epochs are of avx512, this is avx2, with other bits: it starts anew"
	if err != nil || claim.From != nil || claim.Note != note {
		t.Errorf("%+v, %v", claim, err)
	}
	record(t, f, claim.ID, 1)
	if got := poll(t, f)[0]; got.Epoch != 1 {
		t.Errorf("%+v", got)
	}
}

func TestRecord(t *testing.T) {
	t.Parallel()
	t.Run("keeps every bit, NaN and infinities too", recordBits)
	t.Run("refuses what does not follow, and attempts of others", recordRefuses)
	t.Run("keeps the last two states, and the best where the study says so", recordStates)
	t.Run("keeps the states of finished trials within the quota", recordQuota)
	t.Run("a full disk says so, and the trial goes on when there is room", recordFullDisk)
	t.Run("a folder that went away says so", recordNoFolder)
}

func recordBits(t *testing.T) {
	t.Parallel()
	f, dir, s, trials := planned(t)
	attempt := begin(t, f, trials[0])
	losses := []float64{math.Inf(1), math.Float64frombits(0x7ff8000000000123), math.Nextafter(1, 2)}
	for i, loss := range losses {
		e := measured(i+1, loss, math.Copysign(0, -1))
		if err := f.Attempt(attempt).Record(t.Context(), e, search.Checkpoint{Epoch: i + 1}); err != nil {
			t.Fatal(err)
		}
	}
	g, _ := join(t, dir, s, trials, spool.Options{})
	for i, e := range poll(t, g)[0].History {
		diff := cmp.Diff(measured(i+1, e.TrainLoss, e.TrainSeconds), e, cmpopts.EquateNaNs())
		got, want := math.Float64bits(e.TrainLoss), math.Float64bits(losses[i])
		if diff != "" || got != want || !math.Signbit(e.TrainSeconds) {
			t.Errorf("epoch %d: loss %x, want %x\n%s", i+1, got, want, diff)
		}
	}
}

// measured returns an epoch with values that are hard to store.
func measured(number int, loss, seconds float64) search.Epoch {
	return search.Epoch{Number: number, LearningRate: 1e-21 / 3, TrainLoss: loss, TrainCorrect: 1, TrainTotal: 2,
		ValidationCorrect: 3, ValidationTotal: 4, TestCorrect: 5, TestTotal: 6, ValidationLoss: math.Inf(1),
		TestLoss: 1.0 / 3, TrainSeconds: seconds, EvalSeconds: math.MaxFloat64}
}

func recordRefuses(t *testing.T) {
	t.Parallel()
	f, dir, s, trials := planned(t)
	attempt := begin(t, f, trials[0])
	wantError(t, recordError(t, f, attempt, 2, 2), "want epoch 1")
	wantError(t, recordError(t, f, attempt, 1, 2), "checkpoint is of epoch 2")
	g, _ := join(t, dir, s, trials, spool.Options{})
	wantError(t, recordError(t, g, attempt, 1, 1), "is not open in this process")
	record(t, f, attempt, 1, 2, 3)
	wantError(t, recordError(t, f, attempt, 4, 4), "3 epochs")
}

func recordStates(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s, trials := newStudy(t, 2)
	s.KeepBest = true
	f, trials := join(t, dir, s, trials, spool.Options{})
	attempt := begin(t, f, trials[0])
	states := func() (names []string) {
		all, _ := filepath.Glob(filepath.Join(dir, "trials", "0001", "*.state-*"))
		for _, a := range all {
			names = append(names, filepath.Base(a))
		}
		return names
	}
	for i, correct := range []int{7, 3, 5} {
		e := search.Epoch{Number: i + 1, ValidationCorrect: correct, ValidationTotal: 10}
		c := search.Checkpoint{Epoch: i + 1, State: state(i+1, 10)}
		if err := f.Attempt(attempt).Record(t.Context(), e, c); err != nil {
			t.Fatal(err)
		}
	}
	all := []string{"0001.state-0001", "0001.state-0002", "0001.state-0003"}
	if got := states(); !slices.Equal(got, all) {
		t.Errorf("%v, want %v", got, all)
	}
	end(t, f, attempt, search.Outcome{Status: search.Done}, search.Done)
	want := all[:1]
	if s.KeepCheckpoints {
		want = []string{all[0], all[2]}
	}
	if got := states(); !slices.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
}

func recordQuota(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s, trials := newStudy(t, 2)
	s.KeepCheckpoints, s.CheckpointQuota = true, 250
	f, trials := join(t, dir, s, trials, spool.Options{})
	g, _ := join(t, dir, s, trials, spool.Options{})
	for i, folder := range []*spool.Folder{f, g, f} { // each sees what the other has kept
		poll(t, folder)
		attempt := begin(t, folder, trials[i])
		record(t, folder, attempt, 1, 2, 3)
		end(t, folder, attempt, search.Outcome{Status: search.Done}, search.Done)
	}
	kept, _ := filepath.Glob(filepath.Join(dir, "trials", "*", "*.state-*"))
	for i := range kept {
		kept[i], _ = filepath.Rel(dir, kept[i])
	}
	if want := []string{"trials/0002/0001.state-0003", "trials/0003/0001.state-0003"}; !slices.Equal(kept, want) {
		t.Errorf("kept %v, want %v", kept, want)
	}
}

func recordFullDisk(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "small")
	if err := os.Mkdir(dir, 0o777); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=256k"); err != nil {
		t.Skipf("no small file system can be mounted here: %v", err)
	}
	t.Cleanup(func() { syscall.Unmount(dir, syscall.MNT_DETACH) })
	s, trials := newStudy(t, 2)
	f, trials := join(t, dir, s, trials, spool.Options{})
	attempt := begin(t, f, trials[0])
	record(t, f, attempt, 1)
	large := search.Checkpoint{Epoch: 2, State: state(2, 1<<20)}
	err := f.Attempt(attempt).Record(t.Context(), search.Epoch{Number: 2}, large)
	wantError(t, err, "record epoch 2 of attempt", "the disk is full", "free some space and start the worker again")
	f.Close()
	g, _ := join(t, dir, s, trials, spool.Options{})
	again := begin(t, g, trials[0])
	record(t, g, again, 2, 3)
	end(t, g, again, search.Outcome{Status: search.Done}, search.Done)
}

func recordNoFolder(t *testing.T) {
	t.Parallel()
	f, dir, _, trials := planned(t)
	attempt := begin(t, f, trials[0])
	os.RemoveAll(dir)
	wantError(t, recordError(t, f, attempt, 1, 1), "a folder is missing: make it, or mount it")
	_, _, err := f.Poll(t.Context(), "quick", 0)
	wantError(t, err, "a folder is missing")
	_, err = f.Beat(t.Context())
	wantError(t, err, "a folder is missing")
}

func TestEnd(t *testing.T) {
	t.Parallel()
	f, dir, s, trials := planned(t)
	crash := search.Outcome{Status: search.Failed, Failure: search.FailedCrashed, Message: "out\nof luck", Retries: 2}
	interrupted := search.Outcome{Status: search.Pending, Failure: search.FailedInterrupted}
	for _, want := range []search.Status{search.Pending, search.Pending, search.Failed} {
		g, _ := join(t, dir, s, trials, spool.Options{}) // failures are counted in the folder
		end(t, g, begin(t, g, trials[0]), interrupted, search.Pending)
		end(t, g, begin(t, g, trials[0]), crash, want)
	}
	got := poll(t, f)[0]
	if got.Status != search.Failed || got.Error != "of luck" || got.Failure != search.FailedCrashed {
		t.Errorf("%+v", got)
	}
	attempt := begin(t, f, trials[1])
	record(t, f, attempt, 1)
	_, err := f.Attempt(attempt).End(t.Context(), search.Outcome{Status: search.Done})
	wantError(t, err, "the trial has 1 of 3 epochs")
	_, err = f.Attempt(attempt).End(t.Context(), search.Outcome{Status: "well"})
	wantError(t, err, `no attempt ends as "well"`)
	end(t, f, attempt, search.Outcome{Status: search.Diverged, Failure: search.FailedDiverged,
		Message: strings.Repeat("ä", 5000)}, search.Diverged)
	_, err = f.Attempt(attempt).End(t.Context(), search.Outcome{Status: search.Failed})
	wantError(t, err, "is not open in this process")
	r, err := spool.Read(dir, nil)
	if err != nil {
		t.Fatal(err)
	}
	var outcomes []search.Ending
	l, err := r.Load(0, true)
	for _, a := range l.Attempts {
		outcomes = append(outcomes, a.Ending)
	}
	want := []search.Ending{"interrupted", "failed", "interrupted", "failed", "interrupted", "failed"}
	if err != nil || !slices.Equal(outcomes, want) {
		t.Errorf("outcomes %v (%v), want %v", outcomes, err, want)
	}
	l, err = r.Load(1, true)
	if err != nil || len([]rune(l.Attempts[0].Message)) > 4000 || l.Status != search.Diverged || l.Epoch != 1 {
		t.Errorf("%v: %+v", err, l)
	}
}

func TestRetry(t *testing.T) {
	t.Parallel()
	f, dir, s, trials := planned(t)
	crash := search.Outcome{Status: search.Failed, Failure: search.FailedCrashed, Retries: 1}
	failed := begin(t, f, trials[0])
	record(t, f, failed, 1, 2)
	end(t, f, failed, crash, search.Pending)
	end(t, f, begin(t, f, trials[0]), crash, search.Failed)
	diverged := begin(t, f, trials[1])
	record(t, f, diverged, 1)
	end(t, f, diverged, search.Outcome{Status: search.Diverged, Failure: search.FailedDiverged}, search.Diverged)
	end(t, f, begin(t, f, trials[2]), crash, search.Pending)
	end(t, f, begin(t, f, trials[2]), crash, search.Failed)

	g, _ := join(t, dir, s, trials, spool.Options{})
	both := []search.Status{search.Failed, search.Diverged}
	again, err := g.Retry(t.Context(), both, func(_ space.System, seed int) bool {
		return seed == 0 || trials[1].Seed == 1 && seed == 1
	})
	if err != nil || len(again) == 0 || again[0].Status != search.Failed {
		t.Fatalf("%+v, %v", again, err)
	}
	more, err := g.Retry(t.Context(), both, func(space.System, int) bool { return true })
	if err != nil || len(more) != 3-len(again) {
		t.Errorf("again %+v, %v", more, err)
	}
	g.Close()
	h, got := join(t, dir, s, trials, spool.Options{})
	if got[0].Status != search.Pending || got[0].Epoch != 2 || got[1].Status != search.Pending ||
		got[1].Epoch != 0 || got[2].Status != search.Pending {
		t.Errorf("%+v", got)
	}
	claim, err := h.Begin(t.Context(), trials[0].ID, 3, search.Attempt{})
	if err != nil || claim.From == nil || claim.From.Epoch != 2 || claim.Note != "" {
		t.Fatalf("%+v, %v", claim, err)
	}
	end(t, h, claim.ID, crash, search.Pending) // its failures were forgotten
	r, err := spool.Read(dir, nil)
	if err != nil {
		t.Fatal(err)
	}
	if l, err := r.Load(0, true); err != nil || len(l.Attempts) != 3 || !slices.Equal(l.By, []int{0, 0}) {
		t.Errorf("%+v, %v", l, err)
	}
}

func TestPoll(t *testing.T) {
	t.Parallel()
	f, dir, s, trials := planned(t)
	g, _ := join(t, dir, s, trials, spool.Options{})
	changed, moment, err := g.Poll(t.Context(), s.Name, 0)
	if err != nil || len(changed) != 4 {
		t.Fatalf("%d trials, %v", len(changed), err)
	}
	look := func(want ...search.Status) {
		t.Helper()
		var got []search.Status
		if changed, moment, err = g.Poll(t.Context(), s.Name, moment); err != nil {
			t.Fatal(err)
		}
		for _, c := range changed {
			got = append(got, c.Status)
		}
		if !slices.Equal(got, want) {
			t.Errorf("changed: %v, want %v", got, want)
		}
	}
	look()
	a, b := begin(t, f, trials[1]), begin(t, f, trials[2])
	look(search.Running, search.Running)
	look()
	record(t, f, a, 1)
	look(search.Running)
	if until := changed[0].Until; until != changed[0].Epochs {
		t.Errorf("a running trial is trained until %d, want %d", until, changed[0].Epochs)
	}
	record(t, f, a, 2, 3)
	end(t, f, a, search.Outcome{Status: search.Done}, search.Done)
	end(t, f, b, search.Outcome{Status: search.Pending}, search.Pending)
	look(search.Done, search.Pending)
	look()
	if _, _, err := g.Poll(t.Context(), "other", 0); err == nil {
		t.Error("a study that is not there can be polled")
	}
}

// inBubble makes a parallel test whose time stands still while any of it works. So its leases do not
// depend on how busy the machine is.
func inBubble(test func(*testing.T)) func(*testing.T) {
	return func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, test)
	}
}

// beats keeps a worker alive until the test ends or stop is called.
func beats(t *testing.T, f *spool.Folder) (stop func()) {
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() {
		for ctx.Err() == nil {
			next, err := f.Beat(ctx)
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

func TestLease(t *testing.T) {
	t.Parallel()
	t.Run("a worker that stands still for its lease loses its trials, and not before", inBubble(leaseStandsStill))
	t.Run("only if its job is gone too", inBubble(leaseJob))
	t.Run("for some leases only if the scheduler cannot be asked, which is said", inBubble(leaseUnasked))
	t.Run("a new worker of its job frees its trials at once", inBubble(leaseRequeued))
	t.Run("a worker that ends frees its trials at once", inBubble(leaseLeft))
	t.Run("a claim whose process died before it began is void after a lease", inBubble(leaseClaim))
	t.Run("a claim after the end changes nothing", inBubble(leaseLateClaim))
	t.Run("nobody is lost while the watcher cannot write", inBubble(leaseWatcher))
}

func leaseStandsStill(t *testing.T) {
	a, dir, s, trials := planned(t)
	stop := beats(t, a)
	b, _ := join(t, dir, s, trials, spool.Options{})
	attempt := begin(t, a, trials[0])
	record(t, a, attempt, 1)
	for begin := time.Now(); time.Since(begin) < 4*shortLease; time.Sleep(shortLease / 20) {
		if _, err := b.Beat(t.Context()); err != nil {
			t.Fatal(err)
		}
		if got := poll(t, b)[0]; got.Status != search.Running {
			t.Fatalf("a live trial became %s", got.Status)
		}
	}
	stop()
	if _, err := a.Beat(t.Context()); err != nil { // the last one, so b does not wait since an earlier one
		t.Fatal(err)
	}
	if after := wait(t, b, 0, search.Pending); after < shortLease || after > 2*shortLease {
		t.Errorf("taken after %v, the lease is %v", after, shortLease)
	}
	// The worker comes back. It has the trial again, because nobody went on with it.
	record(t, a, attempt, 2)
	if _, err := a.Beat(t.Context()); err != nil {
		t.Fatal(err)
	}
	wait(t, b, 0, search.Running)
	// The worker stands still again, and another goes on with the trial. Now its reports are refused.
	wait(t, b, 0, search.Pending)
	again, err := b.Begin(t.Context(), trials[0].ID, 3, search.Attempt{})
	if err != nil || again.From == nil || again.From.Epoch != 2 {
		t.Fatalf("%+v, %v", again, err)
	}
	err = a.Attempt(attempt).Record(t.Context(), search.Epoch{Number: 3, TrainCorrect: 77}, search.Checkpoint{Epoch: 3})
	if !errors.Is(err, search.ErrSuperseded) {
		t.Errorf("the late worker: %v", err)
	}
	_, err = a.Attempt(attempt).End(t.Context(), search.Outcome{Status: search.Failed, Failure: search.FailedCrashed})
	if !errors.Is(err, search.ErrSuperseded) {
		t.Errorf("the late worker: %v", err)
	}
	record(t, b, again.ID, 3)
	end(t, b, again.ID, search.Outcome{Status: search.Done}, search.Done)
	if got := poll(t, a)[0]; got.Status != search.Done || got.Last.TrainCorrect != 3 {
		t.Errorf("%+v", got)
	}
	r, err := spool.Read(dir, nil)
	if err != nil {
		t.Fatal(err)
	}
	l, err := r.Load(0, true)
	if err != nil || len(l.Attempts) != 2 || l.Attempts[0].Ending != "lost" ||
		l.Attempts[0].Message != "its process stood still for its lease" || !slices.Equal(l.By, []int{0, 0, 1}) {
		t.Errorf("%+v, %v", l, err)
	}
}

func leaseJob(t *testing.T) {
	a, dir, s, trials := planned(t)
	a.Close()
	a, _ = join(t, dir, s, trials, spool.Options{Attempt: search.Attempt{Job: "slurm 7_1"}})
	var gone atomic.Bool
	var asked sync.Map
	b, _ := join(t, dir, s, trials, spool.Options{Gone: func(_ context.Context, job string) (bool, error) {
		asked.Store(job, true)
		return gone.Load(), nil
	}})
	begin(t, a, trials[0])
	beats(t, b)
	for begin := time.Now(); time.Since(begin) < 4*shortLease; time.Sleep(shortLease / 20) {
		if got := poll(t, b)[0].Status; got != search.Running {
			t.Fatalf("it is %s though its job is there", got)
		}
	}
	if _, ok := asked.Load("slurm 7_1"); !ok {
		t.Error("nobody asked for its job")
	}
	gone.Store(true)
	wait(t, b, 0, search.Pending)
}

func leaseUnasked(t *testing.T) {
	a, dir, s, trials := planned(t)
	a.Close()
	a, _ = join(t, dir, s, trials, spool.Options{Attempt: search.Attempt{Job: "slurm 7_1", Host: "node1"}})
	notes := make(chan string, 100)
	b, _ := join(t, dir, s, trials, spool.Options{
		Gone: func(context.Context, string) (bool, error) { return false, errors.New("squeue: no") },
		Note: func(line string) { notes <- line },
	})
	begin(t, a, trials[0])
	began := time.Now()
	wait(t, b, 0, search.Pending)
	if took := time.Since(began); took < (1+search.Unanswered)*shortLease {
		t.Errorf("taken after %v, the lease is %v", took, shortLease)
	}
	want := search.Waiting("slurm 7_1", "node1", "squeue: no", []string{trials[0].Key.String()}, shortLease)
	if n := len(notes); n != 1 {
		t.Fatalf("%d notes, want one", n)
	}
	if got := <-notes; got != want {
		t.Errorf("note %q, want %q", got, want)
	}
	again := begin(t, b, trials[0])
	record(t, b, again, 1, 2, 3)
	end(t, b, again, search.Outcome{Status: search.Done}, search.Done)
	r, err := spool.Read(dir, nil)
	if err != nil {
		t.Fatal(err)
	}
	const why = "its process stood still for its lease, and its scheduler could not be asked about its job: squeue: no"
	if l, err := r.Load(0, true); err != nil || len(l.Attempts) != 2 || l.Attempts[0].Message != why {
		t.Errorf("%+v, %v", l, err)
	}
}

func leaseRequeued(t *testing.T) {
	a, dir, s, trials := planned(t)
	a.Close()
	job := spool.Options{Attempt: search.Attempt{Job: "slurm 7_1"},
		Gone: func(context.Context, string) (bool, error) { return false, nil }}
	a, _ = join(t, dir, s, trials, job)
	begin(t, a, trials[0])
	b, _ := join(t, dir, s, trials, spool.Options{Attempt: search.Attempt{Job: "slurm 7_2"}})
	if got := poll(t, b)[0].Status; got != search.Running {
		t.Errorf("it is %s, of another job", got)
	}
	job.Attempt.Job += " restart 1"
	c, planned := join(t, dir, s, trials, job)
	if planned[0].Status != search.Pending {
		t.Errorf("it is %s for the new worker of its job", planned[0].Status)
	}
	wait(t, b, 0, search.Pending)
	begin(t, c, trials[0])
}

func leaseLeft(t *testing.T) {
	a, dir, s, trials := planned(t)
	attempt := begin(t, a, trials[0])
	record(t, a, attempt, 1)
	a.Close()
	b, got := join(t, dir, s, trials, spool.Options{})
	if got[0].Status != search.Pending || got[0].Epoch != 1 {
		t.Errorf("%+v", got[0])
	}
	begin(t, b, trials[0])
}

func leaseClaim(t *testing.T) {
	a, dir, s, trials := planned(t)
	attempt := begin(t, a, trials[0])
	record(t, a, attempt, 1)
	end(t, a, attempt, search.Outcome{Status: search.Pending}, search.Pending)
	for _, claim := range []string{"0001/0002", "0002/0001"} {
		if err := os.MkdirAll(filepath.Join(dir, "trials", claim), 0o777); err != nil {
			t.Fatal(err)
		}
	}
	b, got := join(t, dir, s, trials, spool.Options{})
	if got[0].Status != search.Running || got[1].Status != search.Running {
		t.Errorf("%+v", got)
	}
	wait(t, b, 0, search.Pending)
	wait(t, b, 1, search.Pending)
	if claim, err := b.Begin(t.Context(), trials[0].ID, 3, search.Attempt{}); err != nil || claim.From == nil {
		t.Errorf("%+v, %v", claim, err)
	}
	begin(t, b, trials[1])
}

func leaseLateClaim(t *testing.T) {
	a, dir, s, trials := planned(t)
	attempt := begin(t, a, trials[0])
	record(t, a, attempt, 1, 2, 3)
	end(t, a, attempt, search.Outcome{Status: search.Done}, search.Done)
	if err := os.Mkdir(filepath.Join(dir, "trials", "0001", "0002"), 0o777); err != nil {
		t.Fatal(err)
	}
	_, got := join(t, dir, s, trials, spool.Options{})
	if got[0].Status != search.Done || got[0].Epoch != 3 {
		t.Errorf("%+v", got[0])
	}
}

func leaseWatcher(t *testing.T) {
	a, dir, s, trials := planned(t)
	b, _ := join(t, dir, s, trials, spool.Options{})
	begin(t, a, trials[0])
	for begin := time.Now(); time.Since(begin) < 3*shortLease; time.Sleep(shortLease / 20) {
		if got := poll(t, b)[0].Status; got != search.Running { // b writes no heartbeat
			t.Fatalf("it became %s", got)
		}
	}
}

// TestClaims lets several workers begin the same trials at once.
func TestClaims(t *testing.T) {
	t.Parallel()
	const n = 300
	dir := t.TempDir()
	s, _ := newStudy(t, n/2)
	trials := s.Trials(space.Shape{C: 3, H: 32, W: 32}, 10)
	begun := make([]atomic.Int32, n)
	var wg sync.WaitGroup
	for range 4 {
		f, trials := join(t, dir, s, trials, spool.Options{})
		wg.Go(func() {
			for i, trial := range trials {
				switch _, err := f.Begin(t.Context(), trial.ID, 3, search.Attempt{}); {
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
		if c := begun[i].Load(); c != 1 {
			t.Errorf("trial %d was begun %d times", i, c)
		}
	}
}

// BenchmarkThousand measures a study of 1,000 trials, of which half are done and 50 run elsewhere.
func BenchmarkThousand(b *testing.B) {
	dir := b.TempDir()
	s, trials := newStudy(b, 500)
	f, trials := join(b, dir, s, trials, spool.Options{})
	o := search.Outcome{Status: search.Done}
	for _, trial := range trials[:550] {
		a := begin(b, f, trial)
		record(b, f, a, 1, 2)
		if trial.ID <= 500 {
			record(b, f, a, 3)
			end(b, f, a, o, search.Done)
		}
	}
	g, _ := join(b, dir, s, trials, spool.Options{})
	b.Run("Join", func(b *testing.B) {
		for b.Loop() {
			join(b, dir, s, trials, spool.Options{})
		}
	})
	b.Run("Poll", func(b *testing.B) {
		_, moment, err := g.Poll(b.Context(), s.Name, 0)
		for b.Loop() {
			if _, moment, err = g.Poll(b.Context(), s.Name, moment); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("Begin", func(b *testing.B) {
		for b.Loop() {
			a := begin(b, g, trials[999])
			b.StopTimer()
			o := search.Outcome{Status: search.Pending, Failure: search.FailedInterrupted}
			if _, err := g.Attempt(a).End(b.Context(), o); err != nil {
				b.Fatal(err)
			}
			b.StartTimer()
		}
	})
	b.Run("Record", func(b *testing.B) {
		i := 550
		for b.Loop() {
			a := begin(b, g, trials[i])
			record(b, g, a, 1)
			i++
		}
	})
}

// BenchmarkFifty measures 50 workers that begin, record and end 1,000 trials.
func BenchmarkFifty(b *testing.B) {
	s, trials := newStudy(b, 500)
	s.Epochs = 1
	for i := range trials {
		trials[i].Epochs = 1
	}
	for b.Loop() {
		dir := b.TempDir()
		var wg sync.WaitGroup
		for range 50 {
			f := open(b, dir, spool.Options{})
			f.SetLease(time.Minute)
			wg.Go(func() {
				r := search.Runner{Store: f, Trainer: chain{}, Wait: 100 * time.Millisecond}
				if sum, err := r.Run(b.Context(), s, strategyOf(s), trials); err != nil || sum.Done != len(trials) {
					b.Error(sum, err)
				}
			})
		}
		wg.Wait()
	}
}
