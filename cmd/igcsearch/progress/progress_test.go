package progress

import (
	"bytes"
	"os"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"igcsearch/search"
	"igcsearch/space"
)

// clock is a time that a test sets.
type clock struct{ t time.Time }

func (c *clock) now() time.Time       { return c.t }
func (c *clock) pass(d time.Duration) { c.t = c.t.Add(d) }

// tallyAt is a run that measures time by a clock.
func tallyAt(c *clock) *tally {
	return newTally(search.Study{Name: "study", Pictures: search.Pictures{Split: search.SplitTest}}, c.now)
}

// twoTrials differ in length by a factor of three.
func twoTrials() []search.Trial {
	long := search.Key{System: space.PairSystem(space.Pair{L: 40, M: 2})}
	short := search.Key{System: space.PairSystem(space.Pair{L: 1, M: 23}), Seed: 1}
	return []search.Trial{
		{ID: 1, Key: long, Epochs: 2, MultiplyAdds: 300, Status: search.Pending},
		{ID: 2, Key: short, Epochs: 2, MultiplyAdds: 100, Status: search.Pending},
	}
}

// after is a trial after an epoch that took so many seconds.
func after(t search.Trial, epoch int, seconds float64) search.Trial {
	t.Epoch, t.Status = epoch, search.Running
	t.Last = search.Epoch{
		Number: epoch, TrainLoss: 3 / float64(epoch), TrainSeconds: 0.75 * seconds, EvalSeconds: 0.25 * seconds,
		ValidationCorrect: 1, ValidationTotal: 4, TestCorrect: epoch, TestTotal: 8,
	}
	return t
}

// step is an event of a step.
func step(t search.Trial, n, of int) search.Event {
	return search.Event{Kind: search.Stepped, Trial: t, Step: n, Steps: of}
}

// expect checks the line of a whole run.
func expect(t *testing.T, w *tally, want string) {
	t.Helper()
	if got := w.line(); got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

// TestTimeLeft checks when the time left is known, and what it goes by.
func TestTimeLeft(t *testing.T) {
	t.Parallel()
	t.Run("the time left is not known before something was measured", func(t *testing.T) {
		c := &clock{}
		w := tallyAt(c)
		trials := twoTrials()
		expect(t, w, "study")
		w.event(search.Event{Kind: search.Planned, Trials: trials})
		c.pass(time.Minute) // pictures are read, networks are built
		w.event(search.Event{Kind: search.Began, Trial: trials[0]})
		expect(t, w, "study: 0 of 2 trials, 0 %, time left not known yet")
		c.pass(10 * time.Second)
		w.event(step(trials[0], 1, 1000))
		expect(t, w, "study: 0 of 2 trials, 0 %, time left not known yet")
		// After the first step 249 take 10 s, of 2000; the other trial is a third.
		c.pass(10*time.Second - 1)
		w.event(step(trials[0], 249, 1000))
		expect(t, w, "study: 0 of 2 trials, 9 %, time left not known yet")
		c.pass(1)
		w.event(step(trials[0], 250, 1000))
		expect(t, w, "study: 0 of 2 trials, 9 %, 1m37s left")
	})

	t.Run("an epoch tells, and counts by multiply-adds", func(t *testing.T) {
		c := &clock{}
		w := tallyAt(c)
		trials := twoTrials()
		w.event(search.Event{Kind: search.Planned, Trials: trials})
		w.event(search.Event{Kind: search.Began, Trial: trials[0]})
		w.event(step(trials[0], 2, 4))
		expect(t, w, "study: 0 of 2 trials, 18 %, time left not known yet")
		trials[0] = after(trials[0], 1, 30)
		w.event(search.Event{Kind: search.EpochStored, Trial: trials[0]})
		// 300 of 800 in 30 s, by one worker.
		expect(t, w, "study: 0 of 2 trials, 37 %, 50s left")
		w.event(search.Event{Kind: search.Began, Trial: trials[1]})
		// By two, but the first trial alone takes 30 s.
		expect(t, w, "study: 0 of 2 trials, 37 %, 30s left")
		w.event(step(trials[1], 4, 4))
		w.event(step(trials[0], 2, 4))
		trials[0].Status = search.Diverged
		w.event(search.Event{Kind: search.Ended, Trial: trials[0]})
		// Of what diverged nothing is left.
		expect(t, w, "study: 1 of 2 trials, 87 %, 10s left")
	})
}

// TestTimeLeftKnown checks the time left of a study that others have begun.
func TestTimeLeftKnown(t *testing.T) {
	t.Parallel()
	t.Run("what an earlier run recorded tells at once", func(t *testing.T) {
		c := &clock{}
		w := tallyAt(c)
		trials := twoTrials()
		trials[0] = after(trials[0], 2, 30)
		trials[0].Status = search.Done
		trials[1].Epoch = 1 // of an older program, without seconds
		w.event(search.Event{Kind: search.Planned, Trials: trials})
		w.event(search.Event{Kind: search.Began, Trial: trials[1]})
		expect(t, w, "study: 1 of 2 trials, 87 %, 10s left")
	})

	t.Run("what other processes do is not left to do", func(t *testing.T) {
		c := &clock{}
		w := tallyAt(c)
		trials := twoTrials()
		w.event(search.Event{Kind: search.Planned, Trials: trials})
		w.event(search.Event{Kind: search.Began, Trial: trials[0]})
		w.event(search.Event{Kind: search.Elsewhere, Trial: after(trials[1], 1, 10)})
		// 60 s for the first, beside 10 s.
		expect(t, w, "study: 0 of 2 trials, 12 %, 1m00s left")
	})

	t.Run("a strategy may want less", func(t *testing.T) {
		race := search.Study{Name: "study", Selection: search.Selection{Strategy: search.StrategyRace}}
		w := newTally(race, (&clock{}).now)
		trials := twoTrials()
		trials[0] = after(trials[0], 1, 30)
		w.event(search.Event{Kind: search.Planned, Trials: trials})
		expect(t, w, "study: 0 of 2 trials, 37 %, at most 50s left")
	})
}

// TestLines checks the lines of a run that has no terminal.
func TestLines(t *testing.T) {
	t.Parallel()
	t.Run("a trial that was put back has its epoch in flight to do again", func(t *testing.T) {
		c := &clock{}
		var out bytes.Buffer
		l := &lines{tally: tallyAt(c), out: &out}
		trials := twoTrials()
		l.Event(search.Event{Kind: search.Planned, Trials: trials})
		l.Event(search.Event{Kind: search.Began, Trial: trials[1]})
		l.Event(search.Event{Kind: search.Began, Trial: trials[0]})
		c.pass(3 * time.Second)
		trials[0] = after(trials[0], 1, 3)
		l.Event(search.Event{Kind: search.EpochStored, Trial: trials[0]})
		l.Event(step(trials[0], 2, 4))
		trials[0].Status, trials[0].Error, trials[0].Failure = search.Pending, "not enough memory", search.FailedMemory
		l.Event(search.Event{Kind: search.Ended, Trial: trials[0]})
		want := `study: 0 of 2 trials; L40M2 seed 0 epoch 1/2: loss 3.0000, test 12.50 %, 3.0 s; 3s left
study: L40M2 seed 0 put back after 3s: not enough memory: the trial is trained again beside fewer
`
		if out.String() != want {
			t.Errorf("got %q, want %q", out.String(), want)
		}
		// 3 s and 2 s, one after the other.
		expect(t, l.tally, "study: 0 of 2 trials, 37 %, 5s left")
	})

	t.Run("a line comes for each epoch and for each trial that ends", func(t *testing.T) {
		c := &clock{}
		var out bytes.Buffer
		l := &lines{tally: tallyAt(c), out: &out}
		l.study.Split = search.SplitValidation
		trials := twoTrials()
		l.Event(search.Event{Kind: search.Planned, Trials: trials})
		l.Event(search.Event{Kind: search.Began, Trial: trials[0]})
		for i := range 12 {
			c.pass(time.Second)
			l.Event(step(trials[0], i+1, 12))
		}
		l.Event(search.Event{Kind: search.EpochStored, Trial: after(trials[0], 1, 12)})
		second := after(trials[0], 2, 14)
		second.Last.ValidationTotal = 0 // not evaluated
		l.Event(search.Event{Kind: search.EpochStored, Trial: second})
		trials[0] = after(trials[0], 2, 14)
		trials[0].Status = search.Done
		l.Event(search.Event{Kind: search.Ended, Trial: trials[0]})
		l.Event(search.Event{Kind: search.Began, Trial: trials[1]})
		trials[1].Status, trials[1].Error = search.Failed, "no memory"
		l.Event(search.Event{Kind: search.Ended, Trial: trials[1]})
		want := `study: 0 of 2 trials; L40M2 seed 0 epoch 1/2: loss 3.0000, validation 25.00 %, 12.0 s; 20s left
study: 0 of 2 trials; L40M2 seed 0 epoch 2/2: loss 1.5000, 14.0 s; 9s left
study: L40M2 seed 0 done after 12s: loss 1.5000, validation 25.00 %, test 25.00 %
study: L1M23 seed 1 failed after 0s: no memory
`
		if out.String() != want {
			t.Errorf("got\n%swant\n%s", out.String(), want)
		}
		expect(t, l.tally, "study: 2 of 2 trials, 75 %, 0s left")
	})
}

// TestIsTerminal: programs give their children pseudo-terminals whose size
// nobody set, on which bars would be invisible.
func TestIsTerminal(t *testing.T) {
	t.Parallel()
	pty, err := os.OpenFile("/dev/ptmx", os.O_RDWR|syscall.O_NOCTTY, 0)
	if err != nil {
		t.Skipf("no pseudo-terminals: %v", err)
	}
	defer pty.Close()
	if IsTerminal(pty) {
		t.Error("a terminal of width 0 counts as one")
	}
	size := [4]uint16{24, 80} // rows, columns, and pixels
	_, _, errno := syscall.Syscall(syscall.SYS_IOCTL, pty.Fd(), syscall.TIOCSWINSZ, uintptr(unsafe.Pointer(&size)))
	if errno != 0 {
		t.Fatal(errno)
	}
	if !IsTerminal(pty) {
		t.Error("a terminal of width 80 does not count as one")
	}
	if IsTerminal(&bytes.Buffer{}) {
		t.Error("a buffer counts as a terminal")
	}
}

func TestSpan(t *testing.T) {
	t.Parallel()
	for seconds, want := range map[float64]string{
		-1: "0s", 0: "0s", 0.4: "0s", 0.6: "1s", 59: "59s", 59.6: "1m00s", 60: "1m00s", 3599: "59m59s", 3600: "1h00m",
		86399: "23h59m", 86400: "1d0h", 1e6: "11d13h", 1e12: "years",
	} {
		if got := Span(seconds); got != want {
			t.Errorf("Span(%g) = %q, want %q", seconds, got, want)
		}
	}
}
