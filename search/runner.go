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

// Runner trains trials, Workers of them at a time. Run takes the trials of a study from a Store,
// which any number of other processes may share; Work takes them from a Desk. The results of a
// trial do not depend on Workers, on the order in which trials end, or on how often it was
// interrupted, because the results of a Trainer depend only on the job.
//
// If a trial ends with ErrDevice, it is put back and trained again. ErrNoDevice ends the run, as no
// trial could be trained any more.
//
// If a trial ends with ErrNoMemory while others run, it is put back up to Study.RetryMemory times
// and trained again. Its worker ends, so that fewer trials run at once.
type Runner struct {
	Store   Store // used by Run only
	Trainer Trainer
	// Workers is the number of trials that run at once. A number below 1 counts as 1.
	Workers int
	// Attempt is copied into every attempt of Run. Run sets Started.
	Attempt Attempt
	// Notify, if set, receives the events of the run, one call at a time. The workers call it and
	// wait for it, so it must be quick.
	Notify func(Event)
	// Grace is how long a Trainer may take to return after its context has ended. After that the
	// run goes on without it, and its goroutine remains. 0 means 30 seconds.
	Grace time.Duration
	// Wait is how often a worker of Run that has no trial asks for one. 0 means half a second.
	Wait time.Duration
	// Drain ends the run when it is closed: no further trial begins, and running trials are given
	// back at their next epoch.
	Drain <-chan struct{}
	// Deadline is the time at which the process must end; zero means never. A trial is given back
	// after an epoch if the next epoch would end later than the deadline.
	Deadline time.Time
}

// EventKind says what has happened.
type EventKind string

const (
	// Planned means that the study is stored. Trials holds all its trials.
	Planned EventKind = "planned"
	// Began means that a worker has begun an attempt at the trial. It continues after Trial.Epoch.
	Began EventKind = "began"
	// Stepped means that the trial has finished mini-batch Step of Steps of an epoch.
	Stepped EventKind = "stepped"
	// EpochStored means that an epoch and its checkpoint are stored.
	EpochStored EventKind = "epoch stored"
	// Ended means that the attempt is closed. Trial.Status and Trial.Error say how. A pending trial
	// with an error was put back and will begin again. Without an error it was interrupted, or the
	// attempt has reached its last epoch.
	Ended EventKind = "ended"
	// Elsewhere means that another process has changed the trial.
	Elsewhere EventKind = "elsewhere"
	// Noted means that Note is for people to read. It is about Trial, unless Trial.ID is 0.
	Noted EventKind = "noted"
)

// Event is one thing that happened in a run.
type Event struct {
	Kind   EventKind
	Study  string  // the name of the study; set for the attempts of Run and Work
	Trials []Trial // set for Planned only
	Trial  Trial   // the state of the trial after the event; not set for Planned
	Step   int     // for Stepped: the finished mini-batches of epoch Trial.Epoch+1
	Steps  int     // for Stepped: the mini-batches of one epoch
	Note   string  // for Noted: one line
}

// Summary counts the trials of a study by their status after a run.
type Summary struct {
	Done     int
	Diverged int
	Failed   int
	Left     int // the trials that are pending, or that another process runs
	// Reason says on one line why the run is over: the reason of the strategy, or the spent budget.
	// It is "" if Run returns an error.
	Reason string
	// Stopped says that a budget is spent. A run with a larger budget would continue.
	Stopped bool
}

// Run stores the study and trains the trials that its strategy wants, until it wants no more or a
// budget is spent. A trial that fails, by an error or a panic, is tried again as often as the study
// says and is then stored as failed. The other trials go on, unless Study.StopAfter trainings in a
// row failed in the same way: then Run returns an ErrAlike. If ctx ends, each running trial stops
// at its next mini-batch and becomes pending, and Run returns ctx's error. If the store fails, the
// run stops in the same way and Run returns the store's error. The summary is valid beside every
// error.
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

// serial returns a function that calls f, if it is not nil, for one event at a time.
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

// Work trains the trials that a desk gives, until there are no more or Drain is closed. It treats
// failures, and returns errors, as Run does.
func (r *Runner) Work(ctx context.Context, desk Desk) error {
	w := &workers{r: r, desk: desk, n: max(1, r.Workers), changed: make(chan struct{}), notify: serial(r.Notify)}
	beats, stopBeats := context.WithCancel(context.WithoutCancel(ctx))
	ctx, end := context.WithCancelCause(ctx)
	defer end(nil)
	var heart conc.WaitGroup
	heart.Go(func() { w.beat(beats, end) })
	defer heart.Wait()
	defer stopBeats()

	// A worker returns an error only if the desk fails. The first error cancels the context of the
	// other workers.
	p := pool.New().WithContext(ctx).WithCancelOnError().WithFirstError()
	for range w.n {
		p.Go(w.loop)
	}
	err := p.Wait()
	if gone := context.Cause(ctx); errors.Is(gone, ErrGone) && !errors.Is(err, ErrGone) {
		return gone
	}
	if err == nil {
		err = ctx.Err()
	}
	return err
}

// workers holds the state that the workers of a run share.
type workers struct {
	r      *Runner
	desk   Desk
	notify func(Event)

	// claiming lets one worker ask the desk at a time, so that Ask.Beside is exact.
	claiming sync.Mutex

	mu      sync.Mutex // guards the fields below; it is not held while the desk is asked
	running []*training
	n       int           // the number of workers that have not ended
	changed chan struct{} // closed and replaced when an attempt ends
	over    bool          // no further trial will begin
}

// training is an attempt that runs.
type training struct {
	*Claim
	company bool // other trainings have run at the same time
	back    bool // the trial was put back for lack of memory
}

// loop runs one worker: it claims a trial, trains it, and claims the next one, until there is none.
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

// wake lets waiting workers ask the desk again. The caller holds w.mu.
func (w *workers) wake() {
	close(w.changed)
	w.changed = make(chan struct{})
}

// draining reports whether Drain is closed.
func (w *workers) draining() bool {
	select {
	case <-w.r.Drain: // a nil channel is never ready
		return true
	default:
		return false
	}
}

// next waits for the next claim of a worker. It returns nil if there will be none.
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

// claim asks the desk once. If it gets no claim, the worker asks again after wait, or when changed
// is closed. changed is nil if there will be no further claim.
func (w *workers) claim(ctx context.Context) (t *training, wait time.Duration, changed <-chan struct{}, err error) {
	w.claiming.Lock()
	defer w.claiming.Unlock()
	w.mu.Lock()
	defer w.mu.Unlock()
	if ctx.Err() != nil || w.over || w.draining() {
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
		w.over = true // the other workers need not ask
		w.wake()
		if ctx.Err() != nil || errors.Is(err, ErrOver) {
			err = nil
		}
		return nil, 0, nil, err
	}
	return nil, wait, changed, nil
}

// ask calls Claim, which may wait for a desk that cannot be reached. It stops waiting when Drain is
// closed.
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

// leave removes a training from those that run. It returns how many ran, including this one.
func (w *workers) leave(t *training) (n int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	n = len(w.running)
	w.running = slices.DeleteFunc(w.running, func(r *training) bool { return r == t })
	return n
}

// done is called after each attempt. failed says that the desk failed, which ends the run. done
// reports whether the worker must end: it does if its trial was put back for lack of memory, unless
// it is the last worker.
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

// beat extends the lease of this process until ctx ends. If the store is gone, it ends the run.
func (w *workers) beat(ctx context.Context, end context.CancelCauseFunc) {
	for ctx.Err() == nil {
		next, err := w.desk.Beat(ctx)
		if errors.Is(err, ErrGone) {
			end(err)
			return
		}
		if err != nil && ctx.Err() == nil {
			// The run goes on: if the store has failed, Record fails too.
			w.notify(Event{Kind: Noted, Note: "the heartbeat failed: " + oneLine(err)})
		}
		select {
		case <-ctx.Done():
		case <-time.After(max(next, time.Millisecond)):
		}
	}
}

// errHandBack ends a training after an epoch because its trial is given back.
var errHandBack = errors.New("the trial is given back")

// attempt trains a trial as its claim says, and closes the attempt. It returns an error if the desk
// fails, with the name of the trial, or if no device is left.
func (w *workers) attempt(ctx context.Context, a *training) error {
	c, t := a.Claim, a.Trial
	// Only Train gets ctx. The results are stored even if ctx has ended.
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
	if t.Epoch < c.Until { // otherwise the process was killed after the last epoch, before End
		trainErr = w.train(ctx, Job{Study: c.Study.At(t.At), Key: t.Key, From: c.From, Until: c.Until}, rep)
	}
	beside := w.leave(a)
	t, storeErr := rep.close()
	if errors.Is(storeErr, ErrSuperseded) {
		return superseded(notify, t, storeErr)
	}
	if storeErr != nil {
		// The attempt stays open. A later Poll makes the trial pending.
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
	if errors.Is(trainErr, ErrNoDevice) {
		return trainErr
	}
	return nil
}

// goOn returns nil if a training goes on after a stored epoch, and errHandBack if it ends there.
func (w *workers) goOn(c *Claim, e Epoch) error {
	took := time.Duration((e.TrainSeconds + e.EvalSeconds) * float64(time.Second))
	if e.Number < c.Until && (w.draining() || !w.r.Deadline.IsZero() && time.Until(w.r.Deadline) < took) {
		return errHandBack
	}
	return nil
}

// outcome returns how an attempt ended. t is the trial after it, err the error of Train, and beside
// the number of trainings that ran at once, including this one.
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
	case errors.Is(err, ErrDevice) || errors.Is(err, ErrNoDevice):
		o.Status, o.Failure = Pending, FailedLost
	case errors.Is(err, errTimeout):
		o.Failure, o.Retries = FailedTimeout, a.Study.RetryTimeout
	case errors.Is(err, ErrNoMemory):
		o.Failure = FailedMemory
		if a.company && a.Most != 1 { // the memory may be enough for fewer trainings
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
	// A budget or the deadline may have ended the attempt after the last epoch of the training.
	if o.Status == Pending && t.Epoch == t.Epochs {
		return Outcome{Status: Done}
	}
	if err != nil {
		o.Message = oneLine(err)
	}
	return o
}

// superseded reports that another process has continued the trial. Only the epochs that this
// process has trained since then are lost.
func superseded(notify func(Event), t Trial, err error) error {
	t.Status = Pending
	notify(Event{Kind: Ended, Trial: t})
	notify(Event{Kind: Noted, Trial: t, Note: oneLine(err)})
	return nil
}

var (
	errTimeout   = errors.New("the attempt took longer than its time limit")
	errAbandoned = errors.New("the trainer did not return, and the run goes on without it")
)

// train calls Trainer.Train. It returns within the time limit of the trial and, after ctx has
// ended, within Runner.Grace, even if the trainer does not return.
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
	// Nothing waits for this goroutine after Grace. The reporter ignores what it reports later.
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
		Note: fmt.Sprintf("its trainer did not stop within %v; the run goes on without it", grace)})
	if late {
		return fmt.Errorf("%w: trial_time_limit = %q; %w", errTimeout, job.Study.TrialTimeLimit, errAbandoned)
	}
	return errAbandoned
}

// train calls Trainer.Train and turns a panic into an error that names the innermost calls.
func (r *Runner) train(ctx context.Context, job Job, rep Reporter) (err error) {
	if p := panics.Try(func() { err = r.Trainer.Train(ctx, job, rep) }); p != nil {
		return fmt.Errorf("panic: %v%s", p.Value, where(p.Callers))
	}
	return err
}

// where names the innermost calls before a panic, for example " at file.go:12 in pkg.F, …".
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

// oneLine returns the text of err on one line, as Trial.Error needs it.
func oneLine(err error) string {
	return strings.Join(strings.FieldsFunc(err.Error(), func(r rune) bool { return r == '\n' || r == '\r' }), "; ")
}

// reporter stores the epochs of one attempt and sends the events about them.
type reporter struct {
	record func(Epoch, Checkpoint) error
	stored func(Epoch) error // called after each stored epoch; an error ends the training
	notify func(Event)

	mu    sync.Mutex // a trainer that did not return may still report
	trial Trial
	err   error // the first error of record
	left  bool  // no further report is accepted
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

// leave ends the reports and returns the trial after the last one.
func (r *reporter) leave() Trial {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.left = true
	return r.trial
}

// close does what leave does, and also returns the error of record.
func (r *reporter) close() (Trial, error) {
	t := r.leave()
	return t, r.err
}
