//go:build gpu

package emulator_test

import (
	"math"
	"testing"
	"unsafe"

	"gorgonia.org/cu"

	"igcsearch/trainer/gpu/emulator/internal/call"
)

const (
	notReady       = 600
	illegalAddress = 700
	launchFailed   = 719
	unwritten      = math.MaxUint32 // what new and poisoned memory reads as
)

func (f *fixture) newStream(flags cu.StreamFlags) cu.Stream {
	f.Helper()
	s, err := cu.MakeStream(flags)
	f.ok(err)
	return s
}

func (f *fixture) newEvent() cu.Event {
	f.Helper()
	e, err := cu.MakeEvent(cu.DefaultEvent)
	f.ok(err)
	return e
}

// pinned is a word of pinned memory.
func (f *fixture) pinned() *uint32 {
	f.Helper()
	p, err := call.Pinned(4)
	f.ok(err)
	return (*uint32)(p)
}

// set puts a value into a word of the device, in the order of the stream.
func (f *fixture) set(p cu.DevicePtr, value uint32, s cu.Stream) {
	f.Helper()
	f.ok(cu.MemsetD32Async(p, uint(value), 1, s))
}

// now reads a word of the device and waits for nothing else.
func (f *fixture) now(p cu.DevicePtr) uint32 {
	f.Helper()
	var value uint32
	s := f.newStream(cu.NonBlocking)
	f.ok(call.ToHost(unsafe.Pointer(&value), p, 4, s))
	f.ok(s.Synchronize())
	return value
}

func (f *fixture) want(what string, got, want uint32) {
	f.Helper()
	if got != want {
		f.Errorf("%s: %d, want %d", what, got, want)
	}
}

func TestWorkRunsWhenItIsWaitedFor(t *testing.T) {
	waits := map[string]func(f *fixture, e cu.Event) error{
		"stream":  func(f *fixture, _ cu.Event) error { return f.stream.Synchronize() },
		"event":   func(_ *fixture, e cu.Event) error { return e.Synchronize() },
		"context": func(*fixture, cu.Event) error { return cu.Synchronize() },
		"free":    func(f *fixture, _ cu.Event) error { return cu.MemFree(f.memory(4)) },
		"query": func(f *fixture, _ cu.Event) error {
			f.code(notReady, f.stream.Query())
			return f.stream.Query()
		},
		"query of the event": func(f *fixture, e cu.Event) error {
			f.code(notReady, e.Query())
			return e.Query()
		},
	}
	for name, wait := range waits {
		t.Run(name, func(t *testing.T) {
			f := open(t)
			p, e := f.memory(4), f.newEvent()
			f.set(p, 1, f.stream)
			f.ok(e.Record(f.stream))
			f.want("before the wait", f.now(p), unwritten)
			f.ok(wait(f, e))
			f.want("after the wait", f.now(p), 1)
		})
	}
	t.Run("no more than the event needs", func(t *testing.T) {
		f := open(t)
		p, e := f.memory(4), f.newEvent()
		f.set(p, 1, f.stream)
		f.ok(e.Record(f.stream))
		f.set(p, 2, f.stream)
		f.ok(e.Synchronize())
		f.want("after the event", f.now(p), 1)
		f.ok(f.stream.Synchronize())
		f.want("after the stream", f.now(p), 2)
	})
	t.Run("early", func(t *testing.T) {
		t.Setenv("IGC_EMULATED_STREAMS", "early")
		f := open(t)
		p := f.memory(4)
		f.set(p, 1, f.stream)
		f.want("without a wait", f.now(p), 1)
	})
}

func TestStreamsWaitForEvents(t *testing.T) {
	for _, mode := range []string{"late", "random", "early"} {
		t.Run(mode, func(t *testing.T) {
			t.Setenv("IGC_EMULATED_STREAMS", mode)
			f := open(t)
			p, e, second := f.memory(4), f.newEvent(), f.newStream(cu.NonBlocking)
			f.ok(second.Wait(e, 0)) // it was never recorded
			for i := range uint32(50) {
				f.set(p, i, f.stream)
				f.ok(e.Record(f.stream))
				f.ok(second.Wait(e, 0))
				f.ok(e.Record(second)) // the wait is for the record before
				f.set(p, i+100, second)
				f.ok(second.Synchronize())
				f.want("after the second stream", f.now(p), i+100)
			}
		})
	}
}

// Of two streams without an event any may be first, and with the mode random it is.
func TestStreamsWithoutAnEventRunInAnyOrder(t *testing.T) {
	t.Setenv("IGC_EMULATED_STREAMS", "random")
	f := open(t)
	p, second := f.memory(4), f.newStream(cu.NonBlocking)
	last := map[uint32]bool{}
	for range 64 {
		f.set(p, 1, f.stream)
		f.set(p, 2, second)
		f.ok(cu.Synchronize())
		last[f.now(p)] = true
	}
	if len(last) != 2 {
		t.Errorf("64 times the same stream is last: %v", last)
	}
}

func TestDefaultStreamWaitsForBlockingStreamsOnly(t *testing.T) {
	f := open(t)
	var legacy cu.Stream
	blocking, other := f.newStream(cu.DefaultStream), f.newStream(cu.NonBlocking)
	p, q := f.memory(4), f.memory(4)
	f.set(p, 1, blocking)
	f.set(q, 1, other)
	f.ok(legacy.Synchronize())
	f.want("blocking", f.now(p), 1)
	f.want("not blocking", f.now(q), unwritten)

	f.set(p, 2, legacy)
	f.set(q, 2, blocking)
	f.ok(blocking.Synchronize())
	f.want("what the default stream did before", f.now(p), 2)

	f.set(p, 3, blocking)
	f.ok(blocking.Destroy()) // its work goes on, and is waited for as before
	f.want("before the wait", f.now(p), 2)
	f.want("a copy without a stream", download[uint32](f, p, 1)[0], 3)
}

// A copy without a stream waits neither for a stream that is not blocking nor has it wait, in either direction.
func TestCopiesWithoutAStream(t *testing.T) {
	f := open(t)
	p, q := f.memory(4), f.memory(4)
	f.set(p, 1, f.stream)
	var got uint32
	f.ok(cu.MemcpyDtoH(unsafe.Pointer(&got), p, 4))
	f.want("to the host", got, unwritten)

	value := uint32(2)
	f.ok(cu.MemcpyHtoD(p, unsafe.Pointer(&value), 4))
	value = 3 // it was read already
	f.ok(f.stream.Synchronize())
	f.want("from memory that is not pinned", f.now(p), 1)
	f.ok(cu.MemcpyDtoD(q, p, 4))
	f.want("within the device", f.now(q), unwritten)
	f.ok(cu.Synchronize())
	f.want("after a wait", f.now(q), 2)

	pinned := f.pinned()
	*pinned = 4
	f.ok(cu.MemcpyHtoD(p, unsafe.Pointer(pinned), 4))
	f.want("from pinned memory", f.now(p), 4)
}

func TestHostMemoryOfACopy(t *testing.T) {
	t.Run("changed", func(t *testing.T) {
		for _, pinned := range []bool{true, false} {
			f := open(t)
			p, from := f.memory(4), new(uint32)
			if pinned {
				from = f.pinned()
			}
			*from = 1
			f.ok(cu.MemcpyHtoDAsync(p, unsafe.Pointer(from), 4, f.stream))
			f.ok(f.stream.Synchronize())
			*from = 2
			f.ok(cu.MemcpyHtoDAsync(p, unsafe.Pointer(from), 4, f.stream))
			*from = 3
			f.code(illegalAddress, f.stream.Synchronize())
		}
	})
	t.Run("freed", func(t *testing.T) {
		f := open(t)
		p, from := f.memory(4), f.pinned()
		f.ok(cu.MemcpyHtoDAsync(p, unsafe.Pointer(from), 4, f.stream))
		f.code(illegalAddress, cu.MemFreeHost(unsafe.Pointer(from)))
	})
	t.Run("freed while a kernel has it", func(t *testing.T) {
		f := open(t)
		to := f.pinned()
		f.ok(f.start("add", 1, 1, 0, unsafe.Pointer(&vector{cu.DevicePtr(uintptr(unsafe.Pointer(to))), 1, 1})))
		f.code(illegalAddress, cu.MemFreeHost(unsafe.Pointer(to)))
	})
	t.Run("freed afterwards", func(t *testing.T) {
		f := open(t)
		p, from := f.memory(4), f.pinned()
		f.ok(cu.MemcpyHtoDAsync(p, unsafe.Pointer(from), 4, f.stream))
		f.ok(f.stream.Synchronize())
		f.ok(cu.MemFreeHost(unsafe.Pointer(from)))
	})
	t.Run("read before it was written", func(t *testing.T) {
		f := open(t)
		p, to := f.memory(4), f.pinned()
		f.set(p, 1, f.stream)
		*to = 5
		f.ok(call.ToHost(unsafe.Pointer(to), p, 4, f.stream))
		f.want("before the wait", *to, unwritten)
		f.ok(f.stream.Synchronize())
		f.want("after the wait", *to, 1)
	})
	t.Run("written by a copy and read by the next", func(t *testing.T) {
		f := open(t)
		p, q, between := f.memory(4), f.memory(4), f.pinned()
		f.set(p, 1, f.stream)
		f.ok(call.ToHost(unsafe.Pointer(between), p, 4, f.stream))
		f.ok(cu.MemcpyHtoDAsync(q, unsafe.Pointer(between), 4, f.stream))
		f.ok(f.stream.Synchronize())
		f.want("copied twice", f.now(q), 1)
	})
}

// An error of a kernel is the answer of the call that waits for it, and of all later ones.
func TestErrorOfAKernelIsSeenWhenWaiting(t *testing.T) {
	for _, mode := range []string{"late", "early"} {
		t.Setenv("IGC_EMULATED_STREAMS", mode)
		f := open(t)
		p, e := f.memory(1024), f.newEvent()
		f.ok(f.start("other_barrier", 1, 64, 128, unsafe.Pointer(&p)))
		if mode == "late" {
			f.ok(e.Record(f.stream))
			f.code(launchFailed, e.Synchronize())
		}
		f.code(launchFailed, f.stream.Synchronize())
		_, err := cu.MemAlloc(4)
		f.code(launchFailed, err)
	}
}

// The branches of a graph run in any order that their events allow: two that set the same word give two results, and one
// that comes after both always wins.
func TestBranchesOfAGraph(t *testing.T) {
	f := open(t)
	second := f.newStream(cu.NonBlocking)
	fork, join := f.newEvent(), f.newEvent()
	p, q, r := f.memory(4), f.memory(4), f.memory(4)
	f.ok(call.Begin(f.stream, true))
	f.set(p, 0, f.stream)
	f.ok(fork.Record(f.stream))
	f.ok(second.Wait(fork, 0))
	f.set(q, 1, f.stream)
	f.set(r, 1, f.stream)
	f.set(q, 2, second)
	f.set(r, 2, second)
	f.ok(join.Record(second))
	f.ok(f.stream.Wait(join, 0))
	f.set(r, 3, f.stream)
	f.ok(cu.MemcpyDtoDAsync(p, q, 4, f.stream))
	g, err := call.End(f.stream)
	f.ok(err)
	last := map[uint32]bool{}
	for range 64 {
		f.ok(g.Launch(f.stream))
		f.ok(f.stream.Synchronize())
		last[f.now(p)] = true
		f.want("after both branches", f.now(r), 3)
	}
	if len(last) != 2 || !last[1] || !last[2] {
		t.Errorf("64 times the results %v, want 1 and 2", last)
	}

	// Into a capture a graph goes as a whole, between what comes before and after.
	f.ok(call.Begin(f.stream, true))
	f.set(r, 4, f.stream)
	f.ok(g.Launch(f.stream))
	f.ok(cu.MemcpyDtoDAsync(q, r, 4, f.stream))
	outer, err := call.End(f.stream)
	f.ok(err)
	f.ok(outer.Launch(f.stream))
	f.ok(outer.Destroy()) // it runs all the same
	f.ok(f.stream.Synchronize())
	f.want("graph in a graph", f.now(q), 3)
}

// Two launches of a graph follow each other, even in streams that are not ordered.
func TestAGraphNeverRunsBesideItself(t *testing.T) {
	t.Setenv("IGC_EMULATED_STREAMS", "random")
	f := open(t)
	p, second := f.memory(4), f.newStream(cu.NonBlocking)
	f.ok(call.Begin(f.stream, true))
	for range 8 {
		f.ok(f.start("add", 1, 1, 0, unsafe.Pointer(&vector{p, 1, 1})))
	}
	f.set(p, 0, f.stream)
	g, err := call.End(f.stream)
	f.ok(err)
	f.set(p, 0, f.stream)
	f.ok(f.stream.Synchronize())
	for range 20 {
		f.ok(g.Launch(f.stream))
		f.ok(g.Launch(second))
		f.ok(second.Synchronize())
		f.want("after the second launch", f.now(p), 0)
		f.ok(f.stream.Synchronize())
	}
}

// A branch that nothing brings back fails the capture, also where another event of its stream was waited for.
func TestABranchHasToComeBackAsAWhole(t *testing.T) {
	const unjoined = 904
	f := open(t)
	second := f.newStream(cu.NonBlocking)
	fork, join := f.newEvent(), f.newEvent()
	p := f.memory(4)
	f.ok(call.Begin(f.stream, true))
	f.ok(fork.Record(f.stream))
	f.ok(second.Wait(fork, 0))
	f.set(p, 1, second)
	f.ok(join.Record(second))
	f.ok(f.stream.Wait(join, 0))
	f.set(p, 2, second)
	_, err := call.End(f.stream)
	f.code(unjoined, err)
}

// The queues are finite, as on hardware: the oldest work runs without a wait.
func TestTheOldestWorkOfTooMuchRuns(t *testing.T) {
	f := open(t)
	p, q := f.memory(4), f.memory(4)
	f.set(p, 1, f.stream)
	for range 1 << 16 {
		f.set(q, 1, f.stream)
	}
	f.want("the oldest", f.now(p), 1)
	f.want("the youngest", f.now(q), 1)
}
