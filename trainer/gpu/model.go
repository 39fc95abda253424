//go:build gpu

package gpu

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"
	"unsafe"

	"gorgonia.org/cu"

	"igcsearch/search"
	"igcsearch/space"
	"igcsearch/trainer"
	"igcsearch/trainer/dataset"
	"igcsearch/trainer/graph"
	"igcsearch/trainer/kernel"
)

// Model is a network on a GPU: its parameters, the memory of a step, and the step
// itself, which is recorded once and started many times. It is not safe for
// concurrent use. Several models of a device may be used at the same time, since
// each has its own stream. When a method returns, nothing is left in the stream: an
// error is that of the method that caused it, and Close frees what no kernel uses.
type Model struct {
	d    *Device
	host *graph.Model // the network, and the tensors of the last Pull
	set  *dataset.Set
	n    int // pictures of a step
	r    trainer.Recipe

	tensors  *tensors
	pictures *pictures // nil: fed copies them from the host
	memory   []cu.DevicePtr
	bytes    int
	stream   cu.Stream
	// One for each purpose; measure is nil without Recipe.Precise.
	train, eval, measure *recorded
	ends                 [2]cu.Event // of a group of steps
	sent                 []any       // slices that the device may still read

	// The host writes order, rates and state before the first step. The kernels write
	// losses and corrects into the memory of the host, where heard has them.
	order, rates, state, losses, corrects *buffer
	heard                                 heard
	fed                                   *fed
	last                                  []int // the pictures of the last batch in the training split
}

// heard is what the kernel finish tells the host: the mean loss and the right answers of
// each step, or as their first elements the sums of an evaluation. It lies in pinned
// memory of the host. An element is read only after the host has waited for an event, or
// for the stream, behind its step: a kernel is done when all that it wrote has arrived,
// also what it wrote to the host's memory, and an event is reached when the work before
// it is done.
type heard struct {
	memory   unsafe.Pointer
	losses   []float64
	corrects []int32
}

// recorded is a plan on the device.
type recorded struct {
	*plan
	graph graphExec
}

// fed copies the pictures of a set that is not in memory to the device.
type fed struct {
	from   *buffer
	floats int
	slots  [2]struct {
		pixels []float32 // (⌈n/16⌉, H, C, W, 16), pinned
		labels []float32
		ids    []int32 // (B, 32), pinned
		copied cu.Event
		used   bool
	}
	next int
}

// Start implements trainer.Device.
func (d *Device) Start(net space.Network, n int, set *dataset.Set, r trainer.Recipe) (trainer.Engine, error) {
	m, err := d.New(net, n, set, r)
	if err != nil {
		return nil, err
	}
	return m, nil
}

// New builds the network for batches of n pictures of a set. The error is
// ErrMemory if they do not fit.
func (d *Device) New(net space.Network, n int, set *dataset.Set, r trainer.Recipe) (_ *Model, err error) {
	isa, err := kernel.Detect()
	if err != nil {
		return nil, err
	}
	// Its activations are never used, so they take addresses, but no memory.
	o := r.GraphOptions()
	o.ISA = isa
	host, err := graph.New(net, n, o)
	if err != nil {
		return nil, err
	}
	m := &Model{d: d, host: host, set: set, n: n, r: r, tensors: newTensors(host)}
	if err := m.do(m.build); err != nil {
		m.Close()
		return nil, fmt.Errorf("%s, batch %d: %w", net.Name, n, err)
	}
	return m, nil
}

// build makes the plans, gives them memory, and records them as graphs.
func (m *Model) build() (err error) {
	if m.stream, err = cu.MakeStream(cu.NonBlocking); err != nil {
		return err
	}
	for i := range m.ends {
		if m.ends[i], err = cu.MakeEvent(cu.BlockingSyncEvent | cu.DisableTiming); err != nil {
			return err
		}
	}
	if m.pictures, err = m.d.hold(m.set, m.stream); err != nil {
		return err
	}
	if err := m.listen(); err != nil {
		return err
	}
	segments := kept("segments", 0)
	lasting := append(m.lasting(), segments)
	var plans []*plan
	for _, purpose := range []purpose{training, evaluating, measuring} {
		if purpose == measuring && !m.r.Precise {
			continue
		}
		p := newPlan(m.tensors, m.host, m.n, purpose, m.r.Precision == search.PrecisionTF32, m.state, m.feed)
		// Last returns these after the step.
		p.x.kept, p.y.kept, p.logits.kept = true, true, true
		p.gap = m.d.gap
		if purpose == training {
			p.update(m.r.Momentum, m.r.WeightDecay, segments, m.rates)
		}
		p.finish(m.losses, m.corrects)
		plans = append(plans, p)
	}
	if err := m.place(lasting, plans); err != nil {
		return err
	}
	if err := errors.Join(send(m, segments.addr, plans[0].segments),
		send(m, m.tensors.affine.addr, m.tensors.affines)); err != nil {
		return err
	}
	if m.fed != nil {
		if err := m.pin(); err != nil {
			return err
		}
	}
	for i, r := range []**recorded{&m.train, &m.eval, &m.measure}[:len(plans)] {
		if *r, err = m.record(plans[i]); err != nil {
			return err
		}
	}
	return nil
}

// do calls f on a thread that uses the device and waits for what is then in the
// stream, also after an error.
func (m *Model) do(f func() error) error {
	return m.d.do(func() error {
		err := f()
		return cmp.Or(err, m.wait())
	})
}

// wait returns when all that is in the stream is done: what send was given may change,
// and calls that do not know the stream find its results.
func (m *Model) wait() error {
	err := m.stream.Synchronize()
	clear(m.sent)
	m.sent = m.sent[:0]
	return err
}

// send copies a slice to the device, in the order of the stream. The slice must not
// change before wait returns.
func send[T any](m *Model, to uint64, s []T) error {
	m.sent = append(m.sent, s) // or it could be collected and its memory used again
	return upload(m.stream, to, s)
}

// steps is how many steps an epoch has, at least one.
func (m *Model) steps() int { return max(m.set.Train.Len()/m.n, 1) }

// listen allocates what the kernels tell the host.
func (m *Model) listen() error {
	steps := m.steps()
	m.losses, m.corrects = kept("losses", 8*steps), kept("corrects", 4*steps)
	p, device, err := hostMapped(m.losses.bytes + m.corrects.bytes)
	if err != nil {
		return err
	}
	m.losses.addr, m.corrects.addr = device, device+uint64(m.losses.bytes)
	m.heard = heard{p, unsafe.Slice((*float64)(p), steps), unsafe.Slice((*int32)(unsafe.Add(p, m.losses.bytes)), steps)}
	return nil
}

// lasting makes the buffers that belong to no plan, in the memory of the device.
func (m *Model) lasting() []*buffer {
	steps := m.steps()
	most := max(m.set.Train.Len(), m.set.Validation.Len(), m.set.Test.Len())
	m.state = kept("state", int(unsafe.Sizeof(state{})))
	m.order = kept("order", most*int(unsafe.Sizeof(show{})))
	m.rates = kept("rates", rateBytes*steps)
	list := append(m.tensors.kept(), m.state, m.order, m.rates)
	if m.pictures == nil {
		in := size(m.host.Net.Input())
		m.fed = &fed{floats: kernel.Blocks(m.n) * in * kernel.Lanes, from: kept("fed", 4*ceil(m.n, lanes)*lanes*in)}
		list = append(list, m.fed.from)
	}
	return list
}

// place allocates memory for the lasting buffers, which is zero at first, and memory
// that all plans share, since no two run at the same time. That is left as it is: a
// launch reads nothing there that another one of its plan has not written.
func (m *Model) place(lasting []*buffer, plans []*plan) error {
	own := 0
	for _, b := range lasting {
		b.addr = uint64(own)
		own += ceil(b.bytes+m.d.gap, align) * align
	}
	shared := 0
	buffers := [2][]*buffer{lasting, nil}
	for _, p := range plans {
		shared = max(shared, p.arrange())
		buffers[1] = append(buffers[1], p.buffers...)
	}
	for i, bytes := range []int{own, shared} {
		base, err := m.alloc(bytes)
		if err != nil {
			return err
		}
		for _, b := range buffers[i] {
			b.addr += base
		}
	}
	return cu.MemsetD8Async(cu.DevicePtr(lasting[0].addr), 0, int64(own), m.stream)
}

// alloc returns memory that Close frees.
func (m *Model) alloc(n int) (uint64, error) {
	p, err := alloc("a training", n)
	if err != nil {
		return 0, err
	}
	m.memory = append(m.memory, p)
	m.bytes += n
	return uint64(p), nil
}

// pin allocates the host's memory that batches are copied from.
func (m *Model) pin() error {
	ids := ceil(m.n, lanes) * lanes
	for i := range m.fed.slots {
		s := &m.fed.slots[i]
		p, err := hostAlloc(4*m.fed.floats + 4*ids)
		if err != nil {
			return err
		}
		s.pixels = unsafe.Slice((*float32)(p), m.fed.floats)
		s.ids = unsafe.Slice((*int32)(unsafe.Add(p, 4*m.fed.floats)), ids)
		s.labels = make([]float32, kernel.Blocks(m.n)*kernel.Lanes)
		if s.copied, err = cu.MakeEvent(cu.BlockingSyncEvent | cu.DisableTiming); err != nil {
			return err
		}
	}
	return nil
}

// feed launches the kernel that puts the batch into the plan's x and y.
func (m *Model) feed(p *plan) {
	in := m.host.Net.Input()
	c, h, w := int32(in.C), int32(in.H), int32(in.W)
	grid, block := [3]int{ceil(in.H*in.W, 8), in.C, p.blocks}, [3]int{32, 8, 1}
	if m.fed != nil {
		p.launch("repack", grid, block, 0, &repackArgs{c: c, h: h, w: w, n: int32(m.n), from: m.fed.from, x: p.x})
		return
	}
	p.launch("batch", grid, block, 0, &batchArgs{c: c, h: h, w: w, batch: int32(m.n),
		evaluating: flag(p.purpose != training),
		pixels:     m.pictures.pixels, labels: m.pictures.labels, order: m.order, table: m.pictures.table,
		state: m.state,
		x:     p.x, y: p.y})
}

// record makes a graph of a plan.
func (m *Model) record(p *plan) (*recorded, error) {
	for _, l := range p.launches { // kernels must be loaded before the recording
		if _, err := m.d.function(l.kernel); err != nil {
			return nil, err
		}
	}
	beside, err := cu.MakeStream(cu.NonBlocking)
	if err != nil {
		return nil, err
	}
	defer func() { _ = beside.Destroy() }()
	ends := map[int]*cu.Event{} // of the launches that another waits for
	defer func() {
		for _, e := range ends {
			_ = cu.DestroyEvent(e)
		}
	}()
	waits := p.waits()
	for _, i := range waits {
		if i < 0 || ends[i] != nil {
			continue
		}
		e, err := cu.MakeEvent(cu.DisableTiming)
		if err != nil {
			return nil, err
		}
		ends[i] = &e
	}
	g, err := record(m.stream, func() error {
		for i, l := range p.launches {
			stream := m.stream
			if l.aside {
				stream = beside
			}
			if e := ends[waits[i]]; e != nil {
				if err := stream.Wait(*e, 0); err != nil {
					return err
				}
			}
			if err := m.start(l, stream); err != nil {
				return err
			}
			if e := ends[i]; e != nil {
				if err := e.Record(stream); err != nil {
					return err
				}
			}
		}
		return nil
	})
	return &recorded{p, g}, err
}

// start puts a launch into a stream.
func (m *Model) start(l launch, stream cu.Stream) error {
	f, err := m.d.function(l.kernel)
	if err != nil {
		return err
	}
	if err := launchRaw(f, l.grid, l.block, l.shared, stream, encode(l.args)); err != nil {
		return fmt.Errorf("%s: %w", l.kernel, err)
	}
	return nil
}

// Bytes is the size of the model's memory on the device.
func (m *Model) Bytes() int { return m.bytes }

// Model returns the network, with the tensors of the last Pull.
func (m *Model) Model() *graph.Model { return m.host }

// Arithmetic implements trainer.Engine.
func (m *Model) Arithmetic() string {
	return search.Recipe{Precision: m.r.Precision}.Arithmetic(m.d.info.Arithmetic())
}

// Push copies the host's tensors to the device.
func (m *Model) Push() error {
	return m.copy(func(to uint64, from []float32) error { return send(m, to, from) })
}

// Pull copies the device's tensors to the host.
func (m *Model) Pull() error {
	return m.copy(func(from uint64, to []float32) error { return download(m.stream, to, from) })
}

func (m *Model) copy(one func(device uint64, host []float32) error) error {
	t := m.tensors
	return m.do(func() error {
		var errs []error
		for _, p := range m.host.Params {
			at := uint64(4 * t.at(p.Name))
			errs = append(errs, one(t.value.addr+at, p.Value), one(t.velocity.addr+at, p.Velocity),
				one(t.grad.addr+at, p.Grad))
			if p.Average != nil {
				errs = append(errs, one(t.average.addr+at, p.Average))
			}
		}
		for _, s := range m.host.Stats {
			errs = append(errs, one(t.stats.addr+uint64(4*t.at(s.Name)), s.Value))
		}
		for _, s := range m.host.Precise {
			errs = append(errs, one(t.precise.addr+uint64(4*t.at(s.Name)), s.Value))
		}
		return errors.Join(errs...)
	})
}

// largestGroup bounds how many steps the host starts together. Two groups of steps
// are in the stream at the same time.
const largestGroup = 64

// rateBytes is the size of a step's rates on the device, the structure igc_rates.
const rateBytes = int(unsafe.Sizeof(graph.Rates{}))

// Train implements trainer.Engine.
func (m *Model) Train(ctx context.Context, epoch int, order []int, rates []graph.Rates,
	done func(step int, s trainer.Score) error) error {
	if len(order)%m.n != 0 || len(order) > m.order.bytes/8 || len(order)/m.n > m.rates.bytes/rateBytes {
		panic(fmt.Sprintf("gpu: an order of %d pictures for batches of %d", len(order), m.n))
	}
	steps := len(order) / m.n
	var ended error // of done; do would take it for an error of the device
	err := m.do(func() error {
		next, stop, err := m.begin(ctx, &m.set.Train, order, m.r.Augmentation, uint64(epoch))
		if err != nil {
			return err
		}
		defer stop()
		if err := send(m, m.rates.addr, rates[:steps]); err != nil {
			return err
		}
		// Groups of steps grow until they are long enough to keep the host idle,
		// but stay short enough to stop soon.
		heard, started, group := 0, 0, 1
		var ends []int // of the groups under way
		for heard < steps {
			if err := ctx.Err(); err != nil {
				return err
			}
			for len(ends) < len(m.ends) && started < steps {
				for range min(group, steps-started) {
					if err := next(m.train); err != nil {
						return err
					}
					started++
				}
				if err := m.ends[len(ends)].Record(m.stream); err != nil {
					return err
				}
				ends = append(ends, started)
			}
			begin := time.Now()
			if err := m.ends[0].Synchronize(); err != nil {
				return err
			}
			switch took := time.Since(begin); {
			case took < 20*time.Millisecond:
				group = min(2*group, largestGroup)
			case took > 200*time.Millisecond:
				group = max(group/2, 1)
			}
			end := ends[0]
			ends = append(ends[:0], ends[1:]...)
			m.ends[0], m.ends[1] = m.ends[1], m.ends[0]
			for ; heard < end; heard++ {
				if ended = done(heard, trainer.Score{Correct: int(m.heard.corrects[heard]),
					Loss: m.heard.losses[heard]}); ended != nil {
					return nil
				}
			}
		}
		m.last = order[len(order)-m.n:]
		return nil
	})
	return cmp.Or(ended, err)
}

// begin prepares the pictures of order. next starts a plan on the next batch of
// them; stop must be called at the end.
func (m *Model) begin(ctx context.Context, split *dataset.Split, order []int, aug *dataset.Augmentation,
	epoch uint64) (next func(*recorded) error, stop func(), err error) {
	if err := send(m, m.state.addr, []state{{total: int32(len(order))}}); err != nil {
		return nil, nil, err
	}
	if m.fed != nil {
		batches := m.set.Batches(ctx, split, order, m.n, aug, m.r.Seed, epoch)
		return func(r *recorded) error { return m.feedNext(batches, r) }, batches.Close, nil
	}
	shows := make([]show, len(order))
	for i, picture := range order {
		v := aug.View(picture, m.r.Seed, epoch)
		shows[i] = show{picture: int32(m.pictures.first[split] + split.At(picture)), dy: int8(v.Dy), dx: int8(v.Dx),
			mirror: int8(flag(v.Mirror))}
	}
	if err := send(m, m.order.addr, shows); err != nil {
		return nil, nil, err
	}
	return m.run, func() {}, nil
}

// feedNext copies a batch that the host made and starts a step on it, while the
// step before still runs.
func (m *Model) feedNext(batches *dataset.Batches, r *recorded) error {
	s := &m.fed.slots[m.fed.next%2]
	m.fed.next++
	if s.used {
		if err := s.copied.Synchronize(); err != nil {
			return err
		}
	}
	s.used = true
	n, err := batches.Next(s.pixels, s.labels)
	if err != nil {
		return err
	}
	for i := range s.ids {
		s.ids[i] = -1
		if i < n {
			s.ids[i] = int32(s.labels[i])
		}
	}
	if err := cu.MemcpyHtoDAsync(cu.DevicePtr(m.fed.from.addr), unsafe.Pointer(unsafe.SliceData(s.pixels)),
		int64(4*m.fed.floats), m.stream); err != nil {
		return err
	}
	if err := cu.MemcpyHtoDAsync(cu.DevicePtr(r.y.addr), unsafe.Pointer(unsafe.SliceData(s.ids)), int64(4*len(s.ids)),
		m.stream); err != nil {
		return err
	}
	if err := s.copied.Record(m.stream); err != nil {
		return err
	}
	return m.run(r)
}

// run starts a plan.
func (m *Model) run(r *recorded) error {
	if m.d.instead != nil {
		return m.d.instead(m, r)
	}
	return r.graph.launch(m.stream)
}

// forward runs a plan without an update on the pictures of order, not augmented.
func (m *Model) forward(ctx context.Context, split *dataset.Split, order []int, r *recorded) error {
	next, stop, err := m.begin(ctx, split, order, nil, 0)
	if err != nil {
		return err
	}
	defer stop()
	for first := 0; first < len(order); first += m.n {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := next(r); err != nil {
			return err
		}
	}
	return nil
}

// Measure implements trainer.Engine.
func (m *Model) Measure(ctx context.Context, order []int) error {
	if m.measure == nil || len(order) == 0 || len(order)%m.n != 0 || len(order) > m.order.bytes/8 {
		panic(fmt.Sprintf("gpu: statistics of %d pictures for batches of %d", len(order), m.n))
	}
	return m.do(func() error {
		sums := m.tensors.measured
		if err := cu.MemsetD8Async(cu.DevicePtr(sums.addr), 0, int64(sums.bytes), m.stream); err != nil {
			return err
		}
		if err := m.forward(ctx, &m.set.Train, order, m.measure); err != nil {
			return err
		}
		return m.start(m.tensors.makePrecise(), m.stream)
	})
}

// Exchange swaps the weights with their averages.
func (m *Model) Exchange() error {
	return m.do(func() error { return m.start(m.tensors.exchange(), m.stream) })
}

// Evaluate implements trainer.Engine.
func (m *Model) Evaluate(ctx context.Context, split *dataset.Split) (score trainer.Score, err error) {
	order := make([]int, split.Len())
	for i := range order {
		order[i] = i
	}
	if err := m.do(func() error { return m.forward(ctx, split, order, m.eval) }); err != nil {
		return score, err
	}
	return trainer.Score{Correct: int(m.heard.corrects[0]), Loss: m.heard.losses[0] / float64(len(order))}, nil
}

// Last implements trainer.Engine.
func (m *Model) Last() (pictures []float32, labels []int, logits []float32, err error) {
	in, k := m.host.Net.Input(), m.host.Net.Classes
	x, z := make([]float32, m.train.x.bytes/4), make([]float32, m.train.logits.bytes/4)
	err = m.do(func() error {
		return errors.Join(download(m.stream, x, m.train.x.addr), download(m.stream, z, m.train.logits.addr))
	})
	if err != nil {
		return nil, nil, nil, err
	}
	for _, picture := range m.last {
		labels = append(labels, int(m.set.Train.Labels[picture]))
	}
	return unblock(x, m.n, size(in)), labels, unblock(z, m.n, k), nil
}

// unblock returns the pictures of (B, size, 32) as (n, size).
func unblock(x []float32, n, size int) []float32 {
	out := make([]float32, n*size)
	for i := range out {
		picture, at := i/size, i%size
		out[i] = x[(picture/lanes*size+at)*lanes+picture%lanes]
	}
	return out
}

// Close implements trainer.Engine.
func (m *Model) Close() {
	_ = m.d.do(func() error {
		for _, r := range []*recorded{m.train, m.eval, m.measure} {
			if r != nil {
				r.graph.destroy()
			}
		}
		if m.pictures != nil {
			m.d.release(m.set)
		}
		if m.fed != nil {
			for i := range m.fed.slots {
				if s := &m.fed.slots[i]; s.pixels != nil {
					_ = cu.MemFreeHost(unsafe.Pointer(unsafe.SliceData(s.pixels)))
					_ = cu.DestroyEvent(&s.copied)
				}
			}
		}
		if m.heard.memory != nil {
			_ = cu.MemFreeHost(m.heard.memory)
		}
		for _, p := range m.memory {
			_ = cu.MemFree(p)
		}
		var event cu.Event
		for i := range m.ends {
			if m.ends[i] != event {
				_ = cu.DestroyEvent(&m.ends[i])
			}
		}
		var none cu.Stream
		if m.stream != none {
			_ = m.stream.Destroy()
		}
		return nil
	})
	m.host.Close()
	m.memory, m.heard, m.train, m.eval, m.measure, m.pictures = nil, heard{}, nil, nil, nil, nil
}
