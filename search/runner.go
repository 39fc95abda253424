package search

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/sourcegraph/conc"
	"github.com/sourcegraph/conc/panics"
	"github.com/sourcegraph/conc/pool"
)

// Runner works through the trials of a study, Workers at a time, beside any
// number of other processes that share the Store. What the study's Strategy
// wants next is asked before every turn. What a trial ends with does not depend
// on Workers, on the order in which trials end, or on how often it was
// interrupted; the Trainer's results are functions of the job.
//
// A trial that meets ErrNoMemory beside others is put back, RetryMemory times: it
// is trained again, and its worker is missing for the rest of the run.
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
	// Grace is how long a Trainer may take to return after its context ended;
	// then it is left alone with its goroutine. 0 is 30 seconds.
	Grace time.Duration
	// Wait is how often a worker without a trial looks for one that another
	// process left; 0 is half a second.
	Wait time.Duration
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
func (r *Runner) Run(ctx context.Context, study Study, trials []Trial) (Summary, error) {
	strategy, err := NewStrategy(study)
	if err != nil {
		return Summary{Left: len(trials)}, err
	}
	planned, err := r.Store.Plan(ctx, study, trials)
	if err != nil {
		return Summary{Left: len(trials)}, err // it names the study
	}
	var mu sync.Mutex // serialises Notify
	f := &floor{r: r, study: study, strategy: strategy, workers: min(max(1, r.Workers), max(1, len(planned))), changed: make(chan struct{}),
		start: time.Now(), at: map[int64]int{}, mine: map[int64]Trial{}, notify: func(e Event) {
			mu.Lock()
			defer mu.Unlock()
			if r.Notify != nil {
				r.Notify(e)
			}
		}}
	for i, t := range planned {
		f.at[t.ID] = i
		f.states = append(f.states, TrialState{Trial: t})
	}
	f.notify(Event{Kind: Planned, Trials: planned})
	keep := context.WithoutCancel(ctx)
	if err := f.refresh(keep); err != nil {
		return f.summary(), err
	}

	beats, stopBeats := context.WithCancel(keep)
	var heart conc.WaitGroup
	heart.Go(func() { f.beat(beats) })
	defer heart.Wait()
	defer stopBeats()

	// A worker returns an error for a failing store only, or if too many trials
	// fail; the first one cancels the context of the others.
	p := pool.New().WithContext(ctx).WithCancelOnError().WithFirstError()
	for range f.workers {
		p.Go(func(ctx context.Context) error {
			for {
				t, err := f.next(ctx)
				if t == nil || err != nil {
					return err
				}
				err = f.turn(ctx, t)
				if end := f.done(t, err != nil); err != nil || end {
					return err
				}
			}
		})
	}
	err = p.Wait()
	if err == nil {
		err = ctx.Err()
	}
	if e := f.refresh(keep); err == nil {
		err = e
	}
	sum := f.summary()
	if err == nil {
		sum.Reason, sum.Stopped = f.reason, f.stopped
	}
	return sum, err
}

// floor is where the workers of a run meet: it knows how all trials stand, and
// gives each worker its turns.
type floor struct {
	r        *Runner
	study    Study
	strategy Strategy
	notify   func(Event)
	start    time.Time
	mu       sync.Mutex // guards what follows
	states   []TrialState
	at       map[int64]int   // by Trial.ID: index into states
	mine     map[int64]Trial // as turns of this process left them
	moment   int64           // of the store's last Poll
	running  []*turn         // of this process
	again    []*turn         // put back
	workers  int             // left
	changed  chan struct{}   // closed, and made anew, when a turn ends
	over     bool            // no trial begins any more
	stopped  bool            // by a budget: those that run end at their next epoch
	reason   string
	alike    int    // failures in a row
	last     string // what they say
}

// turn is one trial's turn with a worker.
type turn struct {
	Trial
	attempt Turn
	until   int
	company bool // others run, or ran, in this turn
	most    int  // of a second turn for want of memory: trials that may run then, itself too; else 0
	back    bool // put back for want of memory
	lost    bool // another process went on with the trial
}

// refresh learns what changed in the store. f.mu is not held.
func (f *floor) refresh(ctx context.Context) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.poll(ctx)
}

func (f *floor) poll(ctx context.Context) error {
	changed, moment, err := f.r.Store.Poll(ctx, f.study.Name, f.moment)
	if err != nil {
		return err
	}
	f.moment = moment
	for _, t := range changed {
		i, ok := f.at[t.ID]
		if !ok {
			continue
		}
		old := f.states[i].Trial
		f.states[i] = t
		ours := slices.ContainsFunc(f.running, func(r *turn) bool { return r.ID == t.ID })
		if mine, ok := f.mine[t.ID]; ok && mine.Status == t.Status && mine.Epoch == t.Epoch {
			ours = true
		}
		if !ours && (old.Status != t.Status || old.Epoch != t.Epoch) {
			f.notify(Event{Kind: Elsewhere, Trial: t.Trial})
		}
	}
	return nil
}

// wake tells the workers that wait that something has changed. f.mu is held.
func (f *floor) wake() {
	close(f.changed)
	f.changed = make(chan struct{})
}

// next waits for the next turn of a worker. It is nil if there will be none.
func (f *floor) next(ctx context.Context) (*turn, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for {
		if ctx.Err() != nil || f.over { // what is not taken stays pending
			return nil, nil
		}
		keep := context.WithoutCancel(ctx)
		if err := f.poll(keep); err != nil {
			return nil, err
		}
		f.checkBudget()
		if f.over {
			f.wake()
			return nil, nil
		}
		t, err := f.take(keep)
		if err != nil {
			f.over = true // no other worker need try
		}
		if t != nil || f.over {
			return t, err
		}
		changed, wait := f.changed, cmp.Or(f.r.Wait, 500*time.Millisecond)
		if limit := f.study.WallTime(); limit > 0 {
			wait = min(wait, max(time.Millisecond, limit-time.Since(f.start)))
		}
		f.mu.Unlock()
		select {
		case <-ctx.Done():
		case <-changed:
		case <-time.After(wait):
		}
		f.mu.Lock()
	}
}

// take begins the first trial that the strategy wants and that can be had; nil
// if there is none now. It ends the run if there will be none.
func (f *floor) take(ctx context.Context) (*turn, error) {
	d := f.strategy.Decide(f.study, f.states)
	n := len(f.running) + 1
	elsewhere, begun := 0, 0
	for _, t := range f.states {
		if t.Status == Running {
			elsewhere++
		}
		if t.Status != Pending || t.Epoch > 0 {
			begun++
		}
	}
	elsewhere -= len(f.running)
	held, taken := false, false // by the budget of trials; by another process
	for _, step := range d.Next {
		s := &f.states[step.Trial]
		until := min(step.Until, s.Epochs)
		if s.Status != Pending || until <= s.Epoch && s.Epoch < s.Epochs {
			continue
		}
		if f.study.MaxTrials > 0 && s.Epoch == 0 && begun >= f.study.MaxTrials {
			held = true
			continue
		}
		if slices.ContainsFunc(f.running, func(r *turn) bool { return r.ID == s.ID }) {
			continue // its turn is about to end
		}
		t := &turn{Trial: s.Trial, until: until}
		if i := slices.IndexFunc(f.again, func(b *turn) bool { return b.ID == s.ID }); i >= 0 {
			if n > f.again[i].most {
				continue
			}
			t.most = f.again[i].most
			f.again = slices.Delete(f.again, i, i+1)
		}
		a := f.r.Attempt
		a.Started = time.Now()
		var err error
		t.attempt, err = f.r.Store.Begin(ctx, s.ID, until, a)
		if errors.Is(err, ErrTaken) {
			// Another process was faster: what it changed may change what is
			// wanted.
			if err := f.poll(ctx); err != nil {
				return nil, err
			}
			if s.Status == Pending { // again already; it can wait
				taken = true
				continue
			}
			return f.take(ctx)
		}
		if err != nil {
			return nil, fmt.Errorf("%v seed %d: %w", s.System.Label(), s.Seed, err)
		}
		s.Status, t.Status, t.Error, t.Failure = Running, Running, "", ""
		if t.attempt.From != nil {
			t.Epoch = t.attempt.From.Epoch
		} else {
			t.Epoch, t.Last = 0, Epoch{}
		}
		f.running = append(f.running, t)
		for _, o := range f.running {
			o.company = o.company || n > 1 || elsewhere > 0
		}
		return t, nil
	}
	if len(f.running) == 0 && elsewhere <= 0 && !taken {
		f.over, f.reason = true, d.Reason
		if held {
			f.reason, f.stopped = fmt.Sprintf("max_trials = %d is reached", f.study.MaxTrials), true
		}
		f.wake()
	}
	return nil, nil
}

// checkBudget ends the run where a budget is spent: no trial begins, and those
// that run stop at their next epoch. f.mu is held.
func (f *floor) checkBudget() {
	if f.over {
		return
	}
	s := f.study
	stop := func(format string, a ...any) {
		f.over, f.stopped, f.reason = true, true, fmt.Sprintf(format, a...)
	}
	late := s.WallTime() > 0 && time.Since(f.start) >= s.WallTime()
	if !late && s.MaxEpochs == 0 && s.MaxDeviceHours == 0 {
		return
	}
	busy := slices.ContainsFunc(f.states, func(t TrialState) bool { return t.Status == Running })
	if !busy && len(f.running) == 0 && len(f.strategy.Decide(s, f.states).Next) == 0 {
		return // there is nothing to stop
	}
	if late {
		stop("max_wall_time = %q is over", s.MaxWallTime)
		return
	}
	epochs, seconds := 0, 0.0
	for _, t := range f.states {
		epochs += len(t.Curve)
		for _, e := range t.Curve {
			seconds += e.TrainSeconds + e.EvalSeconds
		}
	}
	switch {
	case s.MaxEpochs > 0 && epochs >= s.MaxEpochs:
		stop("max_epochs = %d is reached", s.MaxEpochs)
	case s.MaxDeviceHours > 0 && seconds >= 3600*s.MaxDeviceHours:
		stop("max_device_hours = %g is reached", s.MaxDeviceHours)
	}
}

// errBudget ends a training at the end of an epoch.
var errBudget = errors.New("a budget of the study is spent")

// stored is called after each epoch of a trial of this process. Its error ends
// the training.
func (f *floor) stored(ctx context.Context) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if !f.over && (f.study.MaxEpochs > 0 || f.study.MaxDeviceHours > 0) {
		if err := f.poll(ctx); err != nil {
			return err
		}
	}
	f.checkBudget()
	if f.stopped {
		return errBudget
	}
	return nil
}

// putBack reports whether a trial without memory may get another turn, beside
// fewer than run now: if it was not alone.
func (f *floor) putBack(t *turn) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if !t.company || t.most == 1 {
		return false
	}
	t.most, t.back = max(1, len(f.running)-1), true
	return true
}

// done ends a turn, and with it the run if it failed. Unless it is the last, the
// worker of a trial that was put back must end.
func (f *floor) done(t *turn, failed bool) (end bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.over = f.over || failed
	f.running = slices.DeleteFunc(f.running, func(r *turn) bool { return r == t })
	if !t.lost {
		f.mine[t.ID] = t.Trial
	}
	defer f.wake()
	if !t.back || t.Status != Pending {
		return false
	}
	f.again = append(f.again, t)
	if f.workers == 1 {
		return false
	}
	f.workers--
	return true
}

func (f *floor) summary() Summary {
	f.mu.Lock()
	defer f.mu.Unlock()
	var s Summary
	for _, t := range f.states {
		switch t.Status {
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
	return s
}

// beat extends the lease of this process until ctx ends.
func (f *floor) beat(ctx context.Context) {
	for ctx.Err() == nil {
		next, err := f.r.Store.Beat(ctx)
		if err != nil && ctx.Err() == nil {
			// No reason to stop: Record fails too if the store does.
			f.notify(Event{Kind: Noted, Note: "heartbeat: " + oneLine(err)})
		}
		select {
		case <-ctx.Done():
		case <-time.After(max(next, time.Millisecond)):
		}
	}
}

// turn gives one trial its turn, and leaves in it how it stands. The error is
// the store's, which says what it could not do, with the trial; or says that
// too many failed alike.
func (f *floor) turn(ctx context.Context, turn *turn) error {
	t := turn.Trial
	defer func() { // as done and a second turn want it
		f.mu.Lock()
		defer f.mu.Unlock()
		turn.Trial = t
	}()
	// What happened is stored even when ctx is done: only Train gets ctx.
	keep := context.WithoutCancel(ctx)
	fail := func(err error) error { return fmt.Errorf("%v seed %d: %w", t.System.Label(), t.Seed, err) }
	f.notify(Event{Kind: Began, Trial: t})
	if turn.attempt.Note != "" {
		f.notify(Event{Kind: Noted, Trial: t, Note: turn.attempt.Note})
	}

	rep := &reporter{trial: t, notify: f.notify, record: func(e Epoch, c Checkpoint) error {
		return f.r.Store.Record(keep, turn.attempt.ID, e, c)
	}, stored: func() error { return f.stored(keep) }}
	var trainErr error
	if t.Epoch < turn.until { // not killed between the last epoch and its end
		trainErr = f.train(ctx, Job{Study: f.study, System: t.System, Seed: t.Seed, From: turn.attempt.From, Until: turn.until}, rep)
	}
	var storeErr error
	t, storeErr = rep.close()
	o := Outcome{Status: Failed, Message: "", Retries: 0}
	switch {
	case errors.Is(storeErr, ErrSuperseded):
		turn.lost = true
		return f.superseded(t, storeErr)
	case storeErr != nil:
		// The attempt stays open; the next Poll takes the trial back.
		return fail(storeErr)
	case errors.Is(trainErr, ErrDiverged):
		o.Status, o.Failure = Diverged, FailedDiverged
	case errors.Is(trainErr, errBudget):
		o.Status, o.Failure, trainErr = Pending, FailedInterrupted, nil
		if t.Epoch >= turn.until {
			o.Failure = ""
		}
	case trainErr != nil && ctx.Err() != nil && (errors.Is(trainErr, ctx.Err()) || errors.Is(trainErr, errAbandoned)):
		o.Status, o.Failure = Pending, FailedInterrupted
		if !errors.Is(trainErr, errAbandoned) {
			trainErr = nil
		}
	case errors.Is(trainErr, errTimeout):
		o.Failure, o.Retries = FailedTimeout, f.study.RetryTimeout
	case errors.Is(trainErr, ErrNoMemory):
		o.Failure = FailedMemory
		if f.putBack(turn) {
			o.Retries = f.study.RetryMemory
		}
	case trainErr != nil:
		o.Failure, o.Retries = FailedCrashed, f.study.RetryCrashed
	case t.Epoch < turn.until:
		o.Failure = FailedCrashed
		trainErr = fmt.Errorf("the trainer stopped after epoch %d of %d", t.Epoch, turn.until)
	case t.Epoch < t.Epochs:
		o.Status = Pending
	default:
		o.Status = Done
	}
	// An epoch may have ended before a budget stopped it, which was the last.
	if o.Status == Pending && t.Epoch == t.Epochs {
		o = Outcome{Status: Done}
		trainErr = nil
	}
	if trainErr != nil {
		o.Message = oneLine(trainErr)
	}
	status, err := f.r.Store.End(keep, turn.attempt.ID, o)
	if errors.Is(err, ErrSuperseded) {
		turn.lost = true
		return f.superseded(t, err)
	}
	if err != nil {
		return fail(err)
	}
	t.Status, t.Error, t.Failure = status, o.Message, o.Failure
	f.notify(Event{Kind: Ended, Trial: t})
	return f.count(t, o, turn.back && status == Pending)
}

// superseded leaves a trial to the process that went on with it. What this one
// trained since is lost, and nothing else.
func (f *floor) superseded(t Trial, err error) error {
	t.Status = Pending
	f.notify(Event{Kind: Ended, Trial: t})
	f.notify(Event{Kind: Noted, Trial: t, Note: oneLine(err)})
	return nil
}

// digits are no part of what makes failures alike: they count epochs, steps and
// bytes.
var digits = regexp.MustCompile(`[0-9]+`)

// count stops the run at so many failures in a row that are all alike.
func (f *floor) count(t Trial, o Outcome, back bool) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if o.Status != Failed || back {
		if o.Status == Done {
			f.alike = 0
		}
		return nil
	}
	what := string(o.Failure) + digits.ReplaceAllString(o.Message, "#")
	if f.last != what {
		f.last, f.alike = what, 0
	}
	f.alike++
	if n := f.study.StopAfter; n > 0 && f.alike >= n {
		return fmt.Errorf("%d trainings in a row failed alike, at last %v seed %d: %s: mend that, then let them be tried again: igcsearch retry %s",
			n, t.System.Label(), t.Seed, o.Message, f.study.Name)
	}
	return nil
}

var (
	errTimeout   = errors.New("the time limit of a trial is over")
	errAbandoned = errors.New("the trainer did not return, and was left alone")
)

// train is Trainer.Train within the limits of time: of the trial, and of the
// trainer to return after its context ended.
func (f *floor) train(ctx context.Context, job Job, rep *reporter) error {
	own, cancel := context.WithCancel(ctx)
	defer cancel()
	var limit <-chan time.Time
	if d := f.study.TimeLimit(); d > 0 {
		timer := time.NewTimer(d)
		defer timer.Stop()
		limit = timer.C
	}
	done := make(chan error, 1)
	// The only goroutine that nobody may wait for: what it does afterwards, the
	// reporter does not take any more.
	go func() { done <- f.r.train(own, job, rep) }()
	late := false
	select {
	case err := <-done:
		return err
	case <-limit:
		late = true
		cancel()
	case <-ctx.Done():
	}
	grace := cmp.Or(f.r.Grace, 30*time.Second)
	select {
	case err := <-done:
		if late && ctx.Err() == nil && errors.Is(err, context.Canceled) {
			return fmt.Errorf("%w: trial_time_limit = %q", errTimeout, f.study.TrialTimeLimit)
		}
		return err
	case <-time.After(grace):
	}
	f.notify(Event{Kind: Noted, Trial: rep.leave(), Note: fmt.Sprintf("its trainer did not stop within %v; its worker goes on without it", grace)})
	if late {
		return fmt.Errorf("%w: trial_time_limit = %q; %w", errTimeout, f.study.TrialTimeLimit, errAbandoned)
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
	stored func() error // after an epoch; its error ends the training
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
	if r.err == nil {
		r.err = r.record(e, c)
	}
	if r.err != nil {
		return r.err
	}
	r.trial.Epoch, r.trial.Last = e.Number, e
	r.notify(Event{Kind: EpochStored, Trial: r.trial})
	return r.stored()
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
