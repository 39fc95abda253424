package search

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/sourcegraph/conc"
	"github.com/sourcegraph/conc/panics"
	"github.com/sourcegraph/conc/pool"
)

// Runner trains trials, Workers at a time: those of a study in a Store, beside
// any number of other processes that share it, or what a Desk gives it. What a
// trial ends with does not depend on Workers, on the order in which trials end,
// or on how often it was interrupted; the Trainer's results are functions of the
// job.
//
// A trial that meets ErrNoMemory beside others is put back, RetryMemory times: it
// is trained again, and its worker is missing for the rest of the run.
type Runner struct {
	Store   Store // of Run
	Trainer Trainer
	// Workers is how many trials run at once; below 1 counts as 1.
	Workers int
	// Attempt is the template of every attempt of Run; Started is set.
	Attempt Attempt
	// Notify, if set, hears of the run. Its calls are serialised, but come
	// from the goroutines of the workers, which wait for it: it must be quick.
	Notify func(Event)
	// Grace is how long a Trainer may take to return after its context ended;
	// then it is left alone with its goroutine. 0 is 30 seconds.
	Grace time.Duration
	// Wait is how often a worker of Run without a trial looks for one that
	// another process left; 0 is half a second.
	Wait time.Duration
	// Drain, once closed, lets no trial begin, and gives those that run back at
	// their next epoch.
	Drain <-chan struct{}
	// Deadline is when the process has to end; zero is never. A trial is given
	// back at an epoch if the next one would end later.
	Deadline time.Time
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
	// pending trial with an error was put back and will begin again; without
	// one it was interrupted, or has reached the epoch of its turn.
	Ended EventKind = "ended"
	// Elsewhere: another process changed the trial.
	Elsewhere EventKind = "elsewhere"
	// Noted: Note is for people to read, about the trial if it has an ID.
	Noted EventKind = "noted"
)

// Event is one thing that happened in a run.
type Event struct {
	Kind   EventKind
	Study  string  // its name; of those about a trial of Work
	Trials []Trial // of Planned only
	Trial  Trial   // not of Planned; as it stands after what happened
	Step   int     // of Stepped only: mini-batches done in epoch Trial.Epoch+1
	Steps  int     // of Stepped only: mini-batches of one epoch
	Note   string  // of Noted only: one line
}

// Summary counts the trials of a study by how they stand after a run.
type Summary struct {
	Done     int
	Diverged int
	Failed   int
	Left     int // pending: not started, or interrupted; or running elsewhere
	// Reason says on one line why the run is over: what the strategy says, or
	// which budget is spent. "" beside an error.
	Reason string
	// Stopped: a budget is spent, and a larger one would go on.
	Stopped bool
}

// Run plans the study and trains what its strategy wants, until it wants no
// more or a budget is spent. A trial that fails, by an error or a panic, is
// tried again as often as the study says and then stored as failed; the others
// go on, unless StopAfter of them failed alike in a row. If ctx ends, each
// running trial stops at its next mini-batch, its attempt is closed as pending,
// and Run returns ctx's error. If the store fails, the run stops the same way
// and Run returns the store's error. The summary is valid beside either error.
func (r *Runner) Run(ctx context.Context, study Study, strategy Strategy, trials []Trial) (Summary, error) {
	own := *r
	own.Notify = serial(r.Notify)
	d, err := NewDispatch(ctx, r.Store, study, strategy, trials, own.Notify)
	if err != nil {
		return Summary{Left: len(trials)}, err
	}
	own.Workers = min(r.Workers, len(trials))
	err = own.Work(ctx, local{d, Worker{Beginner: r.Store, Attempt: r.Attempt}, cmp.Or(r.Wait, 500*time.Millisecond)})
	if e := d.refresh(context.WithoutCancel(ctx)); err == nil {
		err = e
	}
	sum := d.Summary()
	if err != nil {
		sum.Reason, sum.Stopped = "", false
	}
	return sum, err
}

// serial gives one call after the other on to f, which may be nil.
func serial(f func(Event)) func(Event) {
	var mu sync.Mutex
	return func(e Event) {
		mu.Lock()
		defer mu.Unlock()
		if f != nil {
			f(e)
		}
	}
}

// Work trains what a desk gives, until it says that this is all, or until Drain
// is closed. What it does otherwise, and what it returns, is as of Run.
func (r *Runner) Work(ctx context.Context, desk Desk) error {
	w := &workers{r: r, desk: desk, n: max(1, r.Workers), changed: make(chan struct{}), notify: serial(r.Notify)}
	beats, stopBeats := context.WithCancel(context.WithoutCancel(ctx))
	var heart conc.WaitGroup
	heart.Go(func() { w.beat(beats) })
	defer heart.Wait()
	defer stopBeats()

	// A worker returns an error for a failing desk only; the first one cancels
	// the context of the others.
	p := pool.New().WithContext(ctx).WithCancelOnError().WithFirstError()
	for range w.n {
		p.Go(w.loop)
	}
	err := p.Wait()
	if err == nil {
		err = ctx.Err()
	}
	return err
}

// workers are what the workers of a run share.
type workers struct {
	r      *Runner
	desk   Desk
	notify func(Event)

	// claiming: one worker asks at a time, for of two at once each would have to
	// count the other.
	claiming sync.Mutex

	mu      sync.Mutex // guards what follows; nobody waits for the desk with it
	running []*training
	n       int           // workers that are left
	changed chan struct{} // closed, and made anew, when an attempt ends
	over    bool          // no trial begins any more
}

// training is an attempt that runs.
type training struct {
	*Claim
	company bool // others run, or ran, meanwhile
	back    bool // put back for want of memory
}

// loop is one worker: it claims a trial, trains it, and claims the next, until
// there is none.
func (w *workers) loop(ctx context.Context) error {
	for {
		t, err := w.next(ctx)
		if t == nil || err != nil {
			return err
		}
		err = w.attempt(ctx, t)
		if end := w.done(t, err != nil); err != nil || end {
			return err
		}
	}
}

// wake tells the workers that wait that something has changed. w.mu is held.
func (w *workers) wake() {
	close(w.changed)
	w.changed = make(chan struct{})
}

func (w *workers) draining() bool {
	select {
	case <-w.r.Drain: // never, if it is nil
		return true
	default:
		return false
	}
}

// next waits for the next claim of a worker. It is nil if there will be none.
func (w *workers) next(ctx context.Context) (*training, error) {
	for {
		t, wait, changed, err := w.claim(ctx)
		if t != nil || changed == nil || err != nil {
			return t, err
		}
		select {
		case <-ctx.Done():
		case <-w.r.Drain:
		case <-changed:
		case <-time.After(max(wait, time.Millisecond)):
		}
	}
}

// claim asks the desk once. changed is nil if there will be no claim any more.
func (w *workers) claim(ctx context.Context) (t *training, wait time.Duration, changed <-chan struct{}, err error) {
	w.claiming.Lock()
	defer w.claiming.Unlock()
	w.mu.Lock()
	defer w.mu.Unlock()
	if ctx.Err() != nil || w.over || w.draining() { // what is not taken stays pending
		return nil, 0, nil, nil
	}
	ask := Ask{Beside: len(w.running)}
	if !w.r.Deadline.IsZero() {
		ask.Left = max(1, time.Until(w.r.Deadline))
	}
	changed = w.changed
	w.mu.Unlock()
	claim, wait, err := w.ask(ctx, ask)
	w.mu.Lock()
	if claim != nil {
		t = &training{Claim: claim, company: claim.Company}
		w.running = append(w.running, t)
		for _, o := range w.running {
			o.company = o.company || len(w.running) > 1
		}
		return t, 0, nil, nil
	}
	if err != nil {
		w.over = true // no other worker need try
		w.wake()
		if ctx.Err() != nil || errors.Is(err, ErrOver) {
			err = nil
		}
		return nil, 0, nil, err
	}
	return nil, wait, changed, nil
}

// ask is Claim, which may wait for a desk that is out of reach, but not longer
// than until Drain.
func (w *workers) ask(ctx context.Context, ask Ask) (*Claim, time.Duration, error) {
	asking, cancel := context.WithCancel(ctx)
	var waiting conc.WaitGroup
	defer waiting.Wait()
	defer cancel()
	waiting.Go(func() {
		select {
		case <-w.r.Drain:
			cancel()
		case <-asking.Done():
		}
	})
	claim, wait, err := w.desk.Claim(asking, ask)
	if w.draining() && errors.Is(err, context.Canceled) {
		err = ErrOver
	}
	return claim, wait, err
}

// leave takes a training from those that run, which a worker that claims counts.
// It returns how many there were.
func (w *workers) leave(t *training) (n int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	n = len(w.running)
	w.running = slices.DeleteFunc(w.running, func(r *training) bool { return r == t })
	return n
}

// done follows an attempt; one that failed to reach the desk ends the run. It
// reports whether its worker must end: that of a trial that was put back for want
// of memory, unless it is the last.
func (w *workers) done(t *training, failed bool) (end bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.over = w.over || failed
	w.wake()
	if !t.back || w.n == 1 {
		return false
	}
	w.n--
	return true
}

// beat extends the lease of this process until ctx ends.
func (w *workers) beat(ctx context.Context) {
	for ctx.Err() == nil {
		next, err := w.desk.Beat(ctx)
		if err != nil && ctx.Err() == nil {
			// No reason to stop: Record fails too if the store does.
			w.notify(Event{Kind: Noted, Note: "heartbeat: " + oneLine(err)})
		}
		select {
		case <-ctx.Done():
		case <-time.After(max(next, time.Millisecond)):
		}
	}
}

// errHandBack ends a training at the end of an epoch.
var errHandBack = errors.New("the trial is given back")

// attempt trains a trial as its claim says, and ends the claim. The error is the
// desk's, which says what it could not do, with the trial.
func (w *workers) attempt(ctx context.Context, a *training) error {
	c, t := a.Claim, a.Trial
	// What happened is stored even when ctx is done: only Train gets ctx.
	keep := context.WithoutCancel(ctx)
	fail := func(err error) error { return fmt.Errorf("%v: %w", t.Key, err) }
	notify := func(e Event) {
		e.Study = c.Study.Name
		w.notify(e)
	}
	notify(Event{Kind: Began, Trial: t})
	if c.Note != "" {
		notify(Event{Kind: Noted, Trial: t, Note: c.Note})
	}

	rep := &reporter{trial: t, notify: notify, stored: func(e Epoch) error { return w.goOn(c, e) },
		record: func(e Epoch, state Checkpoint) error { return c.Record(keep, e, state) }}
	var trainErr error
	if t.Epoch < c.Until { // else it was killed between the last epoch and its end
		trainErr = w.train(ctx, Job{Study: c.Study, Key: t.Key, From: c.From, Until: c.Until}, rep)
	}
	beside := w.leave(a)
	t, storeErr := rep.close()
	if errors.Is(storeErr, ErrSuperseded) {
		return superseded(notify, t, storeErr)
	}
	if storeErr != nil {
		// The attempt stays open; the next Poll takes the trial back.
		return fail(storeErr)
	}
	o := a.outcome(ctx, t, trainErr, beside)
	status, err := c.End(keep, o)
	a.back = o.Most > 0 && status == Pending
	if errors.Is(err, ErrSuperseded) {
		return superseded(notify, t, err)
	}
	if err != nil {
		return fail(err)
	}
	t.Status, t.Error, t.Failure = status, o.Message, o.Failure
	notify(Event{Kind: Ended, Trial: t})
	return nil
}

// goOn returns nil if a training goes on after an epoch that is stored, else why
// it ends there.
func (w *workers) goOn(c *Claim, e Epoch) error {
	took := time.Duration((e.TrainSeconds + e.EvalSeconds) * float64(time.Second))
	if e.Number < c.Until && (w.draining() || !w.r.Deadline.IsZero() && time.Until(w.r.Deadline) < took) {
		return errHandBack
	}
	return nil
}

// outcome says how an attempt ended, by the trial as it stands and the error of
// its training. beside is how many trained at once, itself too.
func (a *training) outcome(ctx context.Context, t Trial, err error, beside int) Outcome {
	o := Outcome{Status: Failed}
	switch {
	case errors.Is(err, ErrDiverged):
		o.Status, o.Failure = Diverged, FailedDiverged
	case errors.Is(err, ErrStop) || errors.Is(err, errHandBack):
		o.Status, o.Failure, err = Pending, FailedInterrupted, nil
		if t.Epoch >= a.Until {
			o.Failure = ""
		}
	case err != nil && ctx.Err() != nil && (errors.Is(err, ctx.Err()) || errors.Is(err, errAbandoned)):
		o.Status, o.Failure = Pending, FailedInterrupted
		if !errors.Is(err, errAbandoned) {
			err = nil
		}
	case errors.Is(err, errTimeout):
		o.Failure, o.Retries = FailedTimeout, a.Study.RetryTimeout
	case errors.Is(err, ErrNoMemory):
		o.Failure = FailedMemory
		if a.company && a.Most != 1 { // it may have the memory beside fewer
			o.Retries, o.Most = a.Study.RetryMemory, max(1, beside-1)
		}
	case err != nil:
		o.Failure, o.Retries = FailedCrashed, a.Study.RetryCrashed
	case t.Epoch < a.Until:
		o.Failure = FailedCrashed
		err = fmt.Errorf("the trainer stopped after epoch %d of %d", t.Epoch, a.Until)
	case t.Epoch < t.Epochs:
		o.Status = Pending
	default:
		o.Status = Done
	}
	// The epoch at which a budget stopped it may have been its last.
	if o.Status == Pending && t.Epoch == t.Epochs {
		return Outcome{Status: Done}
	}
	if err != nil {
		o.Message = oneLine(err)
	}
	return o
}

// superseded leaves a trial to the process that went on with it. What this one
// trained since is lost, and nothing else.
func superseded(notify func(Event), t Trial, err error) error {
	t.Status = Pending
	notify(Event{Kind: Ended, Trial: t})
	notify(Event{Kind: Noted, Trial: t, Note: oneLine(err)})
	return nil
}

var (
	errTimeout   = errors.New("the time limit of a trial is over")
	errAbandoned = errors.New("the trainer did not return, and was left alone")
)

// train is Trainer.Train within the limits of time: of the trial, and of the
// trainer to return after its context ended.
func (w *workers) train(ctx context.Context, job Job, rep *reporter) error {
	own, cancel := context.WithCancel(ctx)
	defer cancel()
	var limit <-chan time.Time
	if d := job.Study.TimeLimit(); d > 0 {
		timer := time.NewTimer(d)
		defer timer.Stop()
		limit = timer.C
	}
	done := make(chan error, 1)
	// The only goroutine that nobody may wait for: what it does afterwards, the
	// reporter does not take any more.
	go func() { done <- w.r.train(own, job, rep) }()
	late := false
	select {
	case err := <-done:
		return err
	case <-limit:
		late = true
		cancel()
	case <-ctx.Done():
	}
	grace := cmp.Or(w.r.Grace, 30*time.Second)
	select {
	case err := <-done:
		if late && ctx.Err() == nil && errors.Is(err, context.Canceled) {
			return fmt.Errorf("%w: trial_time_limit = %q", errTimeout, job.Study.TrialTimeLimit)
		}
		return err
	case <-time.After(grace):
	}
	w.notify(Event{Kind: Noted, Study: job.Study.Name, Trial: rep.leave(),
		Note: fmt.Sprintf("its trainer did not stop within %v; its worker goes on without it", grace)})
	if late {
		return fmt.Errorf("%w: trial_time_limit = %q; %w", errTimeout, job.Study.TrialTimeLimit, errAbandoned)
	}
	return errAbandoned
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
			at = append(at, fmt.Sprintf("%s:%d in %s", filepath.Base(f.File), f.Line,
				f.Function[strings.LastIndex(f.Function, "/")+1:]))
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
	stored func(Epoch) error // after an epoch; its error ends the training
	notify func(Event)

	mu    sync.Mutex // a trainer that was left alone may still report
	trial Trial
	err   error // the store's first
	left  bool
}

func (r *reporter) Step(epoch, done, total int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.left {
		r.notify(Event{Kind: Stepped, Trial: r.trial, Step: done, Steps: total})
	}
}

func (r *reporter) Epoch(e Epoch, c Checkpoint) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.left {
		return errAbandoned
	}
	if r.err != nil {
		return r.err
	}
	stop := r.record(e, c)
	if stop != nil && !errors.Is(stop, ErrStop) {
		r.err = stop
		return stop
	}
	r.trial.Epoch, r.trial.Last = e.Number, e
	r.notify(Event{Kind: EpochStored, Trial: r.trial})
	return cmp.Or(stop, r.stored(e))
}

// leave takes no more reports.
func (r *reporter) leave() Trial {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.left = true
	return r.trial
}

// close is leave, with the store's error.
func (r *reporter) close() (Trial, error) {
	t := r.leave()
	return t, r.err
}
