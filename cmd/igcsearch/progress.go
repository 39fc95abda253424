package main

import (
	"fmt"
	"io"
	"math"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/vbauerster/mpb/v8"
	"github.com/vbauerster/mpb/v8/decor"
	"golang.org/x/term"

	"igcsearch/search"
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
func newProgress(study search.Study, stderr io.Writer) progress {
	w := newWork(study, time.Now)
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

// work is a run as it goes on. Its methods may be called concurrently.
type work struct {
	study search.Study
	now   func() time.Time

	mu     sync.Mutex
	trials []search.Work
	at     map[int64]int // by Trial.ID: index into trials
	live   map[int64]*liveTrial
	most   int // trainings at once, so far
}

func newWork(study search.Study, now func() time.Time) *work {
	return &work{study: study, now: now, at: map[int64]int{}, live: map[int64]*liveTrial{}}
}

// liveTrial is a trial that a worker has.
type liveTrial struct {
	since time.Time
	// The first and the last step that were heard of, in epochs.
	first, last     float64
	firstAt, lastAt time.Time
}

// settled is how long the steps of a first epoch are measured before they tell how
// fast a trial is.
const settled = 10 * time.Second

func (w *work) event(e search.Event) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if e.Kind == search.Planned {
		w.trials, w.at = nil, map[int64]int{}
		for _, t := range e.Trials {
			w.at[t.ID] = len(w.trials)
			w.trials = append(w.trials, stands(t))
		}
		return
	}
	i, known := w.at[e.Trial.ID]
	if !known {
		return // a note about the run
	}
	t := &w.trials[i]
	switch e.Kind {
	case search.Elsewhere:
		*t = stands(e.Trial)
		return
	case search.Began:
		w.live[e.Trial.ID] = &liveTrial{since: w.now()}
		w.most = max(w.most, len(w.live))
	case search.Stepped:
		l := w.live[e.Trial.ID]
		t.At = float64(e.Trial.Epoch) + float64(e.Step)/float64(e.Steps)
		l.last, l.lastAt = t.At, w.now()
		if l.firstAt.IsZero() { // what came before built the network
			l.first, l.firstAt = l.last, l.lastAt
		}
	case search.EpochStored:
		t.Add(1, e.Trial.Last)
	case search.Ended:
		delete(w.live, e.Trial.ID)
		if e.Trial.Failure == search.FailedMemory && e.Trial.Status == search.Pending {
			w.most = max(1, w.most-1) // its worker has ended
		}
	}
	t.Trial = e.Trial
	if e.Kind != search.Stepped {
		t.At = float64(e.Trial.Epoch)
	}
	if e.Kind == search.Began || e.Kind == search.Stepped || e.Kind == search.EpochStored {
		t.Trial.Status = search.Running
	}
}

// stands is a trial of which the last epoch is known: those before it took as long.
func stands(t search.Trial) search.Work {
	w := search.Work{Trial: t, At: float64(t.Epoch)}
	w.Add(float64(t.Epoch), t.Last)
	return w
}

// forecast is that of the run as it stands. w.mu is held.
func (w *work) forecast() search.Forecast {
	trials, running, left := slices.Clone(w.trials), 0, 0
	for i := range trials {
		t := &trials[i]
		if t.Trial.Status == search.Running {
			running++
		}
		if !t.Trial.Status.Finished() && t.Trial.Status != search.Failed {
			left++
		}
		if l := w.live[t.Trial.ID]; l != nil && t.Measured == 0 && l.lastAt.Sub(l.firstAt) >= settled {
			t.Measured, t.Seconds = l.last-l.first, l.lastAt.Sub(l.firstAt).Seconds()
		}
	}
	// Between two trials a worker has none for a moment.
	return search.Predict(trials, max(running, min(w.most, left)))
}

// ended counts the trials that have ended. w.mu is held.
func (w *work) ended() (n int) {
	for _, t := range w.trials {
		if t.Trial.Status.Finished() || t.Trial.Status == search.Failed {
			n++
		}
	}
	return n
}

// line is the whole run in words: "quickstart: 3 of 18 trials, 17 %, 1m20s left".
func (w *work) line() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.trials) == 0 {
		return w.study.Name // not planned yet
	}
	f := w.forecast()
	return fmt.Sprintf("%s: %d of %s, %.0f %%, %s", w.study.Name, w.ended(), count(len(w.trials), "trial"), math.Floor(100*f.Share), timeLeft(f, w.study))
}

// epoch is an epoch that was stored, in words: "quickstart: 3 of 18 trials; L40M2
// seed 0 epoch 3/12: loss 1.2345, test 56.78 %, 3.1 s; 1m20s left".
func (w *work) epoch(t search.Trial) string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return fmt.Sprintf("%s: %d of %s; %v seed %d epoch %d/%d: loss %.4f%s, %.1f s; %s", w.study.Name, w.ended(), count(len(w.trials), "trial"),
		t.System.Label(), t.Seed, t.Epoch, t.Epochs, t.Last.TrainLoss, score(t.Last, w.study.Split),
		t.Last.TrainSeconds+t.Last.EvalSeconds, timeLeft(w.forecast(), w.study))
}

// timeLeft tells how long the rest of a study takes.
func timeLeft(f search.Forecast, s search.Study) string {
	if !f.Known {
		return "time left not known yet"
	}
	return remaining(f, s) + " left"
}

// remaining is the time of a forecast.
func remaining(f search.Forecast, s search.Study) string {
	switch {
	case !f.Known:
		return "not known yet"
	case s.Strategy != "": // which may not want all trials
		return "at most " + span(f.Seconds)
	}
	return span(f.Seconds)
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

// words are what people are told of an event, "" for most. It is to be asked
// before the event is counted.
func (w *work) words(e search.Event) string {
	switch {
	case e.Kind == search.Ended:
		return w.verdict(e.Trial)
	case e.Kind == search.Noted && e.Trial.ID == 0:
		return w.study.Name + ": " + e.Note
	case e.Kind == search.Noted:
		return fmt.Sprintf("%s: %v: %s", w.study.Name, e.Trial.Key, e.Note)
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
	return fmt.Sprintf("%s: %v %s after %s: %s", w.study.Name, t.Key, status, span(seconds), text)
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

// score is the accuracy of the split that the study shows, if the epoch was
// evaluated.
func score(e search.Epoch, curve string) string {
	if text := percent(e.Correct(curve)); text != "" {
		return fmt.Sprintf(", %s %s %%", curve, text)
	}
	return ""
}

// lines writes plain lines: for each epoch, and for each trial that ends.
type lines struct {
	*work
	mu  sync.Mutex
	out io.Writer
}

func (l *lines) event(e search.Event) {
	l.tell(e)
	l.work.event(e)
	if e.Kind == search.EpochStored {
		l.note(l.epoch(e.Trial))
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
	whole     *mpb.Bar
	parts     map[int64]*mpb.Bar // of the trials that run
	shown     time.Time          // when the bars were last moved by a step
}

// shares is the resolution of the bars.
const shares = 100_000

func newBars(w *work, stderr io.Writer) *bars {
	b := &bars{work: w, container: mpb.New(mpb.WithOutput(stderr), mpb.WithWidth(24)), parts: map[int64]*mpb.Bar{}}
	b.whole = b.container.AddBar(shares,
		mpb.BarPriority(math.MaxInt32), mpb.BarRemoveOnComplete(),
		mpb.AppendDecorators(decor.Any(func(decor.Statistics) string { return " " + w.line() })))
	return b
}

func (b *bars) event(e search.Event) {
	b.tell(e)
	b.work.event(e)
	if e.Kind == search.Stepped {
		// Steps may be many, and eyes are slow.
		if now := b.now(); now.Sub(b.shown) >= 100*time.Millisecond {
			b.shown = now
		} else {
			return
		}
	}
	b.mu.Lock()
	share, at := b.forecast().Share, 0.
	if i, ok := b.at[e.Trial.ID]; ok {
		at = b.trials[i].At / float64(e.Trial.Epochs)
	}
	b.mu.Unlock()
	// A full bar completes and cannot change any more; close takes it away.
	b.whole.SetCurrent(min(int64(shares*share), shares-1))
	switch e.Kind {
	case search.Began:
		id := e.Trial.ID
		b.parts[id] = b.container.AddBar(shares, mpb.BarRemoveOnComplete(),
			mpb.AppendDecorators(decor.Any(func(decor.Statistics) string { return " " + b.trial(id) })))
		b.parts[id].SetCurrent(min(int64(shares*at), shares-1))
	case search.Stepped:
		b.parts[e.Trial.ID].SetCurrent(min(int64(shares*at), shares-1))
	case search.Ended:
		b.parts[e.Trial.ID].Abort(true)
		delete(b.parts, e.Trial.ID)
	}
}

// trial is a running trial in words.
func (b *bars) trial(id int64) string {
	b.mu.Lock()
	defer b.mu.Unlock()
	i, known := b.at[id]
	if !known || b.live[id] == nil {
		return "ended" // the bar is about to go
	}
	t := b.trials[i].Trial
	text := fmt.Sprintf("%v epoch %d/%d", t.Key, min(t.Epoch+1, t.Epochs), t.Epochs)
	if t.Epoch > 0 {
		text += fmt.Sprintf(" loss %.3f%s", t.Last.TrainLoss, score(t.Last, b.study.Split))
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
	b.whole.Abort(true)
	b.container.Wait()
}
