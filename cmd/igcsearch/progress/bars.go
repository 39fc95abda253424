package progress

import (
	"fmt"
	"io"
	"math"
	"time"

	"github.com/vbauerster/mpb/v8"
	"github.com/vbauerster/mpb/v8/decor"

	"igcsearch/search"
)

// bars shows a bar for each running trial and, below them, one for the study.
type bars struct {
	*tally
	container *mpb.Progress
	whole     *mpb.Bar
	parts     map[int64]*mpb.Bar // by Trial.ID: the trials that run
	shown     time.Time          // when a step last moved the bars
}

const (
	// shares is how many parts a bar has.
	shares = 100_000
	// redraw is the shortest time between two steps that move the bars.
	redraw = 100 * time.Millisecond
)

// newBars draws on a terminal. Bars move its cursor, so each text in them is made printable here.
func newBars(t *tally, stderr io.Writer) *bars {
	b := &bars{
		tally: t, container: mpb.New(mpb.WithOutput(stderr), mpb.WithWidth(24)), parts: map[int64]*mpb.Bar{},
	}
	b.whole = b.container.AddBar(shares, mpb.BarPriority(math.MaxInt32), mpb.BarRemoveOnComplete(), label(b.line))
	return b
}

// label puts a text behind a bar.
func label(text func() string) mpb.BarOption {
	return mpb.AppendDecorators(decor.Any(func(decor.Statistics) string { return " " + search.PrintableLine(text()) }))
}

func (b *bars) Event(e search.Event) {
	if text := b.words(e); text != "" {
		b.Note(text)
	}
	b.event(e)
	if e.Kind == search.Stepped {
		now := b.now()
		if now.Sub(b.shown) < redraw {
			return
		}
		b.shown = now
	}
	b.mu.Lock()
	whole, part := b.forecast().Share, 0.
	if i, ok := b.at[e.Trial.ID]; ok {
		part = b.trials[i].At / float64(e.Trial.Epochs)
	}
	b.mu.Unlock()
	move(b.whole, whole)
	id := e.Trial.ID
	switch e.Kind {
	case search.Began:
		b.parts[id] = b.container.AddBar(shares, mpb.BarRemoveOnComplete(), label(func() string { return b.trial(id) }))
		move(b.parts[id], part)
	case search.Stepped:
		move(b.parts[id], part)
	case search.Ended:
		b.parts[id].Abort(true)
		delete(b.parts, id)
	}
}

// move moves a bar to a share in [0, 1]. The bar is never full, because a full
// bar cannot change any more.
func move(bar *mpb.Bar, share float64) { bar.SetCurrent(min(int64(shares*share), shares-1)) }

// trial describes a running trial.
func (b *bars) trial(id int64) string {
	b.mu.Lock()
	defer b.mu.Unlock()
	i, known := b.at[id]
	if !known || b.live[id] == nil {
		return "ended" // the bar is removed at once
	}
	t := b.trials[i].Trial
	text := fmt.Sprintf("%v epoch %d/%d", t.Key, min(t.Epoch+1, t.Epochs), t.Epochs)
	if t.Epoch > 0 {
		text += fmt.Sprintf(" loss %.3f%s", t.Last.TrainLoss, score(t.Last, b.study.Split))
	}
	return text
}

func (b *bars) Note(line string) { fmt.Fprintln(b.container, search.PrintableLine(line)) }

func (b *bars) Close() {
	b.whole.Abort(true)
	b.container.Wait()
}
