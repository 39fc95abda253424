// Package graph builds a space.Network as a Gorgonia expression graph and
// trains it.
//
// Gorgonia holds the graph and derives the gradients: every op here has a
// SymDiff, from which G.Grad makes the backward graph. The ops are coarse, a
// whole IGC block each, because the arithmetic in package kernel fuses the steps
// between two convolutions. A second graph is for evaluation: it has only the
// forward pass, shares the parameters and the memory of the activations, and
// normalises by the running statistics.
//
// There are two executors with the same bits, see Executor. Walk, the usual one,
// is a loop over a slice that allocates nothing. Tape is Gorgonia's TapeMachine.
// It costs some 100 µs and 400 allocations a run, gives each gradient memory of
// its own, and runs ops on goroutines of its own, where a panic ends the process
// and no thread can be pinned. docs/performance.md compares them.
//
// Beside the graphs, the builder writes a Program: the same computation for
// devices other than the CPU.
//
// To add an op: a file here with its Do, DiffWRT and SymDiff; an instruction and
// its gradient in program.go; its arithmetic in package kernel with an oracle and
// a conformance test; and a case in builder.layer.
package graph

import (
	"errors"
	"fmt"
	"math"

	_ "go4.org/unsafe/assume-no-moving-gc" // pins the version that Gorgonia needs to start at all
	"gorgonia.org/tensor"

	"igcsearch/space"
	"igcsearch/trainer/kernel"
)

// Param is one parameter tensor, named and shaped as in PyTorch.
type Param struct {
	Name  string
	Shape []int
	Value []float32
	// Grad is the gradient of the mean loss of the last Step, without weight
	// decay; it is valid until the next Step.
	Grad []float32
	// Velocity is the momentum buffer.
	Velocity []float32
	// Average is the exponential average of Value, bias-corrected; nil unless
	// Options.Average.
	Average []float32
	// Decays is set where Update adds the weight decay to the gradient. Without
	// Options.DecayAll it is not set for the bias of the linear layer and the
	// shifts of the normalisations.
	Decays bool
	// FanIn is the input channels of one partition times the kernel
	// positions, for weights of convolutions and the linear layer; else 0.
	FanIn int
}

// Stat is one tensor of a normalisation's statistics.
type Stat struct {
	Name  string
	Value []float32
}

// batch says how much of the fixed shapes is in use.
type batch struct {
	blocks int // of the shapes
	n      int // pictures of the present batch
	// measuring makes the training graph add its sums to the precise statistics
	// and leave the running statistics unchanged.
	measuring bool
}

func (b *batch) used() int         { return kernel.Blocks(b.n) }
func (b *batch) valid(blk int) int { return min(kernel.Lanes, b.n-blk*kernel.Lanes) }

// runtime is what the ops of one model share.
type runtime struct {
	arena     *kernel.Arena
	team      *kernel.Team
	b         *batch
	precision kernel.Precision
	units     map[int]*norm
}

// tensor returns a tensor of zeros.
func (r *runtime) tensor(shape ...int) *tensor.Dense {
	return dense(r.arena.Floats(tensor.Shape(shape).TotalSize()), shape...)
}

// unit returns an identity normalisation of c channels. Ops that need a
// normalisation use it where the network has none.
func (r *runtime) unit(c int) *norm {
	n := r.units[c]
	if n == nil {
		a := r.arena
		n = &norm{Norm: &Norm{C: c}, b: r.b, scale: a.Floats(c), shift: a.Floats(c),
			ca: a.Floats(c), cb: a.Floats(c), cc: a.Floats(c),
			gsum: a.Doubles(r.b.blocks * c), gxsum: a.Doubles(r.b.blocks * c)}
		for i := range c {
			n.scale[i], n.ca[i] = 1, 1
		}
		r.units[c] = n
	}
	return n
}

// Model is a network ready to train. It is not safe for concurrent use. Different
// models may be used at the same time.
type Model struct {
	Net     space.Network
	Program Program
	Params  []Param
	Stats   []Stat // running statistics
	// Precise are the statistics that Measured computed, under the names of
	// Stats; evaluations use them. nil unless Options.Precise.
	Precise []Stat

	options Options
	run     *runtime
	input   []float32 // (B, H, C, W, 16)
	labels  []float32 // (B, 16)
	train   half
	eval    half
	measure executor // the training graph up to the loss; nil unless Options.Precise
	norms   []*norm  // of the training graph
}

// half is one of the two graphs.
type half struct {
	head *head
	cost *crossEntropy
	exec executor
}

// Options say how a model runs and what it keeps.
type Options struct {
	ISA      kernel.ISA
	Threads  int // at least 1; any number gives the same bits
	Executor Executor
	// Precision is that of the activations. Tape has kernel.F32 only.
	Precision kernel.Precision

	// DecayAll makes Update decay every parameter. Without it, the bias of the
	// linear layer and the shifts of the normalisations do not decay.
	DecayAll bool
	// Average makes Update keep the average of each parameter.
	Average bool
	// Precise makes evaluations normalise by the statistics of Measure and
	// Measured, not by the running statistics.
	Precise bool
}

// New builds the network for batches of up to n pictures. All parameters and
// statistics are zero, except the running variances, which are 1. Close frees the
// memory. The error is a kernel.MemoryError if the system has not enough memory.
func New(net space.Network, n int, o Options) (_ *Model, err error) {
	if o.Executor == Tape && o.Precision != kernel.F32 {
		return nil, fmt.Errorf("graph: Gorgonia's tape machine adds gradients in float32, and not in %v", o.Precision)
	}
	m := &Model{Net: net, options: o}
	blocks := kernel.Blocks(n)
	r := &runtime{arena: &kernel.Arena{}, b: &batch{blocks: blocks, n: n}, precision: o.Precision, units: map[int]*norm{}}
	m.run = r
	defer func() {
		var memory kernel.MemoryError
		if p := recover(); p != nil {
			m.Close()
			if e, ok := p.(error); !ok || !errors.As(e, &memory) {
				panic(p)
			}
			err = fmt.Errorf("%s, batch %d: %w", net.Name, n, memory)
		} else if err != nil {
			m.Close()
		}
	}()
	in := net.Input()
	m.input = r.arena.Floats(r.b.blocks * in.C * in.H * in.W * kernel.Lanes)
	m.labels = r.arena.Floats(r.b.blocks * kernel.Lanes)
	var scratch int
	for _, l := range net.Layers {
		if l.Kind == space.Conv || l.Kind == space.IGC {
			scratch = max(scratch, geometry(l, o.Precision).ScratchLen())
		}
	}
	// A block is the smallest piece of work: more threads would be idle.
	if r.team, err = kernel.NewTeam(r.arena, o.ISA, min(o.Threads, blocks), scratch); err != nil {
		return nil, fmt.Errorf("%s, %d threads: %w", net.Name, o.Threads, err)
	}
	b := builder{m: m}
	if err := b.build(); err != nil {
		return nil, fmt.Errorf("build %s: %w", net.Name, err)
	}
	return m, nil
}

// Team returns the threads that the model runs on.
func (m *Model) Team() *kernel.Team { return m.run.team }

// Close ends the model's threads and frees its memory. No slice of the model may
// be used afterwards.
func (m *Model) Close() {
	if m.run.team != nil {
		m.run.team.Close()
		m.run.team = nil
	}
	m.run.arena.Free()
}

// Batch sets the number of pictures of the next Step, Measure or Evaluate. It
// returns the memory to write them to: pictures (B, H, C, W, 16), with zeros in
// padding lanes, and labels (B, 16), as class numbers.
func (m *Model) Batch(n int) (pictures, labels []float32) {
	if n < 1 || n > m.run.b.blocks*kernel.Lanes {
		panic(fmt.Sprintf("graph: a batch of %d pictures, want 1 to %d", n, m.run.b.blocks*kernel.Lanes))
	}
	m.run.b.n = n
	used := m.run.b.used()
	return m.input[:used*len(m.input)/m.run.b.blocks], m.labels[:used*kernel.Lanes]
}

// Step computes the mean loss of the batch (nats), the gradients of all
// parameters and the running statistics. It changes no parameter.
func (m *Model) Step() (loss float64, err error) {
	if err := m.train.exec.run(); err != nil {
		return 0, err
	}
	return m.train.cost.total, nil
}

// StepBytes is the memory traffic of a Step on a full batch: the bytes of
// activations and their gradients that its ops must read and write. How many of
// them come from a cache depends on the machine.
func (m *Model) StepBytes() int { return m.train.exec.bytes() }

// Measure adds the batch to the statistics that Measured will compute: each
// normalisation uses the batch as in training. It changes nothing that a training
// step needs. The model must have Options.Precise.
func (m *Model) Measure() error {
	m.run.b.measuring = true
	err := m.measure.run()
	m.run.b.measuring = false
	return err
}

// Measured computes Precise from the batches that were measured since its last
// call.
func (m *Model) Measured() {
	for _, n := range m.norms {
		n.measured()
	}
}

// Exchange swaps the values of all parameters with their averages. A second call
// undoes the first.
func (m *Model) Exchange() {
	for _, p := range m.Params {
		for i, v := range p.Value {
			p.Value[i], p.Average[i] = p.Average[i], v
		}
	}
}

// Evaluate computes the mean loss of the batch (nats) by the running statistics,
// or with Options.Precise by the precise ones.
func (m *Model) Evaluate() (loss float64, err error) {
	if err := m.eval.exec.run(); err != nil {
		return 0, err
	}
	return m.eval.cost.total, nil
}

// Correct counts the pictures of the last Step (training) or Evaluate whose
// largest logit is that of their label.
func (m *Model) Correct(training bool) int {
	logits, k := m.logits(training), m.Net.Classes
	correct := 0
	for i := range m.run.b.n {
		at := func(c int) float32 { return logits[(i/kernel.Lanes*k+c)*kernel.Lanes+i%kernel.Lanes] }
		best, ok := 0, !math.IsNaN(float64(at(0)))
		for c := 1; c < k; c++ {
			if at(c) > at(best) {
				best = c
			}
		}
		if ok && best == int(m.labels[i]) {
			correct++
		}
	}
	return correct
}

// Logits returns those of the last Step (training) or Evaluate as (N, K).
func (m *Model) Logits(training bool) []float32 {
	out := make([]float32, m.run.b.n*m.Net.Classes)
	kernel.Unpack(out, m.logits(training), m.run.b.n, m.Net.Classes, 1, 1)
	return out
}

// Pictures returns those of the last batch as (N, C, H, W).
func (m *Model) Pictures() []float32 {
	in := m.Net.Input()
	out := make([]float32, m.run.b.n*in.C*in.H*in.W)
	kernel.Unpack(out, m.input, m.run.b.n, in.C, in.H, in.W)
	return out
}

func (m *Model) logits(training bool) []float32 {
	if training {
		return m.train.head.logits.Float32s()
	}
	return m.eval.head.logits.Float32s()
}

// Rates are the numbers of the optimiser that change from step to step.
type Rates struct {
	Learning float32
	// Average is the share of the new weights in their average: 1 at the first
	// step. Without Options.Average it has no effect.
	Average float32
}

// Update changes the parameters by their gradients: SGD with Nesterov momentum
// mu, and with weight decay where Param.Decays is set. Then it updates the
// averages.
func (m *Model) Update(r Rates, mu, decay float32) {
	for _, p := range m.Params {
		d := decay
		if !p.Decays {
			d = 0
		}
		kernel.Nesterov(p.Value, p.Velocity, p.Grad, r.Learning, mu, d)
		for i := range p.Average {
			// The conversion prevents a fused multiply–add, which has other bits.
			p.Average[i] += float32(r.Average * (p.Value[i] - p.Average[i]))
		}
	}
}
