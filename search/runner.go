package search

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/sourcegraph/conc/panics"
	"github.com/sourcegraph/conc/pool"
)

// Runner works through the trials of a study, Workers at a time. What it ends
// with does not depend on Workers, on the order in which trials end, or on how
// often it was interrupted; the Trainer's results are functions of the job.
//
// A trial that meets ErrNoMemory beside others is put back once: it is trained
// again, and its worker is missing for the rest of the run.
type Runner struct {
	Store   Store
	Trainer Trainer
	// Workers is how many trials run at once; below 1 counts as 1.
	Workers int
	// Attempt is the template of every attempt; the runner sets Started.
	Attempt Attempt
	// Notify, if set, hears of the run. Its calls are serialised, but come
	// from the goroutines of the workers, which wait for it: it must be quick.
	Notify func(Event)
}

// EventKind says what an Event tells of.
type EventKind string

const (
	// Planned: the study is stored; Trials are all its trials as they stand.
	Planned EventKind = "planned"
	// Began: a worker took the trial; Trial.Epoch is where it goes on from.
	Began EventKind = "began"
	// Stepped: the trial finished mini-batch Step of Steps of an epoch.
	Stepped EventKind = "stepped"
	// EpochStored: an epoch and its checkpoint are in the store.
	EpochStored EventKind = "epoch stored"
	// Ended: the attempt is closed; Trial.Status and Trial.Error say how. A
	// pending trial with an error was put back and will begin again.
	Ended EventKind = "ended"
)

// Event is one thing that happened in a run.
type Event struct {
	Kind   EventKind
	Trials []Trial // of Planned only
	Trial  Trial   // not of Planned; as it stands after what happened
	Step   int     // of Stepped only: mini-batches done in epoch Trial.Epoch+1
	Steps  int     // of Stepped only: mini-batches of one epoch
}

// Summary counts the trials of a study by how they stand after a run.
type Summary struct {
	Done     int
	Diverged int
	Failed   int
	Left     int // pending: not started, or interrupted
}

// Run plans the study and trains every trial that has no result yet, starting
// them in the order given. A trial that fails, by an error or a panic, is
// stored as failed and the others go on. If ctx ends, each running trial stops
// at its next mini-batch, its attempt is closed as pending, and Run returns
// ctx's error. If the store fails, the run stops the same way and Run returns
// the store's error. The summary is valid beside either error.
func (r *Runner) Run(ctx context.Context, study Study, trials []Trial) (Summary, error) {
	planned, err := r.Store.Plan(ctx, study, trials)
	if err != nil {
		return Summary{Left: len(trials)}, err // it names the study
	}

	var mu sync.Mutex // guards sum and serialises Notify
	var sum Summary
	notify := func(e Event) {
		mu.Lock()
		defer mu.Unlock()
		if e.Kind == Ended {
			sum.Left--
			sum.count(e.Trial.Status)
		}
		if r.Notify != nil {
			r.Notify(e)
		}
	}
	var todo []Trial
	for _, t := range planned {
		if t.Status.Finished() {
			sum.count(t.Status)
		} else {
			todo = append(todo, t)
		}
	}
	sum.Left = len(todo)
	notify(Event{Kind: Planned, Trials: planned})

	// A worker returns an error for a failing store only; the first one cancels
	// the context of the others.
	p := pool.New().WithContext(ctx).WithCancelOnError().WithFirstError()
	q := newQueue(todo, max(1, r.Workers))
	for range q.workers {
		p.Go(func(ctx context.Context) error {
			for ctx.Err() == nil { // what is not taken stays pending
				t := q.take()
				if t == nil {
					return nil
				}
				if err := r.trial(ctx, study, t, q, notify); err != nil {
					return err
				}
				if q.done(t) {
					return nil
				}
			}
			return nil
		})
	}
	if err := p.Wait(); err != nil {
		return sum, err
	}
	return sum, ctx.Err()
}

func (s *Summary) count(status Status) {
	switch status {
	case Done:
		s.Done++
	case Diverged:
		s.Diverged++
	case Failed:
		s.Failed++
	default:
		s.Left++
	}
}

// queue is the trials that wait, for workers that take them in order.
type queue struct {
	mu      sync.Mutex
	waiting []*turn
	running []*turn
	workers int // left
}

// turn is one trial's turn with a worker, or its second.
type turn struct {
	Trial
	company bool // others run, or ran, in this turn
	most    int  // of a second turn: trials that may run then, itself too; else 0
}

func newQueue(trials []Trial, workers int) *queue {
	q := &queue{workers: min(workers, len(trials))}
	for _, t := range trials {
		q.waiting = append(q.waiting, &turn{Trial: t})
	}
	return q
}

// take gives a worker the next trial. If there is none, the worker must end:
// those that still run will look for what is left.
func (q *queue) take() *turn {
	q.mu.Lock()
	defer q.mu.Unlock()
	n := len(q.running) + 1
	i := slices.IndexFunc(q.waiting, func(t *turn) bool { return t.most == 0 || n <= t.most })
	if i < 0 {
		q.workers--
		return nil
	}
	q.running = append(q.running, q.waiting[i])
	q.waiting = slices.Delete(q.waiting, i, i+1)
	for _, t := range q.running {
		t.company = t.company || n > 1
	}
	return q.running[n-1]
}

// again reports whether a trial without memory gets a second turn, beside fewer
// than run now: if it was not alone in its first.
func (q *queue) again(t *turn) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	if t.most > 0 || !t.company {
		return false
	}
	t.most = max(1, len(q.running)-1)
	return true
}

// done ends a turn. A trial that was put back becomes the next, and unless its
// worker is the last it must end.
func (q *queue) done(t *turn) (end bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.running = slices.DeleteFunc(q.running, func(r *turn) bool { return r == t })
	if t.Status != Pending || t.Error == "" {
		return false
	}
	q.waiting = slices.Insert(q.waiting, 0, t)
	if q.workers == 1 {
		return false
	}
	q.workers--
	return true
}

// trial gives one trial its turn, and leaves in it how it stands. The error is
// the store's, which says what it could not do, with the trial.
func (r *Runner) trial(ctx context.Context, study Study, turn *turn, q *queue, notify func(Event)) error {
	t := turn.Trial
	defer func() { turn.Trial = t }() // as done and a second turn want it
	a := r.Attempt
	a.Started = time.Now()
	// What happened is stored even when ctx is done: only Train gets ctx.
	keep := context.WithoutCancel(ctx)
	id, from, err := r.Store.Begin(keep, t.ID, a)
	if err != nil {
		return fmt.Errorf("%v seed %d: %w", t.System.Label(), t.Seed, err)
	}
	t.Status, t.Error = Running, ""
	if from != nil {
		t.Epoch = from.Epoch
	} else {
		t.Epoch, t.Last = 0, Epoch{}
	}
	notify(Event{Kind: Began, Trial: t})

	rep := &reporter{trial: t, notify: notify, record: func(e Epoch, c Checkpoint) error {
		return r.Store.Record(keep, id, e, c)
	}}
	var trainErr error
	if t.Epoch < t.Epochs { // not killed between the last epoch and its end
		trainErr = r.train(ctx, Job{Study: study, System: t.System, Seed: t.Seed, From: from}, rep)
	}
	t = rep.trial
	if rep.err != nil {
		// The attempt stays open; the next Plan takes the trial back.
		return fmt.Errorf("%v seed %d: %w", t.System.Label(), t.Seed, rep.err)
	}
	switch {
	case errors.Is(trainErr, ErrDiverged):
		t.Status, t.Error = Diverged, oneLine(trainErr)
	case trainErr != nil && ctx.Err() != nil && errors.Is(trainErr, ctx.Err()):
		t.Status = Pending
	case errors.Is(trainErr, ErrNoMemory) && q.again(turn):
		t.Status, t.Error = Pending, oneLine(trainErr)
	case trainErr != nil:
		t.Status, t.Error = Failed, oneLine(trainErr)
	case t.Epoch < t.Epochs:
		t.Status, t.Error = Failed, fmt.Sprintf("the trainer stopped after epoch %d of %d", t.Epoch, t.Epochs)
	default:
		t.Status = Done
	}
	if err := r.Store.End(keep, id, t.Status, t.Error); err != nil {
		return fmt.Errorf("%v seed %d: %w", t.System.Label(), t.Seed, err)
	}
	notify(Event{Kind: Ended, Trial: t})
	return nil
}

// train is Trainer.Train with a panic turned into an error that names the
// innermost calls.
func (r *Runner) train(ctx context.Context, job Job, rep Reporter) (err error) {
	if p := panics.Try(func() { err = r.Trainer.Train(ctx, job, rep) }); p != nil {
		return fmt.Errorf("panic: %v%s", p.Value, where(p.Callers))
	}
	return err
}

// where names the first calls below a panic, " at file.go:12 in pkg.F, …".
func where(callers []uintptr) string {
	const most = 4
	var at []string
	panicked := false
	for frames := runtime.CallersFrames(callers); len(at) < most; {
		f, more := frames.Next()
		inRuntime := strings.HasPrefix(f.Function, "runtime.")
		if panicked && !inRuntime {
			at = append(at, fmt.Sprintf("%s:%d in %s", filepath.Base(f.File), f.Line, f.Function[strings.LastIndex(f.Function, "/")+1:]))
		}
		panicked = panicked || inRuntime && strings.Contains(f.Function, "panic")
		if !more {
			break
		}
	}
	if len(at) == 0 {
		return ""
	}
	return " at " + strings.Join(at, ", ")
}

// oneLine is the text of err on one line, as Trial.Error wants it.
func oneLine(err error) string {
	return strings.Join(strings.FieldsFunc(err.Error(), func(r rune) bool { return r == '\n' || r == '\r' }), "; ")
}

// reporter stores the epochs of one attempt and passes them on as events.
type reporter struct {
	record func(Epoch, Checkpoint) error
	trial  Trial
	notify func(Event)
	err    error // the store's first
}

func (r *reporter) Step(epoch, done, total int) {
	r.notify(Event{Kind: Stepped, Trial: r.trial, Step: done, Steps: total})
}

func (r *reporter) Epoch(e Epoch, c Checkpoint) error {
	if r.err == nil {
		r.err = r.record(e, c)
	}
	if r.err != nil {
		return r.err
	}
	r.trial.Epoch, r.trial.Last = e.Number, e
	r.notify(Event{Kind: EpochStored, Trial: r.trial})
	return nil
}
