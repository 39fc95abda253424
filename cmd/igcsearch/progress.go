package main

import (
	"cmp"
	"fmt"
	"io"
	"math"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/vbauerster/mpb/v8"
	"github.com/vbauerster/mpb/v8/decor"
	"golang.org/x/term"

	"igcsearch/search"
	"igcsearch/space"
)

// progress shows how a run goes on.
type progress interface {
	event(search.Event)
	// note shows a line for people; it may be called from any goroutine.
	note(line string)
	// close takes away what is only of interest during the run.
	close()
}

// newProgress shows live bars on a terminal and plain lines elsewhere.
func newProgress(study string, stderr io.Writer) progress {
	w := &work{study: study, now: time.Now, live: map[int64]*liveTrial{}}
	if isTerminal(stderr) {
		return newBars(w, stderr)
	}
	return &lines{work: w, out: stderr}
}

// isTerminal reports whether w is a terminal that can show bars: one of width
// 0, such as a pseudo-terminal whose size nobody set, shows none.
func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	if !ok {
		return false
	}
	width, _, err := term.GetSize(int(f.Fd()))
	return err == nil && width > 0
}

// work measures a run in multiply–adds × epochs, because the trials of one
// study differ in length. Its methods may be called concurrently.
type work struct {
	study string
	now   func() time.Time

	mu            sync.Mutex
	start         time.Time
	total, done   float64 // all trials, and what of it is done
	before        float64 // done when the run started
	trials, ended int
	live          map[int64]*liveTrial
	known         map[int64]search.Trial // as they were counted last
}

// liveTrial is a trial that a worker has.
type liveTrial struct {
	search.Trial
	at    float64 // epochs done, with the fraction of the one in flight
	since time.Time
}

func (w *work) event(e search.Event) {
	w.mu.Lock()
	defer w.mu.Unlock()
	switch cost := float64(e.Trial.MultiplyAdds); e.Kind {
	case search.Planned:
		w.start, w.trials, w.known = w.now(), len(e.Trials), map[int64]search.Trial{}
		for _, t := range e.Trials {
			w.known[t.ID] = t
			epochs := t.Epoch
			if t.Status.Finished() {
				epochs = t.Epochs
				w.ended++
			}
			w.total += float64(t.MultiplyAdds) * float64(t.Epochs)
			w.done += float64(t.MultiplyAdds) * float64(epochs)
		}
		w.before = w.done
	case search.Elsewhere:
		// No speed of this run, but work that is not left to do.
		was := w.known[e.Trial.ID]
		gained := cost * float64(e.Trial.Epoch-was.Epoch)
		if e.Trial.Status.Finished() && !was.Status.Finished() {
			w.ended++
			gained = cost * float64(e.Trial.Epochs-was.Epoch)
		}
		w.done += gained
		w.before += gained
		w.known[e.Trial.ID] = e.Trial
	case search.Began:
		w.live[e.Trial.ID] = &liveTrial{Trial: e.Trial, at: float64(e.Trial.Epoch), since: w.now()}
	case search.Stepped, search.EpochStored:
		t := w.live[e.Trial.ID]
		at := float64(e.Trial.Epoch)
		if e.Kind == search.Stepped {
			at += float64(e.Step) / float64(e.Steps)
		}
		w.done += cost * (at - t.at)
		t.Trial, t.at = e.Trial, at
	case search.Ended:
		if at := w.live[e.Trial.ID].at; e.Trial.Status == search.Pending {
			w.done -= cost * (at - float64(e.Trial.Epoch)) // to be done again
		} else {
			w.ended++
			w.total -= cost * (float64(e.Trial.Epochs) - at) // it will not be done
		}
		delete(w.live, e.Trial.ID)
		w.known[e.Trial.ID] = e.Trial
	}
}

// line is the whole run in words: "quickstart: 3 of 18 trials, 17 %, 1m20s left".
func (w *work) line() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.trials == 0 {
		return w.study // not planned yet
	}
	share := 1.0 // all trials may have ended without any work
	if w.total > 0 {
		share = w.done / w.total
	}
	return fmt.Sprintf("%s: %d of %s, %.0f %%, %s", w.study, w.ended, count(w.trials, "trial"), math.Floor(100*share), w.left())
}

// left is the time estimate: what is left at the speed of this run so far.
func (w *work) left() string {
	elapsed := w.now().Sub(w.start).Seconds()
	if w.done-w.before <= 0 || elapsed < 1 {
		return "time left unknown yet"
	}
	return span(elapsed*(w.total-w.done)/(w.done-w.before)) + " left"
}

// span writes seconds with two units: "2d3h", "1h05m", "1m20s", "9s".
func span(seconds float64) string {
	if !(seconds < 1e9) {
		return "years"
	}
	s := int(math.Round(max(seconds, 0)))
	switch {
	case s >= 86400:
		return fmt.Sprintf("%dd%dh", s/86400, s%86400/3600)
	case s >= 3600:
		return fmt.Sprintf("%dh%02dm", s/3600, s%3600/60)
	case s >= 60:
		return fmt.Sprintf("%dm%02ds", s/60, s%60)
	}
	return fmt.Sprintf("%ds", s)
}

// where lists the running trials by pair and seed: "L40M2 seed 0 epoch 3/4".
func (w *work) where() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	var list []*liveTrial
	for _, t := range w.live {
		list = append(list, t)
	}
	slices.SortFunc(list, func(a, b *liveTrial) int {
		return cmp.Or(space.ComparePairs(a.System.Pair(), b.System.Pair()), cmp.Compare(a.System.String(), b.System.String()), cmp.Compare(a.Seed, b.Seed))
	})
	var texts []string
	for _, t := range list {
		texts = append(texts, fmt.Sprintf("%v seed %d epoch %d/%d", t.System.Label(), t.Seed, min(t.Epoch+1, t.Epochs), t.Epochs))
	}
	return strings.Join(texts, ", ")
}

// words are what people are told of an event, "" for most. It is to be asked
// before the event is counted.
func (w *work) words(e search.Event) string {
	switch {
	case e.Kind == search.Ended:
		return w.verdict(e.Trial)
	case e.Kind == search.Noted && e.Trial.ID == 0:
		return w.study + ": " + e.Note
	case e.Kind == search.Noted:
		return fmt.Sprintf("%s: %v seed %d: %s", w.study, e.Trial.System.Label(), e.Trial.Seed, e.Note)
	}
	return ""
}

// verdict tells how a trial ended, "" if it was only interrupted.
func (w *work) verdict(t search.Trial) string {
	w.mu.Lock()
	defer w.mu.Unlock()
	status, text := string(t.Status), ""
	switch t.Status {
	case search.Done:
		text = fmt.Sprintf("loss %.4f%s", t.Last.TrainLoss, scores(t.Last))
	case search.Diverged, search.Failed:
		text = t.Error
	default:
		if t.Error == "" {
			return ""
		}
		status, text = "put back", t.Error+": it is trained again"
		if t.Failure == search.FailedMemory {
			text += " beside fewer"
		}
	}
	seconds := w.now().Sub(w.live[t.ID].since).Seconds()
	return fmt.Sprintf("%s: %v seed %d %s after %s: %s", w.study, t.System.Label(), t.Seed, status, span(seconds), text)
}

// scores are the accuracies of an epoch as far as they were measured.
func scores(e search.Epoch) string {
	var text string
	if e.ValidationTotal > 0 {
		text += fmt.Sprintf(", validation %s %%", percent(e.ValidationCorrect, e.ValidationTotal))
	}
	if e.TestTotal > 0 {
		text += fmt.Sprintf(", test %s %%", percent(e.TestCorrect, e.TestTotal))
	}
	return text
}

// lines writes plain lines: for each trial that ends, and every few seconds.
type lines struct {
	*work
	mu   sync.Mutex
	out  io.Writer
	last time.Time // of the line before
}

// between is how long lines are silent if no trial ends.
const between = 5 * time.Second

func (l *lines) event(e search.Event) {
	l.tell(e)
	l.work.event(e)
	now := l.now()
	switch {
	case e.Kind == search.Planned:
		l.last = now
	case now.Sub(l.last) >= between:
		l.last = now
		l.note(l.line() + "; " + l.where())
	}
}

func (l *lines) tell(e search.Event) {
	if text := l.words(e); text != "" {
		l.note(text)
	}
}

func (l *lines) note(line string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	fmt.Fprintln(l.out, line)
}

func (l *lines) close() {}

// bars shows a bar for each running trial and, below them, one for the study.
type bars struct {
	*work
	container *mpb.Progress
	study     *mpb.Bar
	trials    map[int64]*mpb.Bar
}

// shares is the resolution of the bars.
const shares = 100_000

func newBars(w *work, stderr io.Writer) *bars {
	b := &bars{work: w, container: mpb.New(mpb.WithOutput(stderr), mpb.WithWidth(24)), trials: map[int64]*mpb.Bar{}}
	b.study = b.container.AddBar(shares,
		mpb.BarPriority(math.MaxInt32), mpb.BarRemoveOnComplete(),
		mpb.AppendDecorators(decor.Any(func(decor.Statistics) string { return " " + w.line() })))
	return b
}

func (b *bars) event(e search.Event) {
	b.tell(e)
	b.work.event(e)
	b.mu.Lock()
	share, at := 0., 0.
	if b.total > 0 {
		share = b.done / b.total
	}
	if t := b.live[e.Trial.ID]; t != nil {
		at = t.at / float64(t.Epochs)
	}
	b.mu.Unlock()
	// A full bar completes and cannot change any more; close takes it away.
	b.study.SetCurrent(min(int64(shares*share), shares-1))
	switch e.Kind {
	case search.Began:
		id := e.Trial.ID
		b.trials[id] = b.container.AddBar(shares, mpb.BarRemoveOnComplete(),
			mpb.AppendDecorators(decor.Any(func(decor.Statistics) string { return " " + b.trial(id) })))
		b.trials[id].SetCurrent(min(int64(shares*at), shares-1))
	case search.Stepped:
		b.trials[e.Trial.ID].SetCurrent(min(int64(shares*at), shares-1))
	case search.Ended:
		b.trials[e.Trial.ID].Abort(true)
		delete(b.trials, e.Trial.ID)
	}
}

// trial is a running trial in words.
func (b *bars) trial(id int64) string {
	b.mu.Lock()
	defer b.mu.Unlock()
	t := b.live[id]
	if t == nil {
		return "ended" // the bar is about to go
	}
	text := fmt.Sprintf("%v seed %d epoch %d/%d", t.System.Label(), t.Seed, min(t.Epoch+1, t.Epochs), t.Epochs)
	if t.Epoch > 0 {
		text += fmt.Sprintf(" loss %.3f%s", t.Last.TrainLoss, scores(t.Last))
	}
	return text
}

func (b *bars) tell(e search.Event) {
	if text := b.words(e); text != "" {
		b.note(text)
	}
}

func (b *bars) note(line string) { fmt.Fprintln(b.container, line) }

func (b *bars) close() {
	b.study.Abort(true)
	b.container.Wait()
}
