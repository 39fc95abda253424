// Package bench measures the training step of one network on this machine, alone
// and beside others, and the limits of the machine.
package bench

import (
	"context"
	"fmt"
	"os"
	"runtime"
	"slices"
	"time"

	"github.com/sourcegraph/conc/pool"

	"igcsearch/space"
	"igcsearch/trainer"
	"igcsearch/trainer/dataset"
	"igcsearch/trainer/graph"
	"igcsearch/trainer/kernel"
)

// Options say what Steps, Scaling and GPU measure.
type Options struct {
	System  space.System
	Plan    space.Plan // zero: Figure 3's, 100 classes, pictures of 32×32
	Batch   int        // pictures of a step, 1 … 4096
	Threads int        // 1 … 1024; more than batch/16 are not used
	Steps   int        // measured, after one that is not counted; at least 1
	// Precision is that of a search.Study. The processor has no search.PrecisionTF32.
	Precision string
}

// Result is the training step of one network: forward, backward and update.
type Result struct {
	Params          int           // of the network
	Step            time.Duration // median
	ImagesPerSecond float64
	Flops           float64       // operations of a step: 6 for each multiply–add and picture
	Bytes           float64       // of activations and gradients that the ops of a step must read and write
	PeakFlops       float64       // operations a second of Instruction by the same threads without memory, before and after
	Bandwidth       float64       // bytes a second that a copy by the same threads reads and writes, before
	EvalPerSecond   float64       // pictures of the forward pass alone
	Input           time.Duration // of a batch: crop, mirror and normalise, on one thread
	Resident        int           // bytes that the model added to the process; 0 if the system does not say
	Allocations     int           // by Go in all measured steps
	Threads         int           // that were used
	ISA             string
	Instruction     string // that multiplies, see trainer.Instruction
}

// FlopsPerSecond of the median step.
func (r Result) FlopsPerSecond() float64 { return r.Flops / r.Step.Seconds() }

// BytesPerSecond of the median step.
func (r Result) BytesPerSecond() float64 { return r.Bytes / r.Step.Seconds() }

// Bound says what limits a step: "arithmetic" if its operations at the peak take
// longer than its bytes at full bandwidth, else "memory".
func (r Result) Bound() string {
	if r.Flops/r.PeakFlops >= r.Bytes/r.Bandwidth {
		return "arithmetic"
	}
	return "memory"
}

// precision is that of the kernels.
func (o Options) precision() kernel.Precision {
	return trainer.Recipe{Precision: o.Precision}.GraphOptions().Precision
}

// plan is Plan, or if it is zero that of Figure 3.
func (o Options) plan() space.Plan {
	if o.Plan == (space.Plan{}) {
		return space.Plan{Layout: space.Flat, In: space.Shape{C: 3, H: 32, W: 32}, Classes: 100}
	}
	return o.Plan
}

// MaxThreads is the largest number of threads of a measurement.
const MaxThreads = 1024

// Feeds returns how many threads have work with a batch.
func Feeds(batch int) int { return min(kernel.Blocks(batch), MaxThreads) }

// Check returns an error if Scaling, or Steps and GPU, cannot measure the options.
func (o Options) Check(scaling bool) error {
	switch {
	case o.Batch < 1 || o.Batch > 4096:
		return fmt.Errorf("batch %d: want 1 to 4096 pictures", o.Batch)
	case o.Threads < 1 || o.Threads > MaxThreads:
		return fmt.Errorf("%d threads: want 1 to %d", o.Threads, MaxThreads)
	case o.Steps < 1:
		return fmt.Errorf("%d steps: want 1 or more", o.Steps)
	case scaling && o.System.Pair() == space.Pair{}:
		return fmt.Errorf("%v: scaling is measured on networks of a pair", o.System)
	case scaling && o.Threads < 2:
		return fmt.Errorf("scaling compares one thread with several: want 2 or more")
	case scaling && Feeds(o.Batch) < o.Threads:
		return fmt.Errorf("a batch of %d has work for %d of %d threads: want %d pictures or more", o.Batch,
			Feeds(o.Batch), o.Threads, kernel.Lanes*(o.Threads-1)+1)
	}
	return nil
}

// model returns the network, with a batch of random pictures in it.
func (o Options) model(threads int) (*graph.Model, error) {
	isa, err := kernel.Detect()
	if err != nil {
		return nil, err
	}
	net, err := o.System.Network(o.plan())
	if err != nil {
		return nil, err
	}
	m, err := graph.New(net, o.Batch, graph.Options{ISA: isa, Threads: threads, Precision: o.precision()})
	if err != nil {
		return nil, err
	}
	m.Initialise(0)
	x, y := m.Batch(o.Batch)
	for i := range x {
		x[i] = float32(i*7919%2001)/1000 - 1
	}
	for i := range y {
		y[i] = float32(i % net.Classes)
	}
	return m, nil
}

func benchStep(m *graph.Model) error {
	_, err := m.Step()
	m.Update(graph.Rates{Learning: 0.01}, 0.9, 1e-4)
	return err
}

// timed runs f n times and returns the seconds of each.
func timed(ctx context.Context, n int, f func() error) ([]time.Duration, error) {
	times := make([]time.Duration, n)
	for i := range n {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		begin := time.Now()
		if err := f(); err != nil {
			return nil, err
		}
		times[i] = time.Since(begin)
	}
	return times, nil
}

// stepper is a model whose steps are measured.
type stepper struct {
	Options
	m     *graph.Model
	r     Result
	times []time.Duration // of its steps
}

// newStepper makes the model and a step that is not counted, in cold memory.
func newStepper(o Options) (*stepper, error) {
	before := resident()
	m, err := o.model(o.Threads)
	if err != nil {
		return nil, err
	}
	s := &stepper{Options: o, m: m}
	if err := benchStep(m); err != nil {
		m.Close()
		return nil, err
	}
	if before > 0 {
		s.r.Resident = resident() - before
	}
	team := m.Team()
	s.r.Params, s.r.Threads, s.r.ISA = m.Net.Params(), team.Threads(), team.ISA().String()
	s.r.Instruction = trainer.Instruction(team, o.precision())
	s.r.Flops, s.r.Bytes = 6*float64(m.Net.MultiplyAdds())*float64(o.Batch), float64(m.StepBytes())
	return s, nil
}

// limits measures what the machine can do, and keeps the best.
func (s *stepper) limits() error {
	team := s.m.Team()
	s.r.PeakFlops = max(s.r.PeakFlops, team.Peak(s.precision()))
	if s.r.Bandwidth > 0 {
		return nil
	}
	var err error
	s.r.Bandwidth, err = bandwidth(team)
	return err
}

// steps measures n steps.
func (s *stepper) steps(ctx context.Context, n int) error {
	var memory [2]runtime.MemStats
	runtime.ReadMemStats(&memory[0])
	times, err := timed(ctx, n, func() error { return benchStep(s.m) })
	runtime.ReadMemStats(&memory[1])
	s.times = append(s.times, times...)
	s.r.Allocations += int(memory[1].Mallocs - memory[0].Mallocs)
	return err
}

// rest measures what is no part of the step.
func (s *stepper) rest(ctx context.Context) error {
	evals, err := timed(ctx, s.Steps, func() error { _, err := s.m.Evaluate(); return err })
	if err != nil {
		return err
	}
	set, pictures := benchSet(s.Batch, s.m.Net.Input())
	x, _ := s.m.Batch(s.Batch)
	inputs, err := timed(ctx, s.Steps, func() error {
		set.Fill(x, &set.Train, pictures, &dataset.Augmentation{Pad: 4, Mirror: true}, 0, 0)
		return nil
	})
	if err != nil {
		return err
	}
	s.r.Input = median(inputs)
	s.r.EvalPerSecond = float64(s.Batch) / median(evals).Seconds()
	return nil
}

// result is what was measured.
func (s *stepper) result() Result {
	s.r.Step = median(s.times)
	s.r.ImagesPerSecond = float64(s.Batch) / s.r.Step.Seconds()
	return s.r
}

// Steps measures the training steps of networks on random pictures, and returns a
// Result of each. To compare them, it measures half of the steps of each, calls
// between, if that is not nil, and measures the other halves. After an error in between
// or later it returns with the error what it has measured of all networks.
func Steps(ctx context.Context, between func() error, networks ...Options) (results []Result, err error) {
	var all []*stepper
	defer func() {
		for _, s := range all {
			s.m.Close()
		}
	}()
	each := func(f func(*stepper) error) {
		for _, s := range all {
			if err == nil {
				err = f(s)
			}
		}
	}
	for _, o := range networks {
		if err := o.Check(false); err != nil {
			return nil, err
		}
		s, err := newStepper(o)
		if err != nil {
			return nil, err
		}
		all = append(all, s)
	}
	each((*stepper).limits)
	each(func(s *stepper) error { return s.steps(ctx, (s.Steps+1)/2) })
	each(func(s *stepper) error { return s.rest(ctx) }) // no interrupt of between can take it
	if err != nil {
		return nil, err
	}
	if between != nil {
		err = between()
	}
	each(func(s *stepper) error { return s.steps(ctx, s.Steps/2) })
	each((*stepper).limits)
	for _, s := range all {
		results = append(results, s.result())
	}
	return results, err
}

// benchSet is n pictures as the input pipeline reads them.
func benchSet(n int, in space.Shape) (*dataset.Set, []int) {
	s := &dataset.Set{C: in.C, H: in.H, W: in.W, Std: [3]float32{1, 1, 1}}
	s.Train.Labels, s.Train.Pixels = make([]uint16, n), make([]byte, n*in.C*in.H*in.W)
	pictures := make([]int, n)
	for i := range pictures {
		pictures[i] = (i * 7919) % n
	}
	for i := range s.Train.Pixels {
		s.Train.Pixels[i] = byte(i * 31)
	}
	return s, pictures
}

// bandwidth is that of a team, or an error if there is not enough memory.
func bandwidth(t *kernel.Team) (b float64, err error) {
	defer func() {
		if p := recover(); p != nil {
			e, ok := p.(kernel.MemoryError)
			if !ok {
				panic(p)
			}
			err = fmt.Errorf("measure the memory's bandwidth: %w", e)
		}
	}()
	return t.Bandwidth(), nil
}

// resident is how many bytes of memory this process uses; 0 if the system does not
// say.
func resident() int {
	s, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		return 0
	}
	var size, pages int
	if _, err := fmt.Sscan(string(s), &size, &pages); err != nil {
		return 0
	}
	return pages * os.Getpagesize()
}

// ScalingResult compares three ways to use a machine on one pair, in pictures
// a second.
type ScalingResult struct {
	One     float64 // one trial on one thread
	Trials  float64 // of all trials together: as many as threads, one thread each
	Threads float64 // one trial on all threads
	// The ratios of both to One: medians over the rounds. Each round measures all
	// three.
	TrialsRatio, ThreadsRatio float64
	// The limits of the machine on all threads, in units of one thread:
	// multiply–adds without memory, the step's micro-kernels on rows in the
	// caches of their core, and a copy of memory. They show what a step that
	// scales badly waits for.
	ArithmeticRatio, RowsRatio, CopyRatio float64
	Instruction                           string // as in Result
}

// Scaling measures in Steps rounds: one trial on one thread, Threads trials at once
// on one thread each, and one trial on Threads threads.
func Scaling(ctx context.Context, o Options) (r ScalingResult, err error) {
	if err := o.Check(true); err != nil {
		return r, err
	}
	var models []*graph.Model
	defer func() {
		for _, m := range models {
			m.Close()
		}
	}()
	for i := range o.Threads + 1 {
		threads := 1
		if i == o.Threads {
			threads = o.Threads
		}
		m, err := o.model(threads)
		if err != nil {
			return r, err
		}
		models = append(models, m)
		if err := benchStep(m); err != nil {
			return r, err
		}
	}
	// Several steps each, so that trials at once overlap nearly all the time.
	const steps = 3
	run := func(m *graph.Model) error {
		for range steps {
			if err := benchStep(m); err != nil {
				return err
			}
		}
		return nil
	}
	ways := [3]func() error{
		func() error { return run(models[0]) },
		func() error {
			p := pool.New().WithErrors()
			for _, m := range models[:o.Threads] {
				p.Go(func() error { return run(m) })
			}
			return p.Wait()
		},
		func() error { return run(models[o.Threads]) },
	}
	trials := [3]int{1, o.Threads, 1}
	var rate, ratio [3][]float64
	var arithmetic, rows, copies []float64
	one, all := models[0].Team(), models[o.Threads].Team()
	for range o.Steps {
		if err := ctx.Err(); err != nil {
			return r, err
		}
		for way, f := range ways {
			begin := time.Now()
			if err := f(); err != nil {
				return r, err
			}
			rate[way] = append(rate[way], float64(steps*trials[way]*o.Batch)/time.Since(begin).Seconds())
			ratio[way] = append(ratio[way], rate[way][len(rate[way])-1]/rate[0][len(rate[0])-1])
		}
		const d = 100 * time.Millisecond
		arithmetic = append(arithmetic, all.Multiply(o.precision(), d)/one.Multiply(o.precision(), d))
		rows = append(rows, o.rowRate(all, d)/o.rowRate(one, d))
		var bytes [2]float64
		for i, t := range []*kernel.Team{one, all} {
			if bytes[i], err = bandwidth(t); err != nil {
				return r, err
			}
		}
		copies = append(copies, bytes[1]/bytes[0])
	}
	return ScalingResult{One: median(rate[0]), Trials: median(rate[1]), Threads: median(rate[2]),
		TrialsRatio: median(ratio[1]), ThreadsRatio: median(ratio[2]), ArithmeticRatio: median(arithmetic),
		RowsRatio: median(rows), CopyRatio: median(copies), Instruction: trainer.Instruction(all, o.precision())}, nil
}

// rowRate is the operations a second of all threads together in the micro-kernels of
// a block's step. Each runs for a part of d on a row in the caches. The gradient of
// a convolution's input is such a convolution again.
func (o Options) rowRate(t *kernel.Team, d time.Duration) float64 {
	p := o.System.Pair()
	g := kernel.Geometry{Precision: o.precision(), H: 32, W: 32, KH: 3, KW: 3, Stride: 1, L: p.L, Ci: p.M, Co: p.M,
		StepIn: 1, StepOut: 1, Mixes: []kernel.Mix{{K: p.L, Step: p.M}}}
	var seconds float64
	for m, times := range map[kernel.Micro]float64{kernel.Primary: 2, kernel.Secondary: 2, kernel.PrimaryGrad: 1,
		kernel.SecondaryGrad: 1} {
		weights := float64(g.PrimaryLen())
		if m == kernel.Secondary || m == kernel.SecondaryGrad {
			weights = float64(g.MixesLen())
		}
		const rate = 50e9 // operations a second of a core, roughly
		n := int(d.Seconds()/4*rate/(2*weights*float64(g.W*kernel.Lanes))) + 1
		seconds += times * weights / t.Row(g, m, n)
	}
	return 1 / seconds
}

func median[T float64 | time.Duration](v []T) T {
	slices.Sort(v)
	return (v[len(v)/2] + v[(len(v)-1)/2]) / 2
}
