// Package progress shows how a study goes on while it trains: bars on a
// terminal, lines elsewhere, and how long the rest takes, in words. Every
// estimate of the time left is search.Predict's.
package progress

import (
	"fmt"
	"io"
	"math"
	"os"
	"slices"
	"sync"
	"time"

	"golang.org/x/term"

	"igcsearch/cmd/igcsearch/report"
	"igcsearch/search"
)

// Display shows how a run goes on.
type Display interface {
	Event(search.Event)
	// Note shows a line of text. It may be called from any goroutine.
	Note(line string)
	// Close removes what is only of interest during the run.
	Close()
}

// New returns a display with bars on a terminal, and with plain lines elsewhere.
func New(study search.Study, stderr io.Writer) Display {
	t := newTally(study, time.Now)
	if IsTerminal(stderr) {
		return newBars(t, report.Unwrap(stderr))
	}
	return &lines{tally: t, out: stderr}
}

// IsTerminal reports whether w is a terminal that can show bars. A terminal of
// width 0 cannot, such as a pseudo-terminal whose size nobody has set.
func IsTerminal(w io.Writer) bool {
	f, ok := report.Unwrap(w).(*os.File)
	if !ok {
		return false
	}
	width, _, err := term.GetSize(int(f.Fd()))
	return err == nil && width > 0
}

// tally knows how far each trial of a run is. Its methods may be called
// concurrently.
type tally struct {
	study search.Study
	now   func() time.Time

	mu     sync.Mutex
	trials []search.Work
	at     map[int64]int       // by Trial.ID: index into trials
	live   map[int64]*training // by Trial.ID: the trials that this process trains
	most   int                 // how many trained at once so far
}

// training is a trial that this process trains.
type training struct {
	since time.Time
	// The first and the last step that were reported, in epochs.
	first, last     float64
	firstAt, lastAt time.Time
}

func newTally(study search.Study, now func() time.Time) *tally {
	return &tally{study: study, now: now, at: map[int64]int{}, live: map[int64]*training{}}
}

// settled is how long the steps of a first epoch are measured before they are
// used for the time left.
const settled = 10 * time.Second

func (t *tally) event(e search.Event) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if e.Kind == search.Planned {
		t.trials, t.at = nil, map[int64]int{}
		for _, trial := range e.Trials {
			t.at[trial.ID] = len(t.trials)
			t.trials = append(t.trials, stored(trial))
		}
		return
	}
	i, known := t.at[e.Trial.ID]
	if !known {
		return // a note about the whole run
	}
	w := &t.trials[i]
	switch e.Kind {
	case search.Elsewhere:
		*w = stored(e.Trial)
		return
	case search.Began:
		t.live[e.Trial.ID] = &training{since: t.now()}
		t.most = max(t.most, len(t.live))
	case search.Stepped:
		l := t.live[e.Trial.ID]
		w.At = float64(e.Trial.Epoch) + float64(e.Step)/float64(e.Steps)
		l.last, l.lastAt = w.At, t.now()
		if l.firstAt.IsZero() { // the time before the first step built the network
			l.first, l.firstAt = l.last, l.lastAt
		}
	case search.EpochStored:
		w.Add(1, e.Trial.Last)
	case search.Ended:
		delete(t.live, e.Trial.ID)
		if e.Trial.Failure == search.FailedMemory && e.Trial.Status == search.Pending {
			t.most = max(1, t.most-1) // the goroutine that trained it has ended
		}
	}
	w.Trial = e.Trial
	if e.Kind != search.Stepped {
		w.At = float64(e.Trial.Epoch)
	}
	if e.Kind == search.Began || e.Kind == search.Stepped || e.Kind == search.EpochStored {
		w.Trial.Status = search.Running
	}
}

// stored returns what is known of a stored trial by its last epoch. The epochs
// before it count as equally long.
func stored(t search.Trial) search.Work {
	w := search.Work{Trial: t, At: float64(t.Epoch)}
	w.Add(float64(t.Epoch), t.Last)
	return w
}

// open reports whether a trial has still to be trained.
func open(t search.Trial) bool { return !t.Status.Finished() && t.Status != search.Failed }

// forecast predicts the end of the run. t.mu is held.
func (t *tally) forecast() search.Forecast {
	trials, running, left := slices.Clone(t.trials), 0, 0
	for i := range trials {
		w := &trials[i]
		if w.Trial.Status == search.Running {
			running++
		}
		if open(w.Trial) {
			left++
		}
		if l := t.live[w.Trial.ID]; l != nil && w.Measured == 0 && l.lastAt.Sub(l.firstAt) >= settled {
			w.Measured, w.Seconds = l.last-l.first, l.lastAt.Sub(l.firstAt).Seconds()
		}
	}
	// Between two trials fewer run for a moment.
	return search.Predict(trials, max(running, min(t.most, left)))
}

// ended counts the trials that have ended. t.mu is held.
func (t *tally) ended() (n int) {
	for _, w := range t.trials {
		if !open(w.Trial) {
			n++
		}
	}
	return n
}

// line describes the whole run: "quickstart: 3 of 18 trials, 17 %, 1m20s left".
func (t *tally) line() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.trials) == 0 {
		return t.study.Name // the run has not planned them yet
	}
	f := t.forecast()
	return fmt.Sprintf("%s: %d of %s, %.0f %%, %s", t.study.Name, t.ended(), report.Count(len(t.trials), "trial"),
		math.Floor(100*f.Share), TimeLeft(f, t.study))
}

// epoch describes an epoch that was stored: "quickstart: 3 of 18 trials; L40M2
// seed 0 epoch 3/12: loss 1.2345, test 56.78 %, 3.1 s; 1m20s left".
func (t *tally) epoch(trial search.Trial) string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return fmt.Sprintf("%s: %d of %s; %v epoch %d/%d: loss %.4f%s, %.1f s; %s",
		t.study.Name, t.ended(), report.Count(len(t.trials), "trial"),
		trial.Key, trial.Epoch, trial.Epochs, trial.Last.TrainLoss, score(trial.Last, t.study.Split),
		trial.Last.TrainSeconds+trial.Last.EvalSeconds, TimeLeft(t.forecast(), t.study))
}

// words tells people of an event. It is "" for most events, and must be called
// before the event is counted.
func (t *tally) words(e search.Event) string {
	switch {
	case e.Kind == search.Ended:
		return t.verdict(e.Trial)
	case e.Kind == search.Noted && e.Trial.ID == 0:
		return t.study.Name + ": " + e.Note
	case e.Kind == search.Noted:
		return fmt.Sprintf("%s: %v: %s", t.study.Name, e.Trial.Key, e.Note)
	}
	return ""
}

// verdict tells how a trial ended. It is "" if the trial was only interrupted.
func (t *tally) verdict(trial search.Trial) string {
	t.mu.Lock()
	defer t.mu.Unlock()
	status, text := string(trial.Status), ""
	switch trial.Status {
	case search.Done:
		text = fmt.Sprintf("loss %.4f%s", trial.Last.TrainLoss, scores(trial.Last))
	case search.Diverged, search.Failed:
		text = trial.Error
	default:
		if trial.Error == "" {
			return ""
		}
		status, text = "put back", trial.Error+": the trial is trained again"
		if trial.Failure == search.FailedMemory {
			text += " beside fewer"
		}
	}
	seconds := t.now().Sub(t.live[trial.ID].since).Seconds()
	return fmt.Sprintf("%s: %v %s after %s: %s", t.study.Name, trial.Key, status, Span(seconds), text)
}
