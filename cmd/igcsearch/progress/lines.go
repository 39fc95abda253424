package progress

import (
	"fmt"
	"io"
	"sync"
	"time"

	"igcsearch/search"
)

// lines writes a line for each epoch and for each trial that ends.
type lines struct {
	*tally
	mu  sync.Mutex
	out io.Writer
}

func (l *lines) Event(e search.Event) {
	if text := l.words(e); text != "" {
		l.Note(text)
	}
	l.event(e)
	if e.Kind == search.EpochStored {
		l.Note(l.epoch(e.Trial))
	}
}

func (l *lines) Note(line string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	fmt.Fprintln(l.out, search.PrintableLine(line))
}

func (l *lines) Close() {}

// Log writes lines with the time, for the log of a job. Its Trials and Epochs
// count what Event has heard of.
type Log struct {
	Trials, Epochs int // trials that have their result, and epochs that were trained
	out            io.Writer
}

// NewLog returns a log that writes to out.
func NewLog(out io.Writer) *Log { return &Log{out: out} }

// Note writes one line.
func (l *Log) Note(line string) {
	fmt.Fprintf(l.out, "%s %s\n", time.Now().Format("2006-01-02 15:04:05"), search.PrintableLine(line))
}

// Event writes what happened to a trial.
func (l *Log) Event(e search.Event) {
	t := e.Trial
	at := fmt.Sprintf("%s %v", e.Study, t.Key)
	switch e.Kind {
	case search.Began:
		l.Note(fmt.Sprintf("%s: begins after epoch %d of %d", at, t.Epoch, t.Epochs))
	case search.EpochStored:
		l.Epochs++
		l.Note(fmt.Sprintf("%s: epoch %d of %d, loss %.4f%s, %.1f s", at, t.Epoch, t.Epochs,
			t.Last.TrainLoss, scores(t.Last), t.Last.TrainSeconds+t.Last.EvalSeconds))
	case search.Ended:
		switch {
		case t.Status.Finished():
			l.Trials++
			l.Note(fmt.Sprintf("%s: %s", at, t.Status))
		case t.Status == search.Pending && t.Error == "":
			l.Note(fmt.Sprintf("%s: given back after epoch %d", at, t.Epoch))
		default:
			l.Note(fmt.Sprintf("%s: %s: %s", at, t.Status, t.Error))
		}
	case search.Noted:
		if t.ID == 0 {
			l.Note(e.Note)
		} else {
			l.Note(at + ": " + e.Note)
		}
	}
}
