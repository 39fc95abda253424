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
// case in builder.layer.
package graph

import (
	"errors"
	"fmt"
	"math"
	"strings"

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
	// Average is the exponential average of Value, bias-corrected; nil unless
	// Options.Average.
	Average []float32
	// Decays is set where Update adds the weight decay to the gradient: without
	// Options.DecayAll not for biases of the linear layer and shifts of the
	// normalisations.
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
	n      int // pictures now
	// measuring has the training graph add its sums to the precise statistics,
	// and leave the running ones alone.
	measuring bool
}

func (b *batch) used() int         { return kernel.Blocks(b.n) }
func (b *batch) valid(blk int) int { return min(kernel.Lanes, b.n-blk*kernel.Lanes) }

// runtime is what the ops of one model share.
type runtime struct {
	arena *kernel.Arena
	team  *kernel.Team
	b     *batch
	units map[int]*norm
}

// tensor returns a tensor of zeros.
func (r *runtime) tensor(shape ...int) *tensor.Dense {
	return dense(r.arena.Floats(tensor.Shape(shape).TotalSize()), shape...)
}

// unit is the normalisation that changes nothing, of c channels, for ops that
// want one.
func (r *runtime) unit(c int) *norm {
	n := r.units[c]
	if n == nil {
		a := r.arena
		n = &norm{c: c, b: r.b, scale: a.Floats(c), shift: a.Floats(c), ca: a.Floats(c), cb: a.Floats(c), cc: a.Floats(c),
			gsum: a.Doubles(r.b.blocks * c), gxsum: a.Doubles(r.b.blocks * c)}
		for i := range c {
			n.scale[i], n.ca[i] = 1, 1
		}
		r.units[c] = n
	}
	return n
}

// Model is a network ready to train. It is not safe for concurrent use; two
// models are.
type Model struct {
	Net    space.Network
	Params []Param
	Stats  []Stat // running statistics
	// Precise are the statistics that Measured made, under the names of Stats;
	// evaluations use them. nil unless Options.Precise.
	Precise []Stat

	options Options
	run     *runtime
	input   []float32 // (B, H, C, W, 16)
	labels  []float32 // (B, 16)
	train   half
	eval    half
	measure *executor // the training graph up to the loss; nil unless Options.Precise
	norms   []*norm   // of the training graph
}

// inputName is the name of the pictures' node.
const inputName = "input"

// half is one of the two graphs.
type half struct {
	head *head
	cost *crossEntropy
	exec *executor
}

// Options say how a model runs and what it keeps.
type Options struct {
	ISA     kernel.ISA
	Threads int // at least 1; any number gives the same bits

	// DecayAll has Update decay every parameter; else biases of the linear layer
	// and shifts of the normalisations are left out.
	DecayAll bool
	// Average has Update keep the average of each parameter.
	Average bool
	// Precise has evaluations normalise by what Measure and Measured found, in
	// place of the running statistics.
	Precise bool
}

// New builds the network for batches of up to n pictures. Parameters are zero
// but for the running variances, 1. Close frees the memory. It is an error if
// the system has not enough of it.
func New(net space.Network, n int, o Options) (_ *Model, err error) {
	m := &Model{Net: net, options: o}
	blocks := kernel.Blocks(n)
	r := &runtime{arena: &kernel.Arena{}, b: &batch{blocks: blocks, n: n}, units: map[int]*norm{}}
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
			scratch = max(scratch, geometry(l).ScratchLen())
		}
	}
	// A block is the least work, so more threads would do nothing.
	if r.team, err = kernel.NewTeam(r.arena, o.ISA, min(o.Threads, blocks), scratch); err != nil {
		return nil, fmt.Errorf("%s, %d threads: %w", net.Name, o.Threads, err)
	}
	b := builder{m: m}
	if err := b.build(); err != nil {
		return nil, fmt.Errorf("build %s: %w", net.Name, err)
	}
	return m, nil
}

// geometry returns the kernel's view of a convolution.
func geometry(l space.Layer) kernel.Geometry {
	return kernel.Geometry{H: l.In.H, W: l.In.W, KH: l.KH, KW: l.KW, Stride: l.Stride,
		L: l.Groups, Ci: l.In.C / l.Groups, Co: l.Out.C / l.Groups,
		Secondary: l.Kind == space.IGC, Between: l.Between, Interleaved: l.Interleaved}
}

// builder makes both graphs in one walk over the layers.
type builder struct {
	m           *Model
	train, eval side
	params      G.Nodes // of the training graph
	factor      float64 // of the running statistics
}

// side is one of the two graphs.
type side struct {
	g     *G.ExprGraph
	run   *half
	out   map[int]value      // of each layer; −1 is the pictures
	nodes map[string]*G.Node // parameters by name
}

// value is the output of a layer.
type value struct {
	node *G.Node
	norm *norm  // whoever reads it normalises by this; nil: it is taken as it is
	bn   string // the norm's name
	// raw is set if no ReLU follows: only an add may read it.
	raw bool
	// rectified is set if a ReLU follows, but no norm: only a convolution may
	// read it.
	rectified bool
	pictures  bool
}

// inputs are the names of the norm's parameters.
func (v value) inputs() []string {
	if v.norm == nil {
		return nil
	}
	return []string{v.bn + ".weight", v.bn + ".bias"}
}

func (b *builder) sides() []*side { return []*side{&b.train, &b.eval} }

func (b *builder) build() error {
	m, r := b.m, b.m.run
	in := m.Net.Input()
	b.train.run, b.eval.run = &m.train, &m.eval
	for _, s := range b.sides() {
		s.g, s.nodes = G.NewGraph(), map[string]*G.Node{}
		s.out = map[int]value{-1: {node: s.leaf(inputName, m.input, r.b.blocks, in.H, in.C, in.W, kernel.Lanes), pictures: true}}
	}
	readers := map[int]int{}
	b.factor = RunningFactor
	for _, l := range m.Net.Layers {
		readers[l.From]++
		if l.Kind == space.Add {
			readers[l.Shortcut]++
			b.factor = RunningFactorIdent
		}
	}
	for i, l := range m.Net.Layers {
		if err := b.layer(i, l); err != nil {
			return fmt.Errorf("layer %s: %w", l.Name, err)
		}
		if b.train.out[i].norm != nil && readers[i] > 1 {
			if err := b.activation(i, l); err != nil {
				return fmt.Errorf("layer %s: %w", l.Name, err)
			}
		}
	}
	last := len(m.Net.Layers) - 1
	for _, s := range b.sides() {
		s.leafNamed("labels", m.labels, r.b.blocks, kernel.Lanes)
		s.run.cost = newCrossEntropy(s.run.head)
		if err := s.apply(last, value{}, s.run.cost, s.out[last].node, "labels"); err != nil {
			return err
		}
	}
	grads, err := G.Grad(b.train.out[last].node, b.params...)
	if err != nil {
		return fmt.Errorf("differentiate: %w", err)
	}
	if m.train.exec, err = newExecutor(r, b.train.g, append(G.Nodes{b.train.out[last].node}, grads...)...); err != nil {
		return err
	}
	if m.eval.exec, err = newExecutor(r, b.eval.g, b.eval.out[last].node); err != nil {
		return err
	}
	if m.options.Precise {
		if m.measure, err = newExecutor(r, b.train.g, b.train.out[last].node); err != nil {
			return err
		}
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

// layer adds layer i to both graphs.
func (b *builder) layer(i int, l space.Layer) error {
	m, r := b.m, b.m.run
	memory := func(c space.Shape) []float32 { return r.arena.Floats(r.b.blocks * c.H * c.C * c.W * kernel.Lanes) }
	switch l.Kind {
	case space.Conv, space.IGC:
		geo, weights := geometry(l), []string{l.Name + ".weight"}
		if l.Kind == space.IGC {
			weights = []string{l.Name + ".primary.weight", l.Name + ".secondary.weight"}
		}
		b.param(weights[0], geo.Ci*geo.KH*geo.KW, true, l.Branches*geo.Out(), geo.Ci, geo.KH, geo.KW)
		if l.Kind == space.IGC {
			b.param(weights[1], geo.L, true, geo.Out(), geo.L, 1, 1)
		}
		z := memory(l.Out)
		norms, bn := map[*side]*norm{}, ""
		if l.Norm {
			bn = normName(l.Name)
			n := newNorm(bn, r.arena, r.b, geo.Out(), l.Out.H*l.Out.W, b.factor)
			m.norms = append(m.norms, n)
			mean, variance := n.runningMean, n.runningVar
			if m.options.Precise {
				mean, variance = n.precise(r.arena)
				m.Precise = append(m.Precise, Stat{bn + ".running_mean", mean}, Stat{bn + ".running_var", variance})
			}
			norms[&b.train], norms[&b.eval] = n, n.evaluation(r.arena, mean, variance)
			b.param(bn+".weight", 0, true, geo.Out())
			b.param(bn+".bias", 0, false, geo.Out())
			m.Stats = append(m.Stats, Stat{bn + ".running_mean", n.runningMean}, Stat{bn + ".running_var", n.runningVar})
		}
		for _, s := range b.sides() {
			from := s.out[l.From]
			if from.raw {
				return fmt.Errorf("it reads %s, which has no ReLU", m.Net.Layers[l.From].Name)
			}
			op := newConv(l.Name, r, geo, l.Branches, from, norms[s], z, s == &b.train)
			if err := s.apply(i, value{norm: norms[s], bn: bn, raw: l.Norm && !l.ReLU, rectified: !l.Norm && l.ReLU}, op, from.node, append(from.inputs(), weights...)...); err != nil {
				return err
			}
		}
		return nil
	case space.Add:
		out := memory(l.Out)
		for _, s := range b.sides() {
			z, x := s.out[l.From], s.out[l.Shortcut]
			if z.norm == nil || x.norm != nil && !x.raw || x.rectified {
				return fmt.Errorf("it adds what is not normalised, or has its ReLU still to come")
			}
			op := newAdd(l.Name, r, l.Out.H, l.Out.C, l.Out.W, z, &x, out)
			args := append(s.named(z.inputs()...), x.node)
			if err := s.applyNodes(i, value{}, op, append(append(G.Nodes{z.node}, args...), s.named(x.inputs()...)...)...); err != nil {
				return err
			}
		}
		return nil
	case space.MaxPool:
		out := memory(l.Out)
		for _, s := range b.sides() {
			z := s.out[l.From]
			if z.norm == nil || z.raw {
				return fmt.Errorf("it reads what is not normalised")
			}
			if err := s.apply(i, value{}, newMaxPool(l.Name, r, l.In.H, l.In.C, l.In.W, z, out), z.node, z.inputs()...); err != nil {
				return err
			}
		}
		return nil
	case space.Pool:
		for _, s := range b.sides() {
			z := s.out[l.From]
			if z.raw || z.rectified {
				return fmt.Errorf("it reads what has no ReLU, or a ReLU without a norm")
			}
			s.run.head = newHead(r, l.In.H, l.In.W, l.In.C, m.Net.Classes, z.norm)
			if s == &b.train {
				s.run.head.training()
			}
			if err := s.apply(i, value{}, newPool(s.run.head), z.node, z.inputs()...); err != nil {
				return err
			}
		}
		return nil
	case space.Linear:
		b.param(l.Name+".weight", l.In.C, true, l.Out.C, l.In.C)
		b.param(l.Name+".bias", 0, false, l.Out.C)
		for _, s := range b.sides() {
			if err := s.apply(i, value{}, newLinear(s.run.head), s.out[l.From].node, l.Name+".weight", l.Name+".bias"); err != nil {
				return err
			}
		}
		return nil
	}
	return fmt.Errorf("no op for kind %v", l.Kind)
}

// activation writes what layer i's readers would compute, because there are
// several.
func (b *builder) activation(i int, l space.Layer) error {
	r := b.m.run
	out := r.arena.Floats(r.b.blocks * l.Out.H * l.Out.C * l.Out.W * kernel.Lanes)
	for _, s := range b.sides() {
		z := s.out[i]
		if err := s.apply(i, value{}, newAdd(l.Name+".relu", r, l.Out.H, l.Out.C, l.Out.W, z, nil, out), z.node, z.inputs()...); err != nil {
			return err
		}
	}
	return nil
}

// normName is the name of the normalisation behind a layer: "bn0" of "conv0",
// "block1.bn" of "block1" and of its last part, "block1.secondary".
func normName(layer string) string {
	if number, ok := strings.CutPrefix(layer, "conv"); ok {
		return "bn" + number
	}
	return strings.TrimSuffix(layer, ".secondary") + ".bn"
}

// param makes a parameter and its node in both graphs.
func (b *builder) param(name string, fanIn int, decays bool, shape ...int) {
	n := tensor.Shape(shape).TotalSize()
	p := Param{Name: name, Shape: shape, Value: b.m.run.arena.Floats(n), Velocity: b.m.run.arena.Floats(n), Decays: decays || b.m.options.DecayAll, FanIn: fanIn}
	if b.m.options.Average {
		p.Average = b.m.run.arena.Floats(n)
	}
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

func (s *side) named(names ...string) (nodes G.Nodes) {
	for _, name := range names {
		nodes = append(nodes, s.nodes[name])
	}
	return nodes
}

// apply makes op(x, the named inputs…) the output of layer i, of the kind v.
func (s *side) apply(i int, v value, op G.Op, x *G.Node, inputs ...string) error {
	return s.applyNodes(i, v, op, append(G.Nodes{x}, s.named(inputs...)...)...)
}

func (s *side) applyNodes(i int, v value, op G.Op, inputs ...*G.Node) (err error) {
	v.node, err = G.ApplyOp(op, inputs...)
	s.out[i] = v
	return err
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
		if op, ok := s.op.(mover); ok {
			n += op.bytes()
		}
	}
	return n
}

// Measure adds the batch to the statistics that Measured will make: each
// normalisation sees the batch as in training. It changes nothing that a training
// step needs. The model has Options.Precise.
func (m *Model) Measure() error {
	m.run.b.measuring = true
	err := m.measure.run()
	m.run.b.measuring = false
	return err
}

// Measured makes Precise out of the batches since the last time.
func (m *Model) Measured() {
	for _, n := range m.norms {
		n.measured()
	}
}

// Exchange swaps the values of all parameters with their averages. Twice is as
// before.
func (m *Model) Exchange() {
	for _, p := range m.Params {
		for i, v := range p.Value {
			p.Value[i], p.Average[i] = p.Average[i], v
		}
	}
}

// Evaluate computes the mean loss of the batch by the running statistics, or with
// Options.Precise by the precise ones.
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

// Rates are what changes from step to step of an optimiser.
type Rates struct {
	Learning float32
	// Average is the share of the new weights in their average, which is 1 at
	// the first step; without Options.Average it does nothing.
	Average float32
}

// Update changes the parameters by their gradients: SGD with Nesterov momentum
// mu, and weight decay where Param.Decays. Then it brings the averages up to date.
func (m *Model) Update(r Rates, mu, decay float32) {
	for _, p := range m.Params {
		d := decay
		if !p.Decays {
			d = 0
		}
		kernel.Nesterov(p.Value, p.Velocity, p.Grad, r.Learning, mu, d)
		for i := range p.Average {
			// The conversion keeps the product from being fused with the sum.
			p.Average[i] += float32(r.Average * (p.Value[i] - p.Average[i]))
		}
	}
}
