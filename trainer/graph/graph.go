// Package graph builds a space.Network as a Gorgonia expression graph and
// trains it.
//
// Gorgonia holds the graph and derives the gradients: every op here has a
// SymDiff, and G.Grad makes the backward graph out of them. The ops are coarse,
// a whole IGC block each, because the arithmetic in package kernel fuses what
// lies between two convolutions. A second graph, forward only, shares the
// parameters and the activations' memory and normalises by the running
// statistics: evaluation.
//
// An executor of our own walks the graph in place of Gorgonia's TapeMachine.
// That one costs about 40 µs and 400 allocations a run, which is little, but it
// executes ops on goroutines of its own, where a panic ends the process and no
// thread can be pinned. Ours is a walk over a slice that allocates nothing, and
// a device can take the same walk as its list of launches.
//
// Where to add an op: a file here with its Do, DiffWRT and SymDiff, its
// arithmetic in package kernel with an oracle and a conformance test, and a
// case in build.
package graph

import (
	"errors"
	"fmt"
	"math"

	_ "go4.org/unsafe/assume-no-moving-gc" // pins the version that Gorgonia needs to start at all
	G "gorgonia.org/gorgonia"
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
	// decay.
	Grad []float32
	// Velocity is the momentum buffer.
	Velocity []float32
	// Decays is set for all but biases of the linear layer and shifts of the
	// normalisations.
	Decays bool
	// FanIn is the input channels of one partition times the kernel
	// positions, for weights of convolutions and the linear layer; else 0.
	FanIn int
}

// Stat is one tensor of running statistics.
type Stat struct {
	Name  string
	Value []float32
}

// batch says how much of the fixed shapes is in use.
type batch struct {
	blocks int // of the shapes
	n      int // pictures now
}

func (b *batch) used() int         { return kernel.Blocks(b.n) }
func (b *batch) valid(blk int) int { return min(kernel.Lanes, b.n-blk*kernel.Lanes) }

// runtime is what the ops of one model share.
type runtime struct {
	arena     *kernel.Arena
	team      *kernel.Team
	b         *batch
	gradients [2][]float32
	turn      int
	last      tensor.Shape // of the last gradient
}

// tensor returns a tensor of zeros.
func (r *runtime) tensor(shape ...int) *tensor.Dense {
	return dense(r.arena.Floats(tensor.Shape(shape).TotalSize()), shape...)
}

// gradient returns a gradient of an activation; ops ask in the order in which
// they are differentiated, from the last to the first. A gradient is read by
// the op before and no other. Where it has the shape of the one that it is made
// from, it takes its place row by row: those lines are in the cache, and writing
// elsewhere would first read that memory. Else two buffers take turns.
func (r *runtime) gradient(shape tensor.Shape) *tensor.Dense {
	if !shape.Eq(r.last) {
		r.turn, r.last = r.turn+1, shape
	}
	return dense(r.gradients[r.turn%2][:shape.TotalSize()], shape...)
}

// Model is a network ready to train. It is not safe for concurrent use; two
// models are.
type Model struct {
	Net    space.Network
	Params []Param
	Stats  []Stat

	run    *runtime
	input  []float32 // (B, H, C, W, 16)
	labels []float32 // (B, 16)
	train  half
	eval   half
}

// half is one of the two graphs.
type half struct {
	head *head
	cost *crossEntropy
	exec *executor
}

// Options say how a model runs, not what it computes.
type Options struct {
	ISA     kernel.ISA
	Threads int // at least 1; any number gives the same bits
}

// New builds the network for batches of up to n pictures. Parameters are zero
// but for the running variances, 1. Close frees the memory. It is an error if
// the system has not enough of it.
func New(net space.Network, n int, o Options) (_ *Model, err error) {
	m := &Model{Net: net}
	blocks := kernel.Blocks(n)
	r := &runtime{arena: &kernel.Arena{}, b: &batch{blocks: blocks, n: n}}
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
	in := net.Layers[0].In
	m.input = r.arena.Floats(r.b.blocks * in.C * in.H * in.W * kernel.Lanes)
	m.labels = r.arena.Floats(r.b.blocks * kernel.Lanes)
	var scratch, largest int
	shapes := map[space.Shape]bool{} // of activations
	for _, l := range net.Layers {
		if geo, ok := geometry(l); ok {
			scratch = max(scratch, geo.ScratchLen())
			largest = max(largest, r.b.blocks*geo.Out()*geo.H*geo.W*kernel.Lanes)
			shapes[l.Out] = true
		}
	}
	// A block is the least work, so more threads would do nothing.
	if r.team, err = kernel.NewTeam(r.arena, o.ISA, min(o.Threads, blocks), scratch); err != nil {
		return nil, fmt.Errorf("%s, %d threads: %w", net.Name, o.Threads, err)
	}
	r.gradients[0] = r.arena.Floats(largest)
	r.gradients[1] = r.gradients[0]
	if len(shapes) > 1 {
		r.gradients[1] = r.arena.Floats(largest)
	}
	b := builder{m: m}
	if err := b.build(); err != nil {
		return nil, fmt.Errorf("build %s: %w", net.Name, err)
	}
	return m, nil
}

// geometry returns the kernel's view of a convolution layer.
func geometry(l space.Layer) (kernel.Geometry, bool) {
	g := kernel.Geometry{H: l.In.H, W: l.In.W, KH: 3, KW: 3, Stride: 1, L: 1, Ci: l.In.C, Co: l.Out.C}
	switch l.Kind {
	case space.Conv:
		return g, true
	case space.IGC:
		g.L, g.Ci, g.Co, g.Secondary = l.Pair.L, l.In.C/l.Pair.L, l.Out.C/l.Pair.L, true
		return g, true
	}
	return g, false
}

// builder makes both graphs in one walk over the layers.
type builder struct {
	m *Model
	// For each graph: the last activation and its normalisation.
	train, eval side
	params      G.Nodes // of the training graph
}

type side struct {
	g     *G.ExprGraph
	x     *G.Node
	norm  *norm
	pool  *G.Node
	nodes map[string]*G.Node // parameters by name
}

func (b *builder) build() error {
	m, r := b.m, b.m.run
	in := m.Net.Layers[0].In
	for _, s := range []*side{&b.train, &b.eval} {
		s.g, s.nodes = G.NewGraph(), map[string]*G.Node{}
		s.x = s.leaf("input", m.input, r.b.blocks, in.H, in.C, in.W, kernel.Lanes)
	}
	var bn string // the name of the normalisation of x
	for _, l := range m.Net.Layers {
		switch l.Kind {
		case space.Conv, space.IGC:
			geo, _ := geometry(l)
			weights := []string{l.Name + ".weight"}
			next := "bn" + l.Name[len("conv"):]
			var inputs []string
			if l.Kind == space.IGC {
				weights = []string{l.Name + ".primary.weight", l.Name + ".secondary.weight"}
				inputs = []string{bn + ".weight", bn + ".bias"}
				next = l.Name + ".bn"
			}
			b.param(weights[0], geo.Ci*9, true, geo.Out(), geo.Ci, 3, 3)
			if l.Kind == space.IGC {
				b.param(weights[1], geo.L, true, geo.Out(), geo.L, 1, 1)
			}
			z := r.arena.Floats(r.b.blocks * geo.Out() * geo.H * geo.W * kernel.Lanes)
			trainNorm := newNorm(r.arena, r.b, geo.Out(), geo.H*geo.W)
			evalNorm := trainNorm.evaluation(r.arena)
			inputs = append(inputs, weights...)
			if err := b.train.apply(newConv(l.Name, r, geo, b.train.norm, trainNorm, z), inputs...); err != nil {
				return err
			}
			if err := b.eval.apply(newConv(l.Name, r, geo, b.eval.norm, evalNorm, z), inputs...); err != nil {
				return err
			}
			b.train.norm, b.eval.norm, bn = trainNorm, evalNorm, next
			b.param(bn+".weight", 0, true, geo.Out())
			b.param(bn+".bias", 0, false, geo.Out())
			m.Stats = append(m.Stats, Stat{bn + ".running_mean", trainNorm.runningMean}, Stat{bn + ".running_var", trainNorm.runningVar})
		case space.Pool:
			k := m.Net.Classes
			m.train.head = newHead(r, l.In.H, l.In.W, l.In.C, k, b.train.norm)
			m.train.head.training()
			m.eval.head = newHead(r, l.In.H, l.In.W, l.In.C, k, b.eval.norm)
			if err := b.train.apply(newPool(m.train.head), bn+".weight", bn+".bias"); err != nil {
				return err
			}
			if err := b.eval.apply(newPool(m.eval.head), bn+".weight", bn+".bias"); err != nil {
				return err
			}
		case space.Linear:
			b.param(l.Name+".weight", l.In.C, true, l.Out.C, l.In.C)
			b.param(l.Name+".bias", 0, false, l.Out.C)
			for _, s := range []struct {
				*side
				*half
			}{{&b.train, &m.train}, {&b.eval, &m.eval}} {
				if err := s.apply(newLinear(s.head), l.Name+".weight", l.Name+".bias"); err != nil {
					return err
				}
				s.leafNamed("labels", m.labels, r.b.blocks, kernel.Lanes)
				s.cost = newCrossEntropy(s.head)
				if err := s.apply(s.cost, "labels"); err != nil {
					return err
				}
			}
		default:
			return fmt.Errorf("layer %s: no op for kind %v", l.Name, l.Kind)
		}
	}
	grads, err := G.Grad(b.train.x, b.params...)
	if err != nil {
		return fmt.Errorf("differentiate: %w", err)
	}
	if m.train.exec, err = newExecutor(b.train.g, append(G.Nodes{b.train.x}, grads...)...); err != nil {
		return err
	}
	if m.eval.exec, err = newExecutor(b.eval.g, b.eval.x); err != nil {
		return err
	}
	for i, g := range grads {
		p, ok := g.Op().(*part)
		if !ok {
			return fmt.Errorf("the gradient of %s is %v", m.Params[i].Name, g)
		}
		m.Params[i].Grad = f32(p.value)
	}
	return nil
}

// param makes a parameter and its node in both graphs.
func (b *builder) param(name string, fanIn int, decays bool, shape ...int) {
	n := tensor.Shape(shape).TotalSize()
	p := Param{Name: name, Shape: shape, Value: b.m.run.arena.Floats(n), Velocity: b.m.run.arena.Floats(n), Decays: decays, FanIn: fanIn}
	b.m.Params = append(b.m.Params, p)
	b.params = append(b.params, b.train.leafNamed(name, p.Value, shape...))
	b.eval.leafNamed(name, p.Value, shape...)
}

// leaf makes an input node over data. Each graph has tensor headers of its
// own: Gorgonia writes into them.
func (s *side) leaf(name string, data []float32, shape ...int) *G.Node {
	return G.NewTensor(s.g, G.Float32, len(shape), G.WithShape(shape...), G.WithName(name), G.WithValue(dense(data, shape...)))
}

func (s *side) leafNamed(name string, data []float32, shape ...int) *G.Node {
	n := s.leaf(name, data, shape...)
	s.nodes[name] = n
	return n
}

// apply makes op(x, the named inputs…) the new x.
func (s *side) apply(op G.Op, inputs ...string) error {
	args := G.Nodes{s.x}
	for _, name := range inputs {
		args = append(args, s.nodes[name])
	}
	x, err := G.ApplyOp(op, args...)
	if err != nil {
		return err
	}
	s.x = x
	return nil
}

// Team is what the model runs on.
func (m *Model) Team() *kernel.Team { return m.run.team }

// Close ends the model's threads and frees its memory; nothing of it may be
// used any more.
func (m *Model) Close() {
	if m.run.team != nil {
		m.run.team.Close()
		m.run.team = nil
	}
	m.run.arena.Free()
}

// Batch sets the number of pictures of the next Step or Evaluate and returns
// where they go: pictures (B, H, C, W, 16), padding lanes zero, and labels
// (B, 16), class numbers.
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

// StepBytes is the traffic of a Step on a full batch: what its ops read and write
// of activations and their gradients. No op can do with less; how much of it a
// cache serves depends on the machine.
func (m *Model) StepBytes() int {
	n := 0
	for _, s := range m.train.exec.steps {
		if op, ok := s.node.Op().(mover); ok {
			n += op.bytes()
		}
	}
	return n
}

// Evaluate computes the mean loss of the batch by the running statistics.
func (m *Model) Evaluate() (loss float64, err error) {
	if err := m.eval.exec.run(); err != nil {
		return 0, err
	}
	return m.eval.cost.total, nil
}

// Correct counts the pictures of the last Step (training) or Evaluate whose
// largest logit is their label's.
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
	in := m.Net.Layers[0].In
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

// Update changes the parameters by their gradients: SGD with Nesterov momentum
// mu, learning rate lr and weight decay where Param.Decays.
func (m *Model) Update(lr, mu, decay float32) {
	for _, p := range m.Params {
		d := decay
		if !p.Decays {
			d = 0
		}
		kernel.Nesterov(p.Value, p.Velocity, p.Grad, lr, mu, d)
	}
}
