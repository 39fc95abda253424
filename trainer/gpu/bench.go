//go:build gpu

package gpu

import (
	"context"
	"errors"
	"slices"
	"syscall"
	"time"

	"gorgonia.org/cu"

	"igcsearch/space"
	"igcsearch/trainer"
	"igcsearch/trainer/dataset"
	"igcsearch/trainer/graph"
)

// Workers implements trainer.Device: it measures how many trainings of a network at
// once give the most pictures a second. It adds half as many again until they gain
// less than a thirtieth, or do not fit into the memory.
func (d *Device) Workers(ctx context.Context, net space.Network, n int, set *dataset.Set) (int, error) {
	models, _, err := d.crowd(ctx, net, n, set, trainer.Recipe{Momentum: 0.9}, nil)
	drop(models, 0)
	return len(models), err
}

// mostWorkers is the largest result of Workers: more streams would share the queues
// of the hardware.
const mostWorkers = 32

// crowd returns as many models as Workers says and their pictures a second. It
// begins with the given models, one or none. After an error it closes all models.
func (d *Device) crowd(ctx context.Context, net space.Network, n int, set *dataset.Set, r trainer.Recipe,
	models []*Model) (_ []*Model, rate float64, err error) {
	defer func() {
		if err != nil {
			models = drop(models, 0)
		}
	}()
	more := 1 - len(models)
	for len(models)+more <= mostWorkers {
		if err := ctx.Err(); err != nil {
			return models, 0, err
		}
		before := len(models)
		for range more {
			m, err := d.New(net, n, set, r)
			if err != nil {
				if errors.Is(err, ErrMemory) && rate > 0 {
					return drop(models, before), rate, nil
				}
				return models, 0, err
			}
			models = append(models, m)
		}
		now, _, err := d.together(models, 20*time.Millisecond)
		if err != nil {
			return models, 0, err
		}
		if now < rate*31/30 {
			return drop(models, before), rate, nil
		}
		rate, more = now, (len(models)+1)/2
	}
	return models, rate, nil
}

// drop closes the models beyond the first n.
func drop(models []*Model, n int) []*Model {
	for _, m := range models[n:] {
		m.Close()
	}
	return models[:n]
}

// together trains all models at once for about the given time. It returns their
// pictures a second, and how many cores the process used for them.
func (d *Device) together(models []*Model, during time.Duration) (rate, host float64, err error) {
	err = d.do(func() error {
		steps := 1
		for {
			for _, m := range models {
				if err := m.rewind(steps); err != nil {
					return err
				}
			}
			begin, busy := time.Now(), cpuTime()
			for range steps {
				for _, m := range models {
					if err := m.train.graph.launch(m.stream); err != nil {
						return err
					}
				}
			}
			for _, m := range models {
				if err := m.wait(); err != nil {
					return err
				}
			}
			wall := time.Since(begin)
			if most := models[0].rates.bytes / rateBytes; wall < during && steps < most {
				steps = min(4*steps, most)
				continue
			}
			rate = float64(steps*len(models)*models[0].n) / wall.Seconds()
			host = (cpuTime() - busy).Seconds() / wall.Seconds()
			return nil
		}
	})
	return rate, host, err
}

// rewind prepares the model for some steps on the first pictures of its set. Nothing is
// in its stream afterwards.
func (m *Model) rewind(steps int) error {
	order := make([]int, steps*m.n)
	for i := range order {
		order[i] = i
	}
	_, stop, err := m.begin(context.Background(), &m.set.Train, order, nil, 0)
	if err != nil {
		return err
	}
	stop() // a folder's steps repeat the same pictures: decoding is not measured
	return errors.Join(send(m, m.rates.addr, make([]graph.Rates, steps)), m.wait())
}

// cpuTime is the processor time that the process has used.
func cpuTime() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// Bench measures the training step of a network with a search.Study.Precision, alone
// and beside others, on a set of at least some steps' pictures. It calls alone, if that
// is not nil, with the first part. With an error it returns what it had measured.
func (d *Device) Bench(ctx context.Context, net space.Network, n, steps int, precision string,
	set *dataset.Set, alone func(Bench)) (b Bench, err error) {
	recipe := trainer.Recipe{Momentum: 0.9, WeightDecay: 1e-4, Precision: precision}
	m, err := d.New(net, n, set, recipe)
	if err != nil {
		return b, err
	}
	models := []*Model{m}
	defer func() { drop(models, 0) }()
	b.Memory, b.Launches, b.Bytes = m.Bytes(), len(m.train.launches), m.train.traffic()
	if b.Step, err = m.alone(ctx, steps); err != nil {
		return b, err
	}
	if b.Starts, err = m.starts(b.Step); err != nil {
		return b, err
	}
	b.Queue, b.Launch = queue(b.Starts, b.Step)
	if alone != nil {
		alone(b)
	}
	if models, _, err = d.crowd(ctx, net, n, set, recipe, models); err != nil {
		models = nil
		return b, err
	}
	if b.AllPerSecond, b.Host, err = d.together(models, 300*time.Millisecond); err != nil {
		return b, err
	}
	b.Trials = len(models)
	b.Host /= float64(b.Trials)
	models = drop(models, 0) // limits needs their memory
	b.PeakFlops, b.Bandwidth, err = d.limits()
	return b, err
}

// warmUp is how long a GPU trains before alone measures it: the clock of an idle one is a
// fraction of what it is at work, and takes a while to rise.
var warmUp = 200 * time.Millisecond

// alone is the median time of a step. Each time is of several steps, as in a training,
// which does not wait for each.
func (m *Model) alone(ctx context.Context, steps int) (time.Duration, error) {
	var times []time.Duration
	begun := time.Now()
	for cold := true; len(times) < steps; {
		if err := ctx.Err(); err != nil {
			return 0, err
		}
		t, err := m.burst(min(8, m.rates.bytes/rateBytes))
		if err != nil {
			return 0, err
		}
		if !cold {
			times = append(times, t)
		}
		cold = cold && time.Since(begun) < warmUp // the first one uses cold caches, too
	}
	slices.Sort(times)
	return (times[steps/2] + times[(steps-1)/2]) / 2, nil
}

// burst is the time of each of n steps that are started one behind the other.
func (m *Model) burst(n int) (t time.Duration, err error) {
	err = m.d.do(func() error {
		if err := m.rewind(n); err != nil {
			return err
		}
		begin := time.Now()
		for range n {
			if err := m.train.graph.launch(m.stream); err != nil {
				return err
			}
		}
		err := m.wait()
		t = time.Since(begin) / time.Duration(n)
		return err
	})
	return t, err
}

// mostStarts is for how many steps starts does not wait. Of a network with slow steps it
// starts fewer, so that it ends soon.
const mostStarts = 128

// starts is what the host needs to start each of some steps if it waits for none; a step
// takes about the given time.
func (m *Model) starts(step time.Duration) ([]time.Duration, error) {
	n := min(mostStarts, m.rates.bytes/rateBytes, max(1, int(500*time.Millisecond/max(step, 1))))
	times := make([]time.Duration, n)
	err := m.d.do(func() error {
		if err := m.rewind(n); err != nil {
			return err
		}
		for i := range times {
			begin := time.Now()
			if err := m.train.graph.launch(m.stream); err != nil {
				return err
			}
			times[i] = time.Since(begin)
		}
		return m.wait()
	})
	return times, err
}

// queue is how many steps were started before one waited, and the median time of these.
// One that waits takes a good part of a step, and several times as long as those before.
func queue(starts []time.Duration, step time.Duration) (n int, each time.Duration) {
	for n = 1; n < len(starts); n++ {
		if t := starts[n]; t > step/4 && t > 4*middle(starts[:n]) {
			break
		}
	}
	return n, middle(starts[:n])
}

func middle(times []time.Duration) time.Duration {
	return slices.Sorted(slices.Values(times))[len(times)/2]
}

// limits measures multiply–adds that touch no memory, in operations a second, and
// a copy, in bytes a second read and written.
func (d *Device) limits() (flops, bandwidth float64, err error) {
	err = d.do(func() error {
		stream, err := cu.MakeStream(cu.NonBlocking)
		if err != nil {
			return err
		}
		defer func() { _ = stream.Destroy() }()
		// Several times the size of a second-level cache, if the memory is large enough.
		floats := min(1<<28, d.info.Memory/32)
		memory, err := alloc("the measurement of the bandwidth", 8*floats)
		if err != nil {
			return err
		}
		defer func() { _ = cu.MemFree(memory) }()
		to, from := &buffer{name: "to", addr: uint64(memory)},
			&buffer{name: "from", addr: uint64(memory) + uint64(4*floats)}
		// Events are in the stream, so their times leave out how long the host takes.
		var begin, end cu.Event
		for _, e := range []*cu.Event{&begin, &end} {
			if *e, err = cu.MakeEvent(cu.BlockingSyncEvent); err != nil {
				return err
			}
			defer func() { _ = cu.DestroyEvent(e) }()
		}
		run := func(kernel string, args *sumArgs) (time.Duration, error) {
			f, err := d.function(kernel)
			if err != nil {
				return 0, err
			}
			best := time.Duration(1 << 62)
			for range 4 {
				if err := begin.Record(stream); err != nil {
					return 0, err
				}
				if err := launchRaw(f, [3]int{16 * d.info.Multiprocessors, 1, 1}, [3]int{256, 1, 1}, 0, stream,
					encode(args)); err != nil {
					return 0, err
				}
				if err := errors.Join(end.Record(stream), end.Synchronize()); err != nil {
					return 0, err
				}
				ms, err := begin.Elapsed(end)
				if err != nil {
					return 0, err
				}
				best = min(best, time.Duration(ms*float64(time.Millisecond)))
			}
			return best, nil
		}
		count := int64(1)
		var t time.Duration
		for t < 5*time.Millisecond { // much longer than the start of a kernel
			count *= 4
			if t, err = run("peak", &sumArgs{len: count, to: to, a: from, b: from}); err != nil {
				return err
			}
		}
		flops = float64(2*16*256*16*d.info.Multiprocessors) * float64(count) / t.Seconds()
		if t, err = run("copy", &sumArgs{len: int64(floats), to: to, a: from, b: from}); err != nil {
			return err
		}
		bandwidth = float64(8*floats) / t.Seconds()
		return nil
	})
	return flops, bandwidth, err
}
