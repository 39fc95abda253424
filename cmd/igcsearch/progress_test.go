package main

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"strings"
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
func newWork(c *clock, n string) *work {
	return &work{study: n, now: c.now, live: map[int64]*liveTrial{}}
}

// twoTrials differ in length by a factor of three.
func twoTrials() []search.Trial {
	return []search.Trial{
		{ID: 1, System: space.PairSystem(space.Pair{L: 40, M: 2}), Epochs: 2, MultiplyAdds: 300, Status: search.Pending},
		{ID: 2, System: space.PairSystem(space.Pair{L: 1, M: 23}), Seed: 1, Epochs: 2, MultiplyAdds: 100, Status: search.Pending},
	}
}

func TestProgress(t *testing.T) {
	t.Parallel()
	step := func(tr search.Trial, n, of int) search.Event {
		return search.Event{Kind: search.Stepped, Trial: tr, Step: n, Steps: of}
	}

	t.Run("the time left is weighted by multiply-adds", func(t *testing.T) {
		c := &clock{}
		w := newWork(c, "study")
		trials := twoTrials()
		if got := w.line(); got != "study" {
			t.Errorf("before the plan: %q", got)
		}
		w.event(search.Event{Kind: search.Planned, Trials: trials})
		w.event(search.Event{Kind: search.Began, Trial: trials[0]})
		if got := w.line(); got != "study: 0 of 2 trials, 0 %, time left unknown yet" {
			t.Errorf("before the first step: %q", got)
		}
		c.pass(10 * time.Second)
		w.event(step(trials[0], 2, 4))
		// 150 of 800 in 10 s: the other 650 take 43.3 s.
		if got := w.line(); got != "study: 0 of 2 trials, 18 %, 43s left" {
			t.Errorf("half an epoch: %q", got)
		}
		c.pass(10 * time.Second)
		trials[0].Epoch = 1
		w.event(search.Event{Kind: search.EpochStored, Trial: trials[0]})
		// 300 of 800 in 20 s.
		if got := w.line(); got != "study: 0 of 2 trials, 37 %, 33s left" {
			t.Errorf("one epoch: %q", got)
		}
		if got := w.where(); got != "L40M2 seed 0 epoch 2/2" {
			t.Errorf("where: %q", got)
		}
		c.pass(10 * time.Second)
		trials[0].Status = search.Diverged
		w.event(search.Event{Kind: search.Ended, Trial: trials[0]})
		// What it would have trained is no work any more: 300 of 500 in 30 s.
		if got := w.line(); got != "study: 1 of 2 trials, 60 %, 20s left" {
			t.Errorf("diverged: %q", got)
		}
	})

	t.Run("what an earlier run did does not count as speed", func(t *testing.T) {
		c := &clock{}
		w := newWork(c, "study")
		trials := twoTrials()
		trials[0].Status, trials[0].Epoch = search.Done, 2
		trials[1].Epoch = 1
		w.event(search.Event{Kind: search.Planned, Trials: trials})
		w.event(search.Event{Kind: search.Began, Trial: trials[1]})
		c.pass(30 * time.Second)
		w.event(step(trials[1], 1, 2))
		if got := w.line(); got != "study: 1 of 2 trials, 93 %, 30s left" {
			t.Errorf("got %q", got)
		}
	})

	t.Run("a trial that was put back has its epoch in flight to do again", func(t *testing.T) {
		c := &clock{}
		var out bytes.Buffer
		l := &lines{work: newWork(c, "study"), out: &out}
		trials := twoTrials()
		l.event(search.Event{Kind: search.Planned, Trials: trials})
		l.event(search.Event{Kind: search.Began, Trial: trials[0]})
		c.pass(3 * time.Second)
		trials[0].Epoch = 1
		l.event(search.Event{Kind: search.EpochStored, Trial: trials[0]})
		l.event(step(trials[0], 2, 4))
		trials[0].Error, trials[0].Failure = "not enough memory", search.FailedMemory
		l.event(search.Event{Kind: search.Ended, Trial: trials[0]})
		want := "study: L40M2 seed 0 put back after 3s: not enough memory: it is trained again beside fewer\n"
		if out.String() != want {
			t.Errorf("got %q, want %q", out.String(), want)
		}
		// 300 of 800, with the first epoch alone.
		if got := l.line(); got != "study: 0 of 2 trials, 37 %, 5s left" {
			t.Errorf("line: %q", got)
		}
	})

	t.Run("lines come every few seconds and for each trial that ends", func(t *testing.T) {
		c := &clock{}
		var out bytes.Buffer
		l := &lines{work: newWork(c, "study"), out: &out}
		trials := twoTrials()
		l.event(search.Event{Kind: search.Planned, Trials: trials})
		l.event(search.Event{Kind: search.Began, Trial: trials[0]})
		for i := range 12 {
			c.pass(time.Second)
			l.event(step(trials[0], i+1, 24))
		}
		trials[0].Status, trials[0].Epoch = search.Done, 2
		trials[0].Last = search.Epoch{Number: 2, TrainLoss: 1.5, ValidationCorrect: 1, ValidationTotal: 4, TestCorrect: 1, TestTotal: 8}
		l.event(search.Event{Kind: search.Ended, Trial: trials[0]})
		l.event(search.Event{Kind: search.Began, Trial: trials[1]})
		trials[1].Status, trials[1].Error = search.Failed, "no memory"
		l.event(search.Event{Kind: search.Ended, Trial: trials[1]})
		want := `study: 0 of 2 trials, 7 %, 59s left; L40M2 seed 0 epoch 1/2
study: 0 of 2 trials, 15 %, 54s left; L40M2 seed 0 epoch 1/2
study: L40M2 seed 0 done after 12s: loss 1.5000, validation 25.00 %, test 12.50 %
study: L1M23 seed 1 failed after 0s: no memory
`
		if out.String() != want {
			t.Errorf("got\n%swant\n%s", out.String(), want)
		}
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
	if isTerminal(pty) {
		t.Error("a terminal of width 0 counts as one")
	}
	size := [4]uint16{24, 80} // rows, columns, and pixels
	if _, _, errno := syscall.Syscall(syscall.SYS_IOCTL, pty.Fd(), syscall.TIOCSWINSZ, uintptr(unsafe.Pointer(&size))); errno != 0 {
		t.Fatal(errno)
	}
	if !isTerminal(pty) {
		t.Error("a terminal of width 80 does not count as one")
	}
	if isTerminal(&bytes.Buffer{}) {
		t.Error("a buffer counts as a terminal")
	}
}

func TestSpan(t *testing.T) {
	t.Parallel()
	for seconds, want := range map[float64]string{
		-1: "0s", 0: "0s", 0.4: "0s", 0.6: "1s", 59: "59s", 59.6: "1m00s", 60: "1m00s", 3599: "59m59s", 3600: "1h00m",
		86399: "23h59m", 86400: "1d0h", 1e6: "11d13h", 1e12: "years",
	} {
		if got := span(seconds); got != want {
			t.Errorf("span(%g) = %q, want %q", seconds, got, want)
		}
	}
}

func TestQuote(t *testing.T) {
	t.Parallel()
	words := []string{"plain", "", "two words", `it's`, `pairs=["40x2"]`, "a$b`c\\d", "*?~#!", "new\nline", "ü"}
	var script []string
	for _, w := range words {
		script = append(script, quote(w))
	}
	out, err := exec.Command("sh", "-c", `printf '%s\0' `+strings.Join(script, " ")).Output()
	if err != nil {
		t.Fatal(err)
	}
	if want := strings.Join(words, "\x00") + "\x00"; string(out) != want {
		t.Errorf("a shell reads %q, want %q", out, want)
	}
	if quote("plain") != "plain" {
		t.Error("a plain word needs no quotes")
	}
}

func TestFlagValues(t *testing.T) {
	t.Parallel()
	var f fraction
	var s size
	var p pairs
	var n positive
	for _, c := range []struct {
		flag interface {
			Set(string) error
			String() string
		}
		in, out string // out "": refused
	}{
		{&f, "2.4%", "2.4%"}, {&f, "0.024", "2.4%"}, {&f, "0", "0%"}, {&f, " 7 % ", "7%"},
		{&f, "1", ""}, {&f, "100%", ""}, {&f, "-1%", ""}, {&f, "nan", ""}, {&f, "%", ""}, {&f, "", ""},
		{&s, "3.25x2.2in", "3.25x2.2in"}, {&s, "3x2", "3x2in"}, {&s, "25.4x5.08cm", "10x2in"},
		{&s, "0x2", ""}, {&s, "3", ""}, {&s, "3x2mm", ""}, {&s, "nanx2", ""}, {&s, "41x2", ""},
		{&p, "40x2,64x1", "40x2,64x1"}, {&p, "L40M2, 64x1", "40x2,64x1"}, {&p, "", ""}, {&p, "40x2,", ""}, {&p, "x", ""}, {&p, "40x0", ""},
		{&n, "1", "1"}, {&n, "0", ""}, {&n, "-1", ""}, {&n, "x", ""}, {&n, "1000000001", ""},
	} {
		err := c.flag.Set(c.in)
		if c.out == "" {
			if err == nil {
				t.Errorf("%T: %q is taken as %v", c.flag, c.in, c.flag)
			}
			continue
		}
		if got := fmt.Sprint(c.flag); err != nil || got != c.out {
			t.Errorf("%T: %q gives %q, %v; want %q", c.flag, c.in, got, err, c.out)
		}
	}
}
