package search_test

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"igcsearch/search"
	"igcsearch/space"
)

// fakeStore is a Store in memory. If fail is set, its errors are those of the calls.
type fakeStore struct {
	beat     func() error // what Beat returns; nil for no error
	mu       sync.Mutex
	planned  bool
	shared   bool           // other processes own the running trials
	trials   []search.Trial // the trial with ID i+1 is at index i
	last     []*search.Checkpoint
	epochs   []int            // the number of recorded epochs of each trial
	history  [][]search.Epoch // the recorded epochs of each trial
	attempts []int64          // the trial of each attempt
	began    []string         // the names of the trials that began, in order
	template search.Attempt
	isa      map[int64]string // the arithmetic of a trial's epochs
	fails    map[string]int   // the number of failures by trial and kind
	changed  []int64          // the moment at which each trial changed last
	changes  int64            // the present moment
	fail     func(call string, trial int64) error
}

// stored records that a trial has changed.
func (s *fakeStore) stored(trial int64) {
	s.changes++
	s.changed[trial-1] = s.changes
}

func (s *fakeStore) Poll(_ context.Context, _ string, since int64) ([]search.TrialState, int64, error) {
	var changed []search.TrialState
	s.mu.Lock()
	defer s.mu.Unlock()
	for i, t := range s.trials {
		if s.changed[i] > since {
			changed = append(changed,
				search.TrialState{Trial: t, History: slices.Clone(s.history[i]), ISA: s.isa[t.ID]})
		}
	}
	return changed, s.changes, nil
}

func (s *fakeStore) Beat(context.Context) (time.Duration, error) {
	if s.beat != nil {
		return time.Minute, s.beat()
	}
	return time.Minute, nil
}

func (s *fakeStore) refuse(call string, trial int64) error {
	if s.fail == nil {
		return nil
	}
	if err := s.fail(call, trial); err != nil {
		return fmt.Errorf("%s in fake.db: %w", call, err)
	}
	return nil
}

func (s *fakeStore) Plan(_ context.Context, _ search.Study, trials []search.Trial) ([]search.Trial, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.refuse("plan", 0); err != nil {
		return nil, err
	}
	if !s.planned {
		s.planned = true
		s.trials = slices.Clone(trials)
		s.last = make([]*search.Checkpoint, len(trials))
		s.epochs = make([]int, len(trials))
		s.history = make([][]search.Epoch, len(trials))
		s.changed = make([]int64, len(trials))
		s.fails = map[string]int{}
		for i := range s.trials {
			s.trials[i].ID = int64(i + 1)
			s.stored(int64(i + 1))
		}
	}
	for i := range s.trials {
		if s.trials[i].Status == search.Running && !s.shared {
			s.trials[i].Status = search.Pending
			s.stored(int64(i + 1))
		}
	}
	return slices.Clone(s.trials), nil
}

func (s *fakeStore) Begin(ctx context.Context, trial int64, until int, a search.Attempt) (search.Claim, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := cmp.Or(ctx.Err(), s.refuse("begin", trial)); err != nil {
		return search.Claim{}, err
	}
	t := &s.trials[trial-1]
	if t.Status != search.Pending {
		return search.Claim{}, search.ErrTaken
	}
	s.stored(trial)
	t.Status = search.Running
	s.attempts = append(s.attempts, trial)
	s.began = append(s.began, fmt.Sprintf("%v/%d", t.System.Label(), t.Seed))
	s.template = a
	return search.Claim{Handle: fakeAttempt{s, int64(len(s.attempts))}, ID: int64(len(s.attempts)),
		From: s.last[trial-1]}, nil
}

// fakeAttempt is the handle of an attempt.
type fakeAttempt struct {
	s  *fakeStore
	id int64
}

func (a fakeAttempt) Record(ctx context.Context, e search.Epoch, c search.Checkpoint) error {
	return a.s.record(ctx, a.id, e, c)
}

func (a fakeAttempt) End(ctx context.Context, o search.Outcome) (search.Status, error) {
	return a.s.end(ctx, a.id, o)
}

func (s *fakeStore) record(ctx context.Context, attempt int64, e search.Epoch, c search.Checkpoint) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	trial := s.attempts[attempt-1]
	if err := cmp.Or(ctx.Err(), s.refuse("record", trial)); err != nil {
		return err
	}
	t := &s.trials[trial-1]
	if e.Number != t.Epoch+1 || c.Epoch != e.Number {
		return fmt.Errorf("epoch %d with checkpoint %d after epoch %d", e.Number, c.Epoch, t.Epoch)
	}
	t.Epoch, t.Last = e.Number, e
	s.last[trial-1] = &c
	s.epochs[trial-1]++
	s.history[trial-1] = append(s.history[trial-1], e)
	s.stored(trial)
	return nil
}

func (s *fakeStore) end(ctx context.Context, attempt int64, o search.Outcome) (search.Status, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	trial := s.attempts[attempt-1]
	if err := cmp.Or(ctx.Err(), s.refuse("end", trial)); err != nil {
		return "", err
	}
	key := fmt.Sprint(trial, o.Failure)
	s.fails[key]++
	status := o.Status
	if status == search.Failed && s.fails[key] <= o.Retries {
		status = search.Pending
	}
	t := &s.trials[trial-1]
	t.Status, t.Error, t.Failure = status, "", ""
	if status == search.Failed || status == search.Diverged {
		t.Error, t.Failure = o.Message, o.Failure
	}
	s.stored(trial)
	return status, nil
}

// fakeTrainer reports results that depend only on pair, seed and epoch. If at is set, it is called
// before each step, and its error ends the training.
type fakeTrainer struct {
	steps int
	at    func(ctx context.Context, job search.Job, epoch, step int) error
}

func (f fakeTrainer) Train(ctx context.Context, job search.Job, r search.Reporter) error {
	from := 0
	if job.From != nil {
		from = job.From.Epoch
	}
	for e := from + 1; e <= cmp.Or(min(job.Until, job.Study.Epochs), job.Study.Epochs); e++ {
		for step := range f.steps {
			if err := ctx.Err(); err != nil {
				return fmt.Errorf("epoch %d, step %d: %w", e, step, err)
			}
			if f.at != nil {
				if err := f.at(ctx, job, e, step); err != nil {
					return err
				}
			}
			r.Step(e, step+1, f.steps)
		}
		m := search.Epoch{Number: e, TrainLoss: float64(job.System.Pair().L*1000+job.Seed) / float64(e),
			TestCorrect: job.System.Pair().M + e, TestTotal: 100}
		if err := r.Epoch(m, search.Checkpoint{Epoch: e, State: []byte{byte(e)}}); err != nil {
			return fmt.Errorf("epoch %d: %w", e, err)
		}
	}
	return nil
}

type trainerFunc func(context.Context, search.Job, search.Reporter) error

func (f trainerFunc) Train(ctx context.Context, j search.Job, r search.Reporter) error {
	return f(ctx, j, r)
}

// counts returns a summary without its reason.
func counts(s search.Summary) search.Summary {
	s.Reason, s.Stopped = "", false
	return s
}

func study(t *testing.T) (search.Study, []search.Trial) {
	t.Helper()
	s := search.Default()
	s.Name, s.Dataset, s.Pairs, s.Epochs = "fake", "synthetic", []string{"40x2", "64x1", "1x23", "6x9"}, 3
	s.Seeds = search.FirstSeeds(2)
	s, err := s.Normalize()
	if err != nil {
		t.Fatal(err)
	}
	return s, s.Trials(space.Shape{C: 3, H: 32, W: 32}, 10)
}

// is reports whether a job is that of a pair and a seed.
func is(j search.Job, pair space.Pair, seed int) bool {
	return j.System == space.PairSystem(pair) && j.Seed == seed
}

func TestRunner(t *testing.T) {
	t.Parallel()
	t.Run("an attempt records the precision as part of the arithmetic", func(t *testing.T) {
		t.Parallel()
		for _, c := range []struct{ precision, isa, want string }{
			{search.PrecisionTF32, "cuda sm_80, cuda sm_90", "cuda sm_80 tf32, cuda sm_90 tf32"},
			{search.PrecisionBF16, "avx512", "bf16"}, {search.PrecisionBF16, "portable", "bf16"},
			{search.PrecisionAMX, "avx512", "bf16-amx"}, {search.PrecisionAMX, "portable", "bf16-amx"},
		} {
			s, trials := study(t)
			s.Precision = c.precision
			store := &fakeStore{}
			r := search.Runner{Store: store, Trainer: fakeTrainer{steps: 2}, Attempt: search.Attempt{ISA: c.isa}}
			if _, err := r.Run(t.Context(), s, strategyOf(s), trials); err != nil {
				t.Fatal(err)
			}
			if store.template.ISA != c.want {
				t.Errorf("%s on %s has %q, want %q", c.precision, c.isa, store.template.ISA, c.want)
			}
		}
	})
	t.Run("one worker starts the trials in the order given", func(t *testing.T) {
		t.Parallel()
		s, trials := study(t)
		store := &fakeStore{}
		r := search.Runner{Store: store, Trainer: fakeTrainer{steps: 2}, Attempt: search.Attempt{Host: "here"}}
		sum, err := r.Run(t.Context(), s, strategyOf(s), trials)
		if err != nil || counts(sum) != (search.Summary{Done: 8}) {
			t.Fatalf("got %+v, %v", sum, err)
		}
		var want []string
		for _, tr := range trials {
			want = append(want, fmt.Sprintf("%v/%d", tr.System.Label(), tr.Seed))
		}
		if !slices.Equal(store.began, want) {
			t.Errorf("began %v, want %v", store.began, want)
		}
		if store.template.Host != "here" || time.Since(store.template.Started) > time.Minute {
			t.Errorf("attempt %+v: want the template with its start", store.template)
		}
	})
	t.Run("ends within an epoch if the heartbeat finds the store gone", func(t *testing.T) {
		t.Parallel()
		s, trials := study(t)
		training := make(chan struct{})
		gone := fmt.Errorf("fake.db was removed: %w", search.ErrGone)
		store := &fakeStore{beat: func() error { <-training; return gone }}
		tr := trainerFunc(func(ctx context.Context, _ search.Job, _ search.Reporter) error {
			close(training)
			<-ctx.Done()
			return ctx.Err()
		})
		_, err := (&search.Runner{Store: store, Trainer: tr}).Run(t.Context(), s, strategyOf(s), trials)
		if !errors.Is(err, search.ErrGone) {
			t.Errorf("%v, want that the store is gone", err)
		}
	})
	t.Run("the results do not depend on the workers", func(t *testing.T) {
		t.Parallel()
		s, trials := study(t)
		var want []search.Trial
		for _, workers := range []int{1, 2, 8, 100} {
			store := &fakeStore{}
			r := search.Runner{Store: store, Trainer: fakeTrainer{steps: 2}, Workers: workers}
			if _, err := r.Run(t.Context(), s, strategyOf(s), trials); err != nil {
				t.Fatal(err)
			}
			if want == nil {
				want = store.trials
			}
			if !reflect.DeepEqual(store.trials, want) {
				t.Errorf("%d workers end with %+v, 1 worker with %+v", workers, store.trials, want)
			}
		}
	})
	t.Run("a trial whose process was killed after its last epoch only needs its end", func(t *testing.T) {
		t.Parallel()
		s, trials := study(t)
		store := &fakeStore{}
		if _, err := store.Plan(t.Context(), s, trials); err != nil {
			t.Fatal(err)
		}
		store.trials[2].Status, store.trials[2].Epoch = search.Running, 3
		store.last[2] = &search.Checkpoint{Epoch: 3}
		r := search.Runner{Store: store, Trainer: fakeTrainer{steps: 1,
			at: func(_ context.Context, j search.Job, _, _ int) error {
				if j.From != nil {
					return errors.New("it was trained again")
				}
				return nil
			}}}
		sum, err := r.Run(t.Context(), s, strategyOf(s), trials)
		if err != nil || counts(sum) != (search.Summary{Done: 8}) || store.epochs[2] != 0 {
			t.Errorf("got %+v, %v, %d epochs recorded", sum, err, store.epochs[2])
		}
	})
}

// TestRunnerWorkers checks that as many trials run at once as there are workers, and no more.
func TestRunnerWorkers(t *testing.T) {
	t.Parallel()
	s, trials := study(t)
	const workers = 3
	var running, most atomic.Int32
	full := make(chan struct{})
	store := &fakeStore{}
	r := search.Runner{Store: store, Workers: workers,
		Trainer: fakeTrainer{steps: 1, at: func(_ context.Context, _ search.Job, e, _ int) error {
			if e != 1 {
				return nil
			}
			n := running.Add(1)
			defer running.Add(-1)
			for {
				old := most.Load()
				if n <= old || most.CompareAndSwap(old, n) {
					break
				}
			}
			if n == workers {
				select {
				case <-full:
				default:
					close(full)
				}
			}
			<-full // go on only when all places have been taken once
			return nil
		}}}
	sum, err := r.Run(t.Context(), s, strategyOf(s), trials)
	if err != nil || sum.Done != len(trials) {
		t.Fatalf("got %+v, %v", sum, err)
	}
	if most.Load() != workers {
		t.Errorf("%d trials ran at once, want %d", most.Load(), workers)
	}
}

func TestRunnerOutcomes(t *testing.T) {
	t.Parallel()
	t.Run("a failed, a panicking and a diverged trial do not stop the others", func(t *testing.T) {
		t.Parallel()
		s, trials := study(t)
		fails := func(j search.Job) bool { return is(j, space.Pair{L: 40, M: 2}, 0) }
		panics := func(j search.Job) bool { return is(j, space.Pair{L: 64, M: 1}, 1) }
		diverges := func(j search.Job) bool { return is(j, space.Pair{L: 1, M: 23}, 0) }
		store := &fakeStore{}
		r := search.Runner{Store: store, Workers: 2,
			Trainer: fakeTrainer{steps: 2, at: func(_ context.Context, j search.Job, e, step int) error {
				switch {
				case e != 2:
				case fails(j):
					return errors.New("first line\nlast line")
				case panics(j):
					var none []int
					_ = none[step]
				case diverges(j):
					return fmt.Errorf("epoch 2, step 0: %w", search.ErrDiverged)
				}
				return nil
			}}}
		sum, err := r.Run(t.Context(), s, strategyOf(s), trials)
		if err != nil || counts(sum) != (search.Summary{Done: 5, Diverged: 1, Failed: 2}) {
			t.Fatalf("got %+v, %v", sum, err)
		}
		for _, tr := range store.trials {
			j := search.Job{Key: search.Key{System: tr.System, Seed: tr.Seed}}
			switch {
			case fails(j):
				if tr.Status != search.Failed || tr.Error != "first line; last line" || tr.Epoch != 1 {
					t.Errorf("the failed trial is %+v", tr)
				}
			case panics(j):
				if tr.Status != search.Failed || !strings.HasPrefix(tr.Error,
					"panic: runtime error: index out of range [0] with length 0 at runner_test.go:") ||
					!strings.Contains(tr.Error, "fakeTrainer.Train") || strings.Contains(tr.Error, "\n") {
					t.Errorf("the trial that panicked is %+v", tr)
				}
			case diverges(j):
				if tr.Status != search.Diverged || tr.Error != "epoch 2, step 0: the loss is not finite" ||
					tr.Epoch != 1 {
					t.Errorf("the diverged trial is %+v", tr)
				}
			default:
				if tr.Status != search.Done || tr.Epoch != 3 {
					t.Errorf("the trial is %+v", tr)
				}
			}
		}
	})
	t.Run("a trainer that stops early has failed", func(t *testing.T) {
		t.Parallel()
		s, trials := study(t)
		long := s
		s.StopAfter = 0
		long.Epochs = 5 // the store expects these; the trainer trains 3
		for i := range trials {
			trials[i].Epochs = long.Epochs
		}
		store := &fakeStore{}
		sum, err := (&search.Runner{Store: store, Trainer: fakeTrainer{steps: 1}}).Run(t.Context(), s, strategyOf(s),
			trials)
		if err != nil || sum.Failed != len(trials) ||
			store.trials[0].Error != "the trainer stopped after epoch 3 of 5" {
			t.Errorf("got %+v, %v, %+v", sum, err, store.trials[0])
		}
	})
}

// TestRunnerCancelled checks that a cancelled run stops at the next batch, and that the next run
// continues it.
func TestRunnerCancelled(t *testing.T) {
	t.Parallel()
	s, trials := study(t)
	straight := &fakeStore{}
	if _, err := (&search.Runner{Store: straight, Trainer: fakeTrainer{steps: 4}}).Run(t.Context(), s,
		strategyOf(s), trials); err != nil {
		t.Fatal(err)
	}

	ctx, cancel := context.WithCancel(t.Context())
	store := &fakeStore{}
	var after atomic.Int32 // steps begun after the cancel
	tr := fakeTrainer{steps: 4, at: func(_ context.Context, j search.Job, e, step int) error {
		if ctx.Err() != nil {
			after.Add(1)
		}
		if len(trials) > 3 && j.System == trials[3].System && j.Seed == trials[3].Seed && e == 2 && step == 1 {
			cancel()
		}
		return nil
	}}
	sum, err := (&search.Runner{Store: store, Trainer: tr}).Run(ctx, s, strategyOf(s), trials)
	if !errors.Is(err, context.Canceled) || counts(sum) != (search.Summary{Done: 3, Left: 5}) {
		t.Fatalf("got %+v, %v", sum, err)
	}
	if n := after.Load(); n != 0 {
		t.Errorf("%d steps after the cancel", n)
	}
	if got := store.trials[3]; got.Status != search.Pending || got.Epoch != 1 || got.Error != "" {
		t.Errorf("the interrupted trial is %+v", got)
	}

	store.began = nil
	sum, err = (&search.Runner{Store: store, Trainer: fakeTrainer{steps: 4}}).Run(t.Context(), s, strategyOf(s),
		trials)
	if err != nil || counts(sum) != (search.Summary{Done: 8}) {
		t.Fatalf("resumed: got %+v, %v", sum, err)
	}
	if len(store.began) != 5 {
		t.Errorf("resuming began %v, want the 5 unfinished", store.began)
	}
	if !reflect.DeepEqual(store.trials, straight.trials) {
		t.Errorf("resumed run ends with %+v, straight run with %+v", store.trials, straight.trials)
	}
	for i, n := range store.epochs {
		if n != s.Epochs {
			t.Errorf("trial %d recorded %d epochs, want each of %d once", i, n, s.Epochs)
		}
	}

	store.began = nil
	sum, err = (&search.Runner{Store: store, Trainer: fakeTrainer{}}).Run(t.Context(), s, strategyOf(s), trials)
	if err != nil || counts(sum) != (search.Summary{Done: 8}) || store.began != nil {
		t.Errorf("complete study: got %+v, %v, began %v", sum, err, store.began)
	}
}

func TestRunnerStoreFails(t *testing.T) {
	t.Parallel()
	diskFull := errors.New("disk full")
	for _, call := range []string{"plan", "begin", "record", "end"} {
		t.Run("a store that fails to "+call+" stops the run", func(t *testing.T) {
			t.Parallel()
			s, trials := study(t)
			failed := make(chan struct{})
			store := &fakeStore{fail: func(c string, trial int64) error {
				if c == call && trial <= 1 {
					if trial == 1 {
						close(failed)
					}
					return diskFull
				}
				return nil
			}}
			// The second worker's trial goes on until the failure cancels it.
			tr := fakeTrainer{steps: 1, at: func(ctx context.Context, j search.Job, _, _ int) error {
				if j.System == trials[0].System && j.Seed == trials[0].Seed {
					return nil
				}
				<-failed
				<-ctx.Done()
				return ctx.Err()
			}}
			sum, err := (&search.Runner{Store: store, Trainer: tr, Workers: 2}).Run(t.Context(), s, strategyOf(s),
				trials)
			want := "L40M2 seed 0: " + call + " in fake.db: disk full"
			if call == "plan" {
				want = "plan in fake.db: disk full"
			}
			if !errors.Is(err, diskFull) || err.Error() != want {
				t.Fatalf("got %v, want %s", err, want)
			}
			if counts(sum) != (search.Summary{Left: len(trials)}) {
				t.Errorf("got %+v, want all left", sum)
			}
			if n := len(store.began); n > 2 {
				t.Errorf("%d trials began, want at most 2", n)
			}
		})
	}
}

// memoryDevice has room for a number of places. A training that needs more than are free ends with
// ErrNoMemory. No training goes on before gather of them have begun.
type memoryDevice struct {
	mu              sync.Mutex
	places, running int
	gather, came    int
	gathered        chan struct{}
	need            func(search.Job) int // the places of a training; nil means one
}

// trainer returns a trainer on the device.
func (d *memoryDevice) trainer() search.Trainer {
	d.gathered = make(chan struct{})
	return trainerFunc(func(ctx context.Context, j search.Job, r search.Reporter) error {
		n := 1
		if d.need != nil {
			n = d.need(j)
		}
		d.mu.Lock()
		full := d.running+n > d.places
		if !full {
			d.running += n
		}
		if d.came++; d.came == d.gather {
			close(d.gathered)
		}
		d.mu.Unlock()
		<-d.gathered
		if full {
			return fmt.Errorf("epoch 1, step 1: %w", search.ErrNoMemory)
		}
		defer func() {
			d.mu.Lock()
			defer d.mu.Unlock()
			d.running -= n
		}()
		return fakeTrainer{steps: 1}.Train(ctx, j, r)
	})
}

func TestRunnerDeviceFails(t *testing.T) {
	t.Parallel()
	t.Run("its trials are put back without a retry and go on from their last epoch", func(t *testing.T) {
		t.Parallel()
		s, trials := study(t)
		s.RetryCrashed, s.StopAfter = 0, 2
		straight, store := &fakeStore{}, &fakeStore{}
		if _, err := (&search.Runner{Store: straight, Trainer: fakeTrainer{steps: 1}}).Run(t.Context(), s,
			strategyOf(s), trials); err != nil {
			t.Fatal(err)
		}
		var mu sync.Mutex
		failed, put := map[search.Key]int{}, 0
		tr := fakeTrainer{steps: 1, at: func(_ context.Context, j search.Job, e, _ int) error {
			mu.Lock()
			defer mu.Unlock()
			if e == 2 && failed[j.Key] < 2 {
				failed[j.Key]++
				return fmt.Errorf("epoch 2, step 1: %w", search.ErrDevice)
			}
			return nil
		}}
		sum, err := (&search.Runner{Store: store, Workers: 3, Trainer: tr, Notify: func(e search.Event) {
			if e.Kind == search.Ended && e.Trial.Status == search.Pending {
				put++
				if e.Trial.Failure != search.FailedLost || e.Trial.Error != "epoch 2, step 1: the device failed" {
					t.Errorf("put back with %q, %q", e.Trial.Failure, e.Trial.Error)
				}
			}
		}}).Run(t.Context(), s, strategyOf(s), trials)
		if err != nil || counts(sum) != (search.Summary{Done: len(trials)}) || put != 2*len(trials) ||
			!reflect.DeepEqual(store.trials, straight.trials) || !slices.Equal(store.epochs, straight.epochs) {
			t.Errorf("got %+v, %v, %d put back, epochs %v", sum, err, put, store.epochs)
		}
	})

	t.Run("without a device the run ends, and the next one goes on", func(t *testing.T) {
		t.Parallel()
		s, trials := study(t)
		store, none := &fakeStore{}, errors.New("cuda:0 fell off the bus")
		tr := fakeTrainer{steps: 1, at: func(_ context.Context, _ search.Job, e, _ int) error {
			if e == 2 {
				return fmt.Errorf("%w: %w", search.ErrNoDevice, none)
			}
			return nil
		}}
		sum, err := (&search.Runner{Store: store, Workers: 2, Trainer: tr}).Run(t.Context(), s, strategyOf(s), trials)
		if !errors.Is(err, none) || err.Error() != "no device is left to train on: cuda:0 fell off the bus" ||
			counts(sum) != (search.Summary{Left: len(trials)}) || len(store.attempts) > 2 {
			t.Errorf("got %+v, %v after %d attempts", sum, err, len(store.attempts))
		}
		sum, err = (&search.Runner{Store: store, Trainer: fakeTrainer{steps: 1}}).Run(t.Context(), s, strategyOf(s), trials)
		if err != nil || counts(sum) != (search.Summary{Done: len(trials)}) ||
			slices.ContainsFunc(store.epochs, func(n int) bool { return n != 3 }) {
			t.Errorf("afterwards: got %+v, %v, epochs %v", sum, err, store.epochs)
		}
	})
}

func TestRunnerMemory(t *testing.T) {
	t.Parallel()
	t.Run("trials are put back, and done when fewer run", func(t *testing.T) {
		t.Parallel()
		s, trials := study(t)
		straight := &fakeStore{}
		if _, err := (&search.Runner{Store: straight, Trainer: fakeTrainer{steps: 1}}).Run(t.Context(), s,
			strategyOf(s), trials); err != nil {
			t.Fatal(err)
		}
		for _, workers := range []int{2, 3, 8, 20} {
			store, put, n := &fakeStore{}, 0, min(workers, len(trials))
			d := &memoryDevice{places: 1, gather: n}
			r := search.Runner{Store: store, Workers: workers, Trainer: d.trainer(), Notify: func(e search.Event) {
				if e.Kind == search.Ended && e.Trial.Status == search.Pending {
					put++
					if e.Trial.Error != "epoch 1, step 1: not enough memory" {
						t.Errorf("put back with %q", e.Trial.Error)
					}
				}
			}}
			sum, err := r.Run(t.Context(), s, strategyOf(s), trials)
			if err != nil || counts(sum) != (search.Summary{Done: len(trials)}) ||
				!reflect.DeepEqual(store.trials, straight.trials) {
				t.Fatalf("%d workers: got %+v, %v", workers, sum, err)
			}
			// All workers but one have ended then.
			if put != n-1 || d.came != len(trials)+put {
				t.Errorf("%d workers: %d put back, %d trainings", workers, put, d.came)
			}
		}
	})

	t.Run("a trial fails if it ran alone, or if the memory is too small again", func(t *testing.T) {
		t.Parallel()
		s, trials := study(t)
		large := func(j search.Job) int {
			if j.System == trials[0].System && j.Seed == trials[0].Seed {
				return 100
			}
			return 1
		}
		for workers, again := range map[int]int{1: 0, 4: 1} {
			store := &fakeStore{}
			d := &memoryDevice{places: 99, gather: workers, need: large}
			sum, err := (&search.Runner{Store: store, Workers: workers, Trainer: d.trainer()}).Run(t.Context(), s,
				strategyOf(s), trials)
			if err != nil || counts(sum) != (search.Summary{Done: 7, Failed: 1}) || d.came != len(trials)+again {
				t.Errorf("%d workers: got %+v, %v after %d trainings", workers, sum, err, d.came)
			}
			if tr := store.trials[0]; tr.Status != search.Failed ||
				tr.Error != "epoch 1, step 1: not enough memory" {
				t.Errorf("%d workers: it is %+v", workers, tr)
			}
		}
	})
}

func TestRunnerMemoryLast(t *testing.T) {
	t.Parallel()
	t.Run("the last trial is put back after its neighbours have ended, from where it was", func(t *testing.T) {
		t.Parallel()
		s, trials := study(t)
		trials = trials[:2]
		store := &fakeStore{}
		both, ended := make(chan struct{}), make(chan struct{})
		first := true // only trial 1 reads it
		tr := fakeTrainer{steps: 1, at: func(_ context.Context, j search.Job, e, _ int) error {
			switch {
			case j.System == trials[0].System:
				<-both
			case e == 2 && first:
				first = false
				close(both)
				<-ended
				return search.ErrNoMemory
			}
			return nil
		}}
		r := search.Runner{Store: store, Workers: 2, Trainer: tr, Notify: func(e search.Event) {
			if e.Kind == search.Ended && e.Trial.System == trials[0].System {
				close(ended)
			}
		}}
		sum, err := r.Run(t.Context(), s, strategyOf(s), trials)
		if err != nil || counts(sum) != (search.Summary{Done: 2}) || !slices.Equal(store.epochs, []int{3, 3}) ||
			len(store.attempts) != 3 {
			t.Errorf("got %+v, %v, epochs %v, attempts %v", sum, err, store.epochs, store.attempts)
		}
	})
}

// TestRunnerEvents checks that events come one at a time, and that none is missing.
func TestRunnerEvents(t *testing.T) {
	t.Parallel()
	s, trials := study(t)
	var inside atomic.Int32
	seen := map[string][]search.Event{} // unguarded: -race would tell
	r := search.Runner{Store: &fakeStore{}, Trainer: fakeTrainer{steps: 2}, Workers: 4,
		Notify: func(e search.Event) {
			if inside.Add(1) != 1 {
				t.Error("two events at once")
			}
			defer inside.Add(-1)
			if e.Kind == search.Planned {
				if len(seen) > 0 || len(e.Trials) != len(trials) || e.Trials[0].ID == 0 {
					t.Errorf("planned %+v after %d trials", e.Trials, len(seen))
				}
				return
			}
			key := fmt.Sprint(e.Trial.System, e.Trial.Seed)
			seen[key] = append(seen[key], e)
		}}
	if _, err := r.Run(t.Context(), s, strategyOf(s), trials); err != nil {
		t.Fatal(err)
	}
	for _, tr := range trials {
		var got []string
		for _, e := range seen[fmt.Sprint(tr.System, tr.Seed)] {
			got = append(got, fmt.Sprintf("%s %s %d %d/%d", e.Kind, e.Trial.Status, e.Trial.Epoch, e.Step, e.Steps))
		}
		want := []string{
			"began running 0 0/0",
			"stepped running 0 1/2", "stepped running 0 2/2", "epoch stored running 1 0/0",
			"stepped running 1 1/2", "stepped running 1 2/2", "epoch stored running 2 0/0",
			"stepped running 2 1/2", "stepped running 2 2/2", "epoch stored running 3 0/0",
			"ended done 3 0/0",
		}
		if !slices.Equal(got, want) {
			t.Errorf("%v seed %d: events %q, want %q", tr.System, tr.Seed, got, want)
		}
	}
}

// farDesk is a desk that cannot be reached: Claim waits for its context.
type farDesk struct {
	search.Desk
	asked chan struct{} // closed by the first Claim
	once  sync.Once
}

func (d *farDesk) Claim(ctx context.Context, _ search.Ask) (*search.Claim, time.Duration, error) {
	d.once.Do(func() { close(d.asked) })
	<-ctx.Done()
	return nil, 0, ctx.Err()
}

func (d *farDesk) Beat(context.Context) (time.Duration, error) { return time.Hour, nil }

// TestDrainOutOfReach checks that a run without trials that drains does not wait for a desk that it
// cannot reach.
func TestDrainOutOfReach(t *testing.T) {
	t.Parallel()
	drain := make(chan struct{})
	desk := &farDesk{asked: make(chan struct{})}
	runner := search.Runner{Workers: 2, Drain: drain}
	ended := make(chan error, 1)
	go func() { ended <- runner.Work(t.Context(), desk) }()
	<-desk.asked
	close(drain)
	if err := <-ended; err != nil {
		t.Errorf("it ended with %v", err)
	}
}
