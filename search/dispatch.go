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

// Desk is where the workers of a Runner get their claims: a Dispatch in this
// process, or one in another.
type Desk interface {
	// Claim begins the next attempt. Without one, wait says when to ask again, or
	// the error wraps ErrOver.
	Claim(ctx context.Context, ask Ask) (claim *Claim, wait time.Duration, err error)
	// Beat is Store.Beat.
	Beat(ctx context.Context) (next time.Duration, err error)
}

// Ask is what a worker says when it asks for a turn.
type Ask struct {
	// Beside is how many other trainings its Runner has.
	Beside int
	// Left is how long it may work, 0 without a limit: a trial whose next epoch
	// would take longer is not for it.
	Left time.Duration
}

// ErrOver is what Desk.Claim returns (wrapped, with the reason) if there will be
// no turn any more.
var ErrOver = errors.New("no trial begins any more")

// ErrStop is what Desk.Record returns (wrapped) if a budget of the study is
// spent.
var ErrStop = errors.New("a budget of the study is spent")

// ErrAlike is what Desk.Claim returns (wrapped) after Study.StopAfter trainings
// in a row have failed in the same way.
var ErrAlike = errors.New("too many trainings failed alike")

// alikeError tells of them in its own words.
type alikeError struct{ error }

func (alikeError) Is(target error) bool { return target == ErrAlike }

// Dispatch gives out the turns of one study: it knows how all trials stand, asks
// the study's Strategy what it wants, and watches the budgets. Any number of
// workers use one, also of other machines, and other processes may share its
// Store.
type Dispatch struct {
	store    Store
	study    Study
	strategy Strategy
	notify   func(Event)
	start    time.Time // of the first turn; zero before. mu guards it

	mu      sync.Mutex // guards what follows
	states  []TrialState
	at      map[int64]int   // by Trial.ID: index into states
	mine    map[int64]Trial // as turns that were given out here left them
	moment  int64           // of the store's last Poll
	again   map[int64]int   // put back: how many may train at once
	over    bool            // no trial begins any more, whatever is stored
	stopped bool            // by a budget: those that run end at their next epoch
	reason  string          // why, or why the strategy wants no more
	failed  error           // too many trials failed alike
	alike   int             // failures in a row
	last    string          // what they say
}

// NewDispatch plans a study, of which the strategy decides what is trained, and reads
// how it stands. notify, if not nil, hears
// of what is Planned, and of what changes Elsewhere.
func NewDispatch(ctx context.Context, store Store, study Study, strategy Strategy, trials []Trial,
	notify func(Event)) (*Dispatch, error) {
	planned, err := store.Plan(ctx, study, trials)
	if err != nil {
		return nil, err // it names the study
	}
	if notify == nil {
		notify = func(Event) {}
	}
	d := &Dispatch{store: store, study: study, strategy: strategy, notify: notify,
		at: map[int64]int{}, mine: map[int64]Trial{}, again: map[int64]int{}}
	for i, t := range planned {
		d.at[t.ID] = i
		d.states = append(d.states, TrialState{Trial: t})
	}
	d.notify(Event{Kind: Planned, Trials: planned})
	return d, d.refresh(ctx)
}

// Study is the one whose turns are given out.
func (d *Dispatch) Study() Study { return d.study }

// refresh learns what changed in the store. d.mu is not held.
func (d *Dispatch) refresh(ctx context.Context) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.poll(ctx)
}

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
		// Of a turn that is open, the store may know more than was noted here.
		mine, ok := d.mine[t.ID]
		if t.Status == Pending && (old.Status == Failed || ok && mine.Status == Failed) {
			// Somebody has mended it, and had it tried again.
			d.failed, d.alike, d.over = nil, 0, d.stopped
		}
		ours := ok && mine.Status == t.Status && (mine.Epoch == t.Epoch || t.Status == Running)
		if !ours && (old.Status != t.Status || old.Epoch != t.Epoch) {
			d.notify(Event{Kind: Elsewhere, Trial: t.Trial})
		}
	}
	return nil
}

// Worker is who asks a Dispatch for a turn.
type Worker struct {
	Beginner // the Store, for this worker
	Attempt  Attempt
	// ISA, if set, leaves out trials that began with another arithmetic: no
	// other can go on with them.
	ISA string
}

// Claim begins the next turn for a worker, as Desk.Claim.
func (d *Dispatch) Claim(ctx context.Context, w Worker, ask Ask) (claim *Claim, wait time.Duration, err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if !d.over || d.failed != nil { // what failed may have been mended
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
		return nil, 0, over(d.reason)
	}
	if limit := d.study.WallTime(); limit > 0 && !d.start.IsZero() {
		wait = max(time.Millisecond, limit-time.Since(d.start))
	}
	return nil, wait, nil
}

// Over reports whether there is nothing to begin and nothing runs, and why.
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

func over(reason string) error {
	if reason == "" {
		return ErrOver
	}
	return fmt.Errorf("%w: %s", ErrOver, reason)
}

// take begins the first trial that the strategy wants and that the worker can
// have; nil if there is none now. It ends the run if there will be none.
func (d *Dispatch) take(ctx context.Context, w Worker, ask Ask) (*Claim, error) {
	want := d.strategy.Decide(d.study, d.states)
	running, begun := 0, 0
	for i := range d.states { // they are large, and may be many
		t := &d.states[i]
		if t.Status == Running {
			running++
		}
		if t.Status != Pending || t.Epoch > 0 {
			begun++
		}
	}
	var held, taken bool  // by the budget of trials; by another process
	var foreign, long int // of another arithmetic; longer than the worker may work
	for _, step := range want.Next {
		s := &d.states[step.Trial]
		until := min(step.Until, s.Epochs)
		if s.Status != Pending || until <= s.Epoch && s.Epoch < s.Epochs {
			continue
		}
		if d.study.MaxTrials > 0 && s.Epoch == 0 && begun >= d.study.MaxTrials {
			held = true
			continue
		}
		if w.ISA != "" && s.ISA != "" && s.ISA != w.ISA {
			foreign++
			continue
		}
		if ask.Left > 0 && s.Epoch < s.Epochs && max(1, d.epochTime(s)) >= ask.Left {
			long++
			continue
		}
		most := d.again[s.ID]
		if most > 0 && ask.Beside >= most {
			continue
		}
		a := w.Attempt
		a.Started = time.Now()
		claim, err := w.Begin(ctx, s.ID, until, a)
		if errors.Is(err, ErrTaken) {
			// Another process was faster: what it changed may change what is
			// wanted.
			if err := d.poll(ctx); err != nil {
				return nil, err
			}
			if s.Status == Pending { // again already; it can wait
				taken = true
				continue
			}
			return d.take(ctx, w, ask)
		}
		if err != nil {
			return nil, fmt.Errorf("%v: %w", s.Key, err)
		}
		delete(d.again, s.ID)
		if d.start.IsZero() { // a run does not begin before somebody trains
			d.start = time.Now()
		}
		s.Status, s.Error, s.Failure = Running, "", ""
		if claim.From != nil {
			s.Epoch = claim.From.Epoch
		} else {
			s.Epoch, s.Last = 0, Epoch{}
		}
		d.mine[s.ID] = s.Trial
		claim.Handle = d.Handle(s.ID, claim.Handle)
		claim.Study, claim.Trial, claim.Until = d.study, s.Trial, until
		claim.Company, claim.Most = running > ask.Beside, most
		return &claim, nil
	}
	switch {
	case running > 0 || taken:
	case held:
		d.over, d.stopped, d.reason = true, true, fmt.Sprintf("max_trials = %d is reached", d.study.MaxTrials)
	case foreign > 0 || long > 0: // for another worker
	default:
		d.reason = want.Reason
		return nil, over(d.reason)
	}
	// Time left gets less: waiting would not help. For another arithmetic it
	// would not either, unless somebody trains who may give trials back.
	if !d.over && (long > 0 || foreign > 0 && running <= ask.Beside) {
		var parts []string
		if foreign > 0 {
			parts = append(parts,
				fmt.Sprintf("%d wait for a worker of the arithmetic that they began with, this one has %s", foreign,
					w.ISA))
		}
		if long > 0 {
			parts = append(parts, fmt.Sprintf("%d wait for a worker with more time, this one has %v left", long,
				ask.Left.Round(time.Second)))
		}
		return nil, over(strings.Join(parts, "; "))
	}
	return nil, nil
}

// epochTime is how long the next epoch of a trial takes, by its last one or by
// those of the others; 0 if nothing is known.
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

// checkBudget ends the run where a budget is spent: no trial begins, and those
// that run stop at their next epoch. d.mu is held.
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
	case !busy && len(d.strategy.Decide(s, d.states).Next) == 0: // there is nothing to stop
	case late:
		stop("max_wall_time = %q is over", s.MaxWallTime)
	case s.MaxEpochs > 0 && epochs >= s.MaxEpochs:
		stop("max_epochs = %d is reached", s.MaxEpochs)
	case s.MaxDeviceHours > 0 && seconds >= 3600*s.MaxDeviceHours:
		stop("max_device_hours = %g is reached", s.MaxDeviceHours)
	}
}

// trial is one of the study as it was last seen. d.mu is held.
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

// Handle returns the handle of an attempt at a trial through which the Dispatch
// learns what comes of it. h stores the results.
func (d *Dispatch) Handle(trial int64, h Handle) Handle { return handle{d, trial, h} }

// handle is what Dispatch.Handle returns.
type handle struct {
	d      *Dispatch
	trial  int64
	stores Handle
}

// Record implements Handle.
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

// End implements Handle.
func (h handle) End(ctx context.Context, o Outcome) (Status, error) {
	d := h.d
	d.mu.Lock() // so that whoever claims next knows what was put back
	defer d.mu.Unlock()
	t, err := d.trial(h.trial)
	if err != nil {
		return "", err
	}
	status, err := h.stores.End(ctx, o)
	if err != nil {
		delete(d.mine, t.ID) // another has it, or nobody knows
		return status, err
	}
	back := o.Most > 0 && status == Pending
	if back {
		d.again[t.ID] = o.Most
	}
	t.Status = status
	d.mine[t.ID] = t
	d.count(t, o, back)
	return status, nil
}

// digits are no part of what makes failures alike: they count epochs, steps and
// bytes.
var digits = regexp.MustCompile(`[0-9]+`)

// count stops the run at so many failures in a row that are all alike.
func (d *Dispatch) count(t Trial, o Outcome, back bool) {
	if o.Status != Failed || back {
		if o.Status == Done {
			d.alike = 0
		}
		return
	}
	what := string(o.Failure) + digits.ReplaceAllString(o.Message, "#")
	if d.last != what {
		d.last, d.alike = what, 0
	}
	d.alike++
	if n := d.study.StopAfter; n > 0 && d.alike >= n {
		d.over = true
		d.failed = alikeError{fmt.Errorf("%d trainings in a row failed alike, at last %v seed %d: %s: mend that, "+
			"then let them be tried again: igcsearch retry %s",
			n, t.System.Label(), t.Seed, o.Message, d.study.Name)}
	}
}

// Summary counts the trials as they stand.
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

// local is the Desk of a Dispatch in this process. What has begun is finished
// even if ctx ends meanwhile.
type local struct {
	*Dispatch
	worker Worker
	every  time.Duration // to ask again
}

func (l local) Claim(ctx context.Context, ask Ask) (*Claim, time.Duration, error) {
	claim, wait, err := l.Dispatch.Claim(context.WithoutCancel(ctx), l.worker, ask)
	return claim, min(cmp.Or(wait, l.every), l.every), err
}

func (l local) Beat(ctx context.Context) (time.Duration, error) { return l.store.Beat(ctx) }
