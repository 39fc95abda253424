package search

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"regexp"
	"strings"
	"sync"
	"time"
)

// Desk gives claims to the workers of a Runner. It is a Dispatch in this process, or stands for one
// in another process.
type Desk interface {
	// Claim begins the next attempt. If claim is nil, wait is how long to wait before the next
	// call, or the error wraps ErrOver.
	Claim(ctx context.Context, ask Ask) (claim *Claim, wait time.Duration, err error)
	// Beat does what Store.Beat does.
	Beat(ctx context.Context) (next time.Duration, err error)
}

// Ask says what a worker needs when it asks for a claim.
type Ask struct {
	// Beside is the number of other trainings in the worker's Runner.
	Beside int
	// Left is how long the worker may still train, or 0 for no limit. It gets no trial whose next
	// epoch would take longer.
	Left time.Duration
}

// ErrOver is the error that Desk.Claim returns (wrapped, with the reason) if no further attempt
// will begin.
var ErrOver = errors.New("no more trials begin")

// ErrStop is the error that the Handle of a Dispatch returns (wrapped) if a budget of the study is
// spent.
var ErrStop = errors.New("a budget of the study is spent")

// ErrAlike is the error that Desk.Claim returns (wrapped) after Study.StopAfter trainings in a row
// have failed in the same way.
var ErrAlike = errors.New("too many trainings failed in the same way")

// alikeError is an ErrAlike with a text of its own.
type alikeError struct{ error }

func (alikeError) Is(target error) bool { return target == ErrAlike }

// Dispatch gives the attempts of one study to workers. It knows the state of all trials, asks the
// study's Strategy which to train, and stops when a budget is spent. Any number of workers may use
// it, on this and on other machines, and other processes may use its Store.
type Dispatch struct {
	store    Store
	study    Study
	strategy Strategy
	notify   func(Event)

	mu          sync.Mutex // guards the fields below
	start       time.Time  // when the first attempt began; zero before
	states      []TrialState
	at          map[int64]int   // the index into states for each Trial.ID
	mine        map[int64]Trial // the state of trials as their attempts from this Dispatch left them
	moment      int64           // the moment that the last Poll returned
	most        map[int64]int   // how many trainings may run at once beside trials that were put back
	over        bool            // no further attempt will begin
	stopped     bool            // a budget is spent: running attempts end at their next epoch
	reason      string          // why the study is over
	failed      error           // an ErrAlike
	alike       int             // how many failures in a row had the text lastFailure
	lastFailure string
}

// NewDispatch stores the study and its trials (Store.Plan) and reads the state of the trials.
// notify, if it is not nil, receives the events Planned and Elsewhere.
func NewDispatch(ctx context.Context, store Store, study Study, strategy Strategy, trials []Trial,
	notify func(Event)) (*Dispatch, error) {
	planned, err := store.Plan(ctx, study, trials)
	if err != nil {
		return nil, err // the error names the study
	}
	if notify == nil {
		notify = func(Event) {}
	}
	d := &Dispatch{store: store, study: study, strategy: strategy, notify: notify,
		at: map[int64]int{}, mine: map[int64]Trial{}, most: map[int64]int{}}
	for i, t := range planned {
		d.at[t.ID] = i
		d.states = append(d.states, TrialState{Trial: t})
	}
	d.notify(Event{Kind: Planned, Trials: planned})
	return d, d.refresh(ctx)
}

// Study returns the study of the Dispatch.
func (d *Dispatch) Study() Study { return d.study }

// refresh reads what has changed in the store. The caller does not hold d.mu.
func (d *Dispatch) refresh(ctx context.Context) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.poll(ctx)
}

// poll reads what has changed in the store. The caller holds d.mu.
func (d *Dispatch) poll(ctx context.Context) error {
	changed, moment, err := d.store.Poll(ctx, d.study.Name, d.moment)
	if err != nil {
		return err
	}
	d.moment = moment
	for _, t := range changed {
		i, ok := d.at[t.ID]
		if !ok {
			continue
		}
		old := d.states[i].Trial
		d.states[i] = t
		mine, ok := d.mine[t.ID]
		if t.Status == Pending && (old.Status == Failed || ok && mine.Status == Failed) {
			// A user has fixed the cause and asked to try the trial again.
			d.failed, d.alike, d.over = nil, 0, d.stopped
		}
		// For an attempt that runs, the store may already know of an epoch that mine lacks.
		ours := ok && mine.Status == t.Status && (mine.Epoch == t.Epoch || t.Status == Running)
		if !ours && (old.Status != t.Status || old.Epoch != t.Epoch) {
			d.notify(Event{Kind: Elsewhere, Trial: t.Trial})
		}
	}
	return nil
}

// Worker is a worker that asks a Dispatch for a claim.
type Worker struct {
	Beginner // begins the attempts of this worker
	// Attempt is the template of its attempts. Its ISA, and that below, are those of the worker's
	// devices; Claim adds what the precision of the study makes of them.
	Attempt Attempt
	// ISA, if set, leaves out trials that began with another arithmetic, because this worker cannot
	// continue them.
	ISA string
}

// Claim begins the next attempt for a worker; Desk.Claim explains the results.
func (d *Dispatch) Claim(ctx context.Context, w Worker, ask Ask) (claim *Claim, wait time.Duration, err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	w.ISA, w.Attempt.ISA = d.study.Arithmetic(w.ISA), d.study.Arithmetic(w.Attempt.ISA)
	if !d.over || d.failed != nil { // a user may have asked to try failed trials again
		if err := d.poll(ctx); err != nil {
			return nil, 0, err
		}
	}
	if d.failed != nil {
		return nil, 0, d.failed
	}
	d.checkBudget()
	if !d.over {
		if claim, err = d.take(ctx, w, ask); claim != nil || err != nil {
			return claim, 0, err
		}
	}
	if d.over {
		return nil, 0, overError(d.reason)
	}
	if limit := d.study.WallTime(); limit > 0 && !d.start.IsZero() {
		wait = max(time.Millisecond, limit-time.Since(d.start))
	}
	return nil, wait, nil
}

// Over reports whether no trial runs and none will begin, and for which reason.
func (d *Dispatch) Over(ctx context.Context) (bool, string, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.poll(ctx); err != nil {
		return false, "", err
	}
	d.checkBudget()
	for _, t := range d.states {
		if t.Status == Running {
			return false, "", nil
		}
	}
	if d.failed != nil {
		return true, d.failed.Error(), nil
	}
	if d.over {
		return true, d.reason, nil
	}
	want := d.strategy.Decide(d.study, d.states)
	return len(want.Next) == 0, want.Reason, nil
}

// overError returns an ErrOver with a reason, which may be "".
func overError(reason string) error {
	if reason == "" {
		return ErrOver
	}
	return fmt.Errorf("%w: %s", ErrOver, reason)
}

// take begins the first trial that the strategy wants and that the worker can have. It returns nil
// if there is none now, and an ErrOver if there will be none.
func (d *Dispatch) take(ctx context.Context, w Worker, ask Ask) (*Claim, error) {
	want := d.strategy.Decide(d.study, d.states)
	running, begun := 0, 0
	for i := range d.states { // without copying the states, which are large
		t := &d.states[i]
		if t.Status == Running {
			running++
		}
		if t.Status != Pending || t.Epoch > 0 {
			begun++
		}
	}
	var skip skipped
	for _, step := range want.Next {
		s := &d.states[step.Trial]
		until, most := min(step.Until, s.Epochs), d.most[s.ID]
		switch {
		case s.Status != Pending || until <= s.Epoch && s.Epoch < s.Epochs:
			continue
		case d.study.MaxTrials > 0 && s.Epoch == 0 && begun >= d.study.MaxTrials:
			skip.budget = true
			continue
		case w.ISA != "" && s.ISA != "" && s.ISA != w.ISA:
			skip.arithmetic++
			continue
		case ask.Left > 0 && s.Epoch < s.Epochs && max(1, d.epochTime(s)) >= ask.Left:
			skip.time++
			continue
		case most > 0 && ask.Beside >= most:
			skip.crowded = true
			continue
		}
		claim, err := d.begin(ctx, w, s, until)
		if errors.Is(err, ErrTaken) {
			// Another process was faster. What it has changed may change the decision.
			if err := d.poll(ctx); err != nil {
				return nil, err
			}
			if s.Status == Pending { // the other process has already given it back: try it later
				skip.taken = true
				continue
			}
			return d.take(ctx, w, ask)
		}
		if err != nil {
			return nil, fmt.Errorf("%v: %w", s.Key, err)
		}
		claim.Company, claim.Most = running > ask.Beside, most
		return claim, nil
	}
	return nil, d.explain(w, ask, want, running, skip)
}

// skipped counts the trials that the strategy wants and that take could not begin.
type skipped struct {
	budget     bool // some would exceed Study.MaxTrials
	taken      bool // another process had some for a moment
	crowded    bool // some may only be trained beside fewer others, which may have ended since the worker asked
	arithmetic int  // how many began with another arithmetic
	time       int  // how many need more time for an epoch than the worker has
}

// begin begins an attempt at a trial up to an epoch.
func (d *Dispatch) begin(ctx context.Context, w Worker, s *TrialState, until int) (*Claim, error) {
	a := w.Attempt
	a.Started = time.Now()
	claim, err := w.Begin(ctx, s.ID, until, a)
	if err != nil {
		return nil, err
	}
	delete(d.most, s.ID)
	if d.start.IsZero() {
		d.start = time.Now()
	}
	s.Status, s.Error, s.Failure, s.Until = Running, "", "", until
	if claim.From != nil {
		s.Epoch = claim.From.Epoch
	} else {
		s.Epoch, s.Last = 0, Epoch{}
	}
	d.mine[s.ID] = s.Trial
	claim.Handle = d.Handle(s.ID, claim.Handle)
	claim.Study, claim.Trial, claim.Until = d.study, s.Trial, until
	return &claim, nil
}

// explain returns an ErrOver if take will find no trial later either. It ends the run if
// Study.MaxTrials is the cause.
func (d *Dispatch) explain(w Worker, ask Ask, want Decision, running int, skip skipped) error {
	switch {
	case running > 0 || skip.taken || skip.crowded:
	case skip.budget:
		d.over, d.stopped, d.reason = true, true, fmt.Sprintf("max_trials = %d is reached", d.study.MaxTrials)
	case skip.arithmetic > 0 || skip.time > 0: // another worker can take these
	default:
		d.reason = want.Reason
		return overError(d.reason)
	}
	// The worker's time only gets shorter, so waiting does not help. For trials with another
	// arithmetic it helps only while other workers train, which may give trials back.
	if d.over || skip.time == 0 && (skip.arithmetic == 0 || running > ask.Beside) {
		return nil
	}
	var parts []string
	if skip.arithmetic > 0 {
		parts = append(parts, fmt.Sprintf("trials that wait for a worker with their arithmetic: %d (this one has %s)",
			skip.arithmetic, w.ISA))
	}
	if skip.time > 0 {
		parts = append(parts, fmt.Sprintf("trials that wait for a worker with more time: %d (this one has %v left)",
			skip.time, ask.Left.Round(time.Second)))
	}
	return overError(strings.Join(parts, "; "))
}

// epochTime returns how long the next epoch of a trial will take, from its own last epoch or,
// before its first, from the last epochs of other trials. It returns 0 if there are none.
func (d *Dispatch) epochTime(s *TrialState) time.Duration {
	seconds := s.Last.TrainSeconds + s.Last.EvalSeconds
	if s.Epoch == 0 {
		for _, t := range d.states {
			if t.Epoch > 0 && t.MultiplyAdds > 0 {
				seconds = max(seconds,
					(t.Last.TrainSeconds+t.Last.EvalSeconds)*float64(s.MultiplyAdds)/float64(t.MultiplyAdds))
			}
		}
	}
	return time.Duration(seconds * float64(time.Second))
}

// checkBudget ends the run if a budget is spent: no further attempt begins, and running attempts
// end at their next epoch. The caller holds d.mu.
func (d *Dispatch) checkBudget() {
	if d.over {
		return
	}
	s := d.study
	stop := func(format string, a ...any) {
		d.over, d.stopped, d.reason = true, true, fmt.Sprintf(format, a...)
	}
	late := s.WallTime() > 0 && !d.start.IsZero() && time.Since(d.start) >= s.WallTime()
	if !late && s.MaxEpochs == 0 && s.MaxDeviceHours == 0 {
		return
	}
	epochs, seconds, busy := 0, 0.0, false
	for _, t := range d.states {
		busy = busy || t.Status == Running
		epochs += len(t.History)
		for _, e := range t.History {
			seconds += e.TrainSeconds + e.EvalSeconds
		}
	}
	switch {
	case !busy && len(d.strategy.Decide(s, d.states).Next) == 0: // the study has ended by itself
	case late:
		stop("max_wall_time = %q is over", s.MaxWallTime)
	case s.MaxEpochs > 0 && epochs >= s.MaxEpochs:
		stop("max_epochs = %d is reached", s.MaxEpochs)
	case s.MaxDeviceHours > 0 && seconds >= 3600*s.MaxDeviceHours:
		stop("max_device_hours = %g is reached", s.MaxDeviceHours)
	}
}

// trial returns the last known state of a trial. The caller holds d.mu.
func (d *Dispatch) trial(id int64) (Trial, error) {
	i, ok := d.at[id]
	if !ok {
		return Trial{}, fmt.Errorf("study %q has no trial %d", d.study.Name, id)
	}
	if mine, ok := d.mine[id]; ok {
		return mine, nil
	}
	return d.states[i].Trial, nil
}

// Handle returns a Handle that passes the results of an attempt on to h, and also tells the
// Dispatch.
func (d *Dispatch) Handle(trial int64, h Handle) Handle { return handle{d, trial, h} }

type handle struct {
	d      *Dispatch
	trial  int64
	stores Handle
}

func (h handle) Record(ctx context.Context, e Epoch, state Checkpoint) error {
	if err := h.stores.Record(ctx, e, state); err != nil {
		return err
	}
	d := h.d
	d.mu.Lock()
	defer d.mu.Unlock()
	t, err := d.trial(h.trial)
	if err != nil {
		return err
	}
	t.Status, t.Epoch, t.Last = Running, e.Number, e
	d.mine[t.ID] = t
	if !d.over && (d.study.MaxEpochs > 0 || d.study.MaxDeviceHours > 0) {
		if err := d.poll(ctx); err != nil {
			return err
		}
	}
	d.checkBudget()
	if d.stopped {
		return fmt.Errorf("%w: %s", ErrStop, d.reason)
	}
	return nil
}

func (h handle) End(ctx context.Context, o Outcome) (Status, error) {
	d := h.d
	d.mu.Lock() // before the trial is pending: whoever claims it must find d.most set
	defer d.mu.Unlock()
	t, err := d.trial(h.trial)
	if err != nil {
		return "", err
	}
	status, err := h.stores.End(ctx, o)
	if err != nil {
		delete(d.mine, t.ID) // the state of the trial is not known here any more
		return status, err
	}
	back := o.Most > 0 && status == Pending
	if back {
		d.most[t.ID] = o.Most
	}
	t.Status = status
	d.mine[t.ID] = t
	d.countFailures(t, o, back)
	return status, nil
}

// digits match the numbers of epochs, steps and bytes, in which failures of the same kind differ.
var digits = regexp.MustCompile(`[0-9]+`)

// countFailures stops the run after Study.StopAfter trainings in a row failed in the same way. back
// says that the trial was put back for lack of memory, which does not count.
func (d *Dispatch) countFailures(t Trial, o Outcome, back bool) {
	if o.Status != Failed || back {
		if o.Status == Done {
			d.alike = 0
		}
		return
	}
	what := string(o.Failure) + digits.ReplaceAllString(o.Message, "#")
	if d.lastFailure != what {
		d.lastFailure, d.alike = what, 0
	}
	d.alike++
	if n := d.study.StopAfter; n > 0 && d.alike >= n {
		d.over = true
		d.failed = alikeError{fmt.Errorf("%d trainings in a row failed in the same way, the last one was %v: %s: "+
			"fix the cause, then try the failed trials again", n, t.Key, o.Message)}
	}
}

// Summary counts the trials by their last known status.
func (d *Dispatch) Summary() Summary {
	d.mu.Lock()
	defer d.mu.Unlock()
	s := Summary{Reason: d.reason, Stopped: d.stopped}
	for _, t := range d.states {
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

// local is the Desk of a Dispatch in this process.
type local struct {
	*Dispatch
	worker Worker
	every  time.Duration // the longest wait before the next call of Claim
}

// Claim finishes what it has begun even if ctx ends meanwhile.
func (l local) Claim(ctx context.Context, ask Ask) (*Claim, time.Duration, error) {
	claim, wait, err := l.Dispatch.Claim(context.WithoutCancel(ctx), l.worker, ask)
	return claim, min(cmp.Or(wait, l.every), l.every), err
}

func (l local) Beat(ctx context.Context) (time.Duration, error) { return l.store.Beat(ctx) }
